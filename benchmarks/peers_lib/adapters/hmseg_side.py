"""Ours: `deploy.build.build_artifact` for this CPU, run by `deploy.runtime`."""

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("hmseg", "apache-tvm", "apache-tvm-ffi", "numpy")
PER_THREADS = True
SETTINGS = "target cpu"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph",)


def prepare(work: Work) -> None:
    from deploy.artifact import save_artifact
    from deploy.build import build_artifact
    from deploy.export import read_onnx
    from deploy.targets import resolve_target

    artifact, _ = build_artifact(
        read_onnx(work.onnx), resolve_target("cpu"), threads=work.config.threads
    )
    save_artifact(artifact, work.folder / "network.hmseg")


def load_runtime(threads: int) -> None:
    from deploy import runtime

    runtime.import_runtime()


def open_network(work: Work) -> Call:
    from deploy import runtime

    network = runtime.load(work.folder / "network.hmseg", threads=work.config.threads)
    given = work.given()
    return lambda: network(given)
