"""torch's bilinear resizes with the coordinates that exported graphs have (`deploy.coordinates`).

torch rounds one step of an axis and multiplies it by the element's number: at 1000 elements that
moves a weight by 6e-5. Where the image is resized first (ICNet), two evaluations of one network on
noise would differ by far more than what all their sums do.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from deploy.graph.float64_resize import resize


class GraphCoordinates(TorchFunctionMode):
    """While it is entered, bilinear resizes to a size (H, W) are the graph's; all else is torch's
    own, and so is a resize by a factor or with antialias."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - torch's own protocol
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Called for each function of torch, with `F.interpolate`'s options all named."""
        named = kwargs or {}
        if func is not F.interpolate or named["mode"] != "bilinear" or named["antialias"]:
            return func(*args, **named)
        (image,), size = args, named["size"]
        if not isinstance(size, tuple):
            return func(*args, **named)
        kind = b"align_corners" if named["align_corners"] else b"half_pixel"
        attributes = {"mode": b"linear", "coordinate_transformation_mode": kind}
        sizes = np.array([*image.shape[:2], *size])
        resized = resize(attributes, image.double().numpy(), sizes=sizes)
        return torch.from_numpy(np.ascontiguousarray(resized)).to(image.dtype)
