"""ExecuTorch with XNNPACK: the exported torch module, lowered whole to the delegate."""

import os

from benchmarks.peers_lib.adapters import Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("executorch", "torch")
PER_THREADS = False
SETTINGS = (
    "XnnpackPartitioner, channels-last input, its pool reset to the threads, torch's does not spin"
)
# Its portable operators take 9 ms for the image end at 256x512 where torch takes 0.2.
IMAGE_END = "torch.addcmul before it"
# Arg-max after the delegate fails with error 0x12.
LABEL_ENDS: tuple[LabelEnd, ...] = ("torch", "numpy")


def prepare(work: Work) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from benchmarks.peers_lib.network import FloatNetwork

    example = torch.zeros(1, 3, *work.config.size).to(memory_format=torch.channels_last)
    program = torch.export.export(FloatNetwork(work.config).eval(), (example,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    (work.folder / "network.pte").write_bytes(lowered.to_executorch().buffer)


def load_runtime(threads: int) -> None:
    # Torch's workers would go on spinning on the cores that the delegate's pool needs next.
    os.environ["GOMP_SPINCOUNT"] = "0"
    import torch
    from executorch.runtime import Runtime

    assert Runtime
    torch.set_num_threads(threads)


def open_network(work: Work) -> Call:
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    from benchmarks.peers_lib.ends import image_end

    portable_lib._unsafe_reset_threadpool(work.config.threads)
    program = Runtime.get().load_program(work.folder / "network.pte")
    method = program.load_method("forward")
    if method is None:
        raise RuntimeError("the program has no method forward")
    scale, shift = (torch.from_numpy(array) for array in image_end())
    given = torch.from_numpy(work.given())[None]
    if work.config.input == "image":
        image = given.permute(0, 3, 1, 2)

        def tensor():  # noqa: ANN202
            return torch.addcmul(shift, image.float(), scale)
    else:

        def tensor():  # noqa: ANN202
            return given.contiguous(memory_format=torch.channels_last)

    def call():  # noqa: ANN202
        with torch.inference_mode():
            return method.execute([tensor()])[0].numpy()[0]

    call.program = program  # the method reads the program's memory
    return call
