"""The sides of the comparison, a module each, imported only in that side's own processes.

A module has

- `PACKAGES`: the distributions whose versions are recorded;
- `PER_THREADS`: whether what it prepares depends on the number of threads;
- `SETTINGS`: the runtime's settings in words;
- `IMAGE_END`: where the uint8 image becomes normalised float; always counted;
- `PRECISION`, where it is not float32;
- `LABEL_ENDS`: where the arg-max can stand, "graph" (the runtime's own), "numpy" or "torch" (after
  the runtime's logits, counted too); of those that work, the fastest is timed;
- `prepare(work)`: convert or compile into ``work.folder`` (its time and memory are not counted);
- `load_runtime(threads)`: import the runtime; resident memory is read after it;
- `open_network(work)`: load what was prepared and return a call without arguments, image to
  labels (H, W) or logits (K, H, W); every copy in and out is inside the call. What it returns may
  be the runtime's own memory, valid until the next call.
"""

import hashlib
import importlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers_lib.job import LabelEnd, Work
from deploy.precision import FP32, PRECISIONS, Precision

ROOT = Path(__file__).parents[3]
OURS = "hmseg"
EXACT, BF16, INT8 = "hmseg-exact", "hmseg-bf16", "hmseg-int8"  # ours too
OWN = (OURS, EXACT, BF16, INT8)
PEERS = (
    "onnxruntime", "openvino", "ncnn", "mnn", "torch-compile", "litert", "executorch", "iree",
)  # fmt: skip
LOW_PRECISION = ("openvino-bf16", "openvino-int8", "onnxruntime-int8")  # peers too
PROBE = "fma-probe"
IN_GRAPH = "in its graph"

Call = Callable[[], NDArray[np.generic]]


class Adapter(Protocol):
    """What a module of this package is."""

    PACKAGES: tuple[str, ...]
    PER_THREADS: bool
    SETTINGS: str
    IMAGE_END: str
    LABEL_ENDS: tuple[LabelEnd, ...]

    def prepare(self, work: Work) -> None: ...
    def load_runtime(self, threads: int) -> None: ...
    def open_network(self, work: Work) -> Call: ...


def load_adapter(name: str) -> Adapter:
    """The module of a side; cheap, as none imports its runtime at the top."""
    module: Any = importlib.import_module(f"{__name__}.{name.replace('-', '_')}_side")
    return cast("Adapter", module)


def precision_of(name: str, ours: str = FP32.name) -> Precision:
    """What a side computes in; `ours` is that of the configuration."""
    return PRECISIONS[getattr(load_adapter(name), "PRECISION", ours if name == OURS else FP32.name)]


def versions(adapter: Adapter) -> dict[str, str]:
    """Of the side's packages; raises PackageNotFoundError for one that is not installed."""
    return {package: metadata.version(package) for package in adapter.PACKAGES}


def fingerprint(name: str, config_threads: int) -> str:
    """Changes with whatever a preparation depends on besides the graph."""
    adapter = load_adapter(name)
    digest = hashlib.sha256(repr(versions(adapter)).encode())
    digest.update(Path(str(cast("Any", adapter).__file__)).read_bytes())
    digest.update(str(config_threads if adapter.PER_THREADS else 0).encode())
    if name in (*OWN, PROBE):
        digest.update(deploy_digest().encode())
    return digest.hexdigest()[:16]


def file_digest() -> str:
    """SHA-256 over the sources that a file of `hmseg.families` follows from."""
    return _digest(
        *sorted((ROOT / "hmseg" / "families").rglob("*.py")),
        ROOT / "hmseg" / "blocks.py", ROOT / "benchmarks" / "own_files_exports.py",
        ROOT / "benchmarks" / "peers_lib" / "families.py",
    )  # fmt: skip


def graph_digest() -> str:
    """SHA-256 over the sources that the folded graph follows from."""
    deploy, graph = ROOT / "deploy", ROOT / "deploy" / "graph"
    return _digest(
        *sorted((ROOT / "hmseg").rglob("*.py")), *sorted(deploy.glob("*.py")),
        *sorted((deploy / "reading").rglob("*.py")), *sorted((graph / "ends").rglob("*.py")),
        graph / "decision.py", graph / "export.py",
        *(ROOT / "benchmarks" / "peers_lib" / name for name in ("families.py", "network.py")),
    )  # fmt: skip


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def deploy_digest() -> str:
    """SHA-256 over deploy/'s sources and tuning records: says which compiler was measured."""
    root = ROOT / "deploy"
    digest = hashlib.sha256()
    for path in sorted((*root.rglob("*.py"), *root.rglob("*.jsonl"))):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
