"""Ours: `deploy.build.build_artifact` for this CPU, run by `deploy.runtime`."""

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("hmseg", "apache-tvm", "apache-tvm-ffi", "numpy")
PER_THREADS = True
SETTINGS = "target cpu, shipped tuning records"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph",)


def prepare(work: Work) -> None:
    import onnx

    from deploy.artifact_file import save_artifact
    from deploy.build import build_artifact
    from deploy.targets import resolve_target
    from deploy.tuning.records import SHIPPED, tuned_schedules

    # The shipped records, never this user's own: anyone can measure the same.
    target, threads = resolve_target("cpu"), work.config.threads
    measured = tuned_schedules(target, threads, [SHIPPED])
    artifact, _ = build_artifact(onnx.load(work.onnx), target, threads=threads, measured=measured)
    save_artifact(artifact, work.folder / "network.hmseg")


def load_runtime(threads: int) -> None:
    from deploy.cpu.loaded import import_runtime

    import_runtime()


def open_network(work: Work) -> Call:
    from deploy import runtime

    network = runtime.load(work.folder / "network.hmseg", threads=work.config.threads)
    given = work.given()
    return lambda: network(given)
