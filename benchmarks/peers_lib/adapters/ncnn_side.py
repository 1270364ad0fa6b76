"""ncnn: the graph without its ends, converted by pnnx."""

import subprocess

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers_lib.adapters import Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("ncnn", "pnnx")
PER_THREADS = False
SETTINGS = "pnnx fp16=0; fp16 and bf16 options off; winograd, sgemm, packing layout on"
IMAGE_END = "Mat.from_pixels and substract_mean_normalize, its own"
LABEL_ENDS: tuple[LabelEnd, ...] = ("numpy",)  # it has no arg-max over channels


def prepare(work: Work) -> None:
    import onnx
    import pnnx

    from benchmarks.peers_lib.network import without_ends

    onnx.save(without_ends(onnx.load(work.onnx)), work.folder / "network.onnx")
    done = subprocess.run([pnnx.EXEC_PATH, "network.onnx", "fp16=0"], cwd=work.folder, check=False)
    # pnnx's exit code says nothing: it is 255 after some good conversions.
    if not (work.folder / "network.ncnn.param").exists():
        raise RuntimeError(f"pnnx wrote no network (exit code {done.returncode})")


def load_runtime(threads: int) -> None:
    import ncnn

    assert ncnn


def open_network(work: Work) -> Call:
    import ncnn

    from hmseg.data.normalise import MEAN, STD

    net = ncnn.Net()
    net.opt.num_threads = work.config.threads
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    for option in ("winograd_convolution", "sgemm_convolution", "packing_layout"):
        setattr(net.opt, f"use_{option}", True)
    for load, suffix in ((net.load_param, "param"), (net.load_model, "bin")):
        if load(str(work.folder / f"network.ncnn.{suffix}")):
            raise RuntimeError(f"ncnn cannot load its .{suffix} file")
    mean = [255 * value for value in MEAN]
    scale = [1 / (255 * value) for value in STD]
    given = work.given()
    height, width = work.config.size

    def logits() -> NDArray[np.float32]:
        if work.config.input == "image":
            mat = ncnn.Mat.from_pixels(given, ncnn.Mat.PixelType.PIXEL_RGB, width, height)
            mat.substract_mean_normalize(mean, scale)
        else:
            mat = ncnn.Mat(given)
        with net.create_extractor() as extractor:
            extractor.input("in0", mat)
            _, out = extractor.extract("out0")
            return np.asarray(out)  # a view, which keeps the Mat

    return logits
