"""What is compiled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from deploy.graph.passes import Pass
from deploy.graph.place import Kernels
from deploy.object_cache import ObjectCache
from deploy.target import Target


@dataclass(frozen=True)
class Job:
    """A graph with both ends, for a target, with which kernels. Without any, all is left to TVM;
    `passes` in the place of the backend's own are for tests."""

    graph: onnx.ModelProto
    target: Target
    kernels: Kernels | None = None
    passes: Sequence[Pass] | None = None
    dump: Path | None = None  # a folder for the module after each pass
    cache: ObjectCache | None = None
    portable: bool = True  # with code for machines after those of the target, if there can be
