"""IREE: the ONNX graph compiled for this CPU."""

import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("iree-base-compiler", "iree-base-runtime")
PER_THREADS = False
FLAGS = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
    "--iree-opt-level=O3",
    "--iree-opt-data-tiling",
    "--iree-llvmcpu-enable-ukernels=all",
)
SETTINGS = f"{' '.join(FLAGS[2:])}; local-sync for 1 thread, else local-task"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph", "numpy")


def prepare(work: Work) -> None:
    mlir = work.folder / "network.mlir"
    subprocess.run(
        [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(work.onnx), "-o", str(mlir)],
        check=True,
    )
    compiler = Path(sysconfig.get_path("scripts")) / "iree-compile"
    done = subprocess.run(
        [compiler, str(mlir), *FLAGS, "-o", str(work.folder / "network.vmfb")],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error: " in line]
        raise RuntimeError((errors or ["iree-compile failed"])[0].split("error: ")[-1][:200])


def load_runtime(threads: int) -> None:
    import iree.runtime

    iree.runtime.flags.parse_flags(f"--task_topology_group_count={threads}")


def open_network(work: Work) -> Call:
    import iree.runtime as rt

    config = rt.Config("local-sync" if work.config.threads == 1 else "local-task")
    context = rt.SystemContext(config=config)
    module = rt.VmModule.mmap(config.vm_instance, str(work.folder / "network.vmfb"))
    context.add_vm_module(module)
    main = context.modules[module.name]["main_graph"]
    given = work.given()
    return lambda: main(given[None]).to_host()[0]
