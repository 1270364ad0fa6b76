"""What a user would run on the GPU instead, in fp32."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.measure.peer import Peer
from lut.errors import UserError

if TYPE_CHECKING:
    from torch import nn

CUDA, TENSORRT, CPU = (f"{name}ExecutionProvider" for name in ("CUDA", "Tensorrt", "CPU"))
# In onnxruntime's order of preference: what TensorRT does not take goes to CUDA.
PROVIDERS = {"onnxruntime CUDA": (CUDA,), "TensorRT": (TENSORRT, CUDA)}
NO_TF32 = "NVIDIA_TF32_OVERRIDE"  # at "0", NVIDIA's libraries use no TF32; read when they load


def makers(
    network: "nn.Module | None", graph: onnx.ModelProto, image: NDArray[np.uint8]
) -> Mapping[str, Callable[[], Peer]]:
    """What starts each peer, by its name; each raises where the peer does not run here."""
    return {
        "torch eager": partial(start_torch, network, image, compiled=False),
        "torch.compile": partial(start_torch, network, image, compiled=True),
    } | {
        name: partial(start_onnxruntime, graph, image, providers)
        for name, providers in PROVIDERS.items()
    }


def start_torch(network: "nn.Module | None", image: NDArray[np.uint8], *, compiled: bool) -> Peer:
    """The module on the GPU, eager or compiled anew for this one size."""
    import torch

    from hmseg.data.normalise import MEAN, STD

    if network is None:
        raise UserError("a user's ONNX file has no torch module")
    if not torch.cuda.is_available():
        raise UserError(f"torch {torch.__version__} sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    module = network.eval().cuda()
    mean, std = (torch.tensor(v, device="cuda").view(1, 3, 1, 1) for v in (MEAN, STD))

    def labels(pixels: "torch.Tensor") -> "torch.Tensor":
        planes = pixels.permute(2, 0, 1)[None].float() / 255
        scores: torch.Tensor = module((planes - mean) / std)
        return scores.argmax(1).to(torch.uint8)

    run = labels
    if compiled:
        # Of several sizes in one process, the second would be compiled with symbols for its sides.
        torch._dynamo.reset()
        run = torch.compile(labels, mode="reduce-overhead", dynamic=False)
    pinned = torch.from_numpy(image.copy()).pin_memory()

    def frame() -> NDArray[Any]:
        with torch.inference_mode():
            found: NDArray[Any] = run(pinned.cuda(non_blocking=True)).cpu().numpy()[0]
        return found

    for _ in range(3):  # torch.compile records its graph at the second call
        frame()
    return Peer(frame)


def start_onnxruntime(
    graph: onnx.ModelProto, image: NDArray[np.uint8], providers: tuple[str, ...]
) -> Peer:
    """A session with these providers, the first of which it must have.

    It is started without the CPU for a fallback; only where that is refused, with it, which the
    peer's note then says.
    """
    import onnxruntime

    missing = set(providers) - set(onnxruntime.get_available_providers())
    if missing:
        raise UserError(f"{', '.join(sorted(missing))} is not in the installed onnxruntime")
    if providers[0] == TENSORRT and os.environ.get(NO_TF32) != "0":
        raise UserError(f"TensorRT is in fp32 only with {NO_TF32}=0 in the environment")
    given = [(name, {"use_tf32": 0} if name == CUDA else {}) for name in providers]
    model, note = graph.SerializeToString(), ""

    def start(fallback: str) -> Any:  # noqa: ANN401 - a session
        settings = onnxruntime.SessionOptions()
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", fallback)
        return onnxruntime.InferenceSession(model, settings, providers=given)

    try:
        session = start("1")
    except Exception as error:  # of a type of onnxruntime's own
        if "fallback to CPU EP" not in str(error):
            raise
        session, note = start("0"), "onnxruntime runs some of its nodes on the CPU"
    if session.get_providers()[: len(providers)] != list(providers):
        raise UserError(
            f"onnxruntime could not start {', '.join(providers)}: it has "
            f"{', '.join(session.get_providers())}"
        )
    name, pixels = session.get_inputs()[0].name, np.ascontiguousarray(image[None])

    def frame() -> NDArray[Any]:
        found: NDArray[Any] = session.run(None, {name: pixels})[0].reshape(image.shape[:2])
        return found

    return Peer(frame, note)
