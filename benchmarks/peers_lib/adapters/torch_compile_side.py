"""torch.compile with inductor, on the folded torch module with both ends."""

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("torch",)
PER_THREADS = True
SETTINGS = (
    "inductor, max-autotune, freezing, channels-last weights; its memory includes the compiler"
)
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph", "numpy")


def prepare(work: Work) -> None:
    """Compile once, so that the code is in inductor's cache when the timed process asks."""
    load_runtime(work.config.threads)
    open_network(work)()


def load_runtime(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def open_network(work: Work) -> Call:
    import os

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work.folder / "inductor")
    import torch
    import torch._inductor.config

    from benchmarks.peers_lib.network import torch_network

    torch._inductor.config.freezing = True
    network = torch_network(work.config).to(memory_format=torch.channels_last)
    compiled = torch.compile(network, mode="max-autotune", fullgraph=True, dynamic=False)
    given = torch.from_numpy(work.given())[None]

    def call():  # noqa: ANN202
        with torch.inference_mode():
            return compiled(given).numpy()[0]

    return call
