"""The front door: whatever a program needs is handed on from here, and imported when it is used.

    model = hmseg.create_model("tiny-hmseg", num_classes=11)  # a torch module
    path = hmseg.compile("tiny-hmseg")  # or an ONNX file, or a torch module
    labels = hmseg.load(path)(image)  # uint8 (H, W, 3) -> uint8 (H, W)

`load` needs numpy alone, `list_models` nothing. This is the one place that hands on what lies above
it: the package itself is networks, search and training in PyTorch, and knows nothing of `deploy`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.compile import compile_model as compile
    from deploy.runtime import load
    from hmseg.zoo import create_model, list_models
    from lut.errors import HmsegError, UserError, WorkError

__all__ = [
    "HmsegError",
    "UserError",
    "WorkError",
    "compile",
    "create_model",
    "list_models",
    "load",
]
_FROM = {
    "HmsegError": ("lut.errors", "HmsegError"),
    "UserError": ("lut.errors", "UserError"),
    "WorkError": ("lut.errors", "WorkError"),
    "compile": ("deploy.compile", "compile_model"),
    "create_model": ("hmseg.zoo", "create_model"),
    "list_models": ("hmseg.zoo", "list_models"),
    "load": ("deploy.runtime", "load"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the module protocol (PEP 562)
    if name not in _FROM:
        raise AttributeError(f"module 'hmseg' has no attribute {name!r}")
    from hmseg.packages import own_module

    module, attribute = _FROM[name]
    return getattr(own_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
