"""Networks, search and training in PyTorch.

``create_model`` and ``list_models`` import torch only when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hmseg.zoo import create_model, list_models

__all__ = ["create_model", "list_models"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the module protocol (PEP 562)
    if name in __all__:
        from hmseg import zoo

        return getattr(zoo, name)
    raise AttributeError(f"module 'hmseg' has no attribute {name!r}")
