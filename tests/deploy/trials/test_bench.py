"""What all benches share: candidates as records hold them, operations by their text, refusals."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from deploy.artifact import TVM, KernelInfo
from deploy.trials.bench import Candidate, operations_of, refusal
from lut.ops import Pointwise, Resize

FIRST, SECOND = Pointwise(8, 8, 4, 4), Resize(8, 4, 4, 2, 2)
NEST = "tvm:0123456789abcdef01234567"


@dataclass(frozen=True)
class Tile:
    rows: int


@dataclass(frozen=True)
class Schedule:
    tile: Tile
    tasks: int


def test_a_candidates_fields_are_those_of_a_record():
    assert Candidate("a", Schedule(Tile(3), 2)).fields == {"tile": {"rows": 3}, "tasks": 2}
    assert Candidate(NEST, {"trace": [1]}).fields == {"trace": [1]}


def test_operations_are_those_of_kernels_of_ours():
    kernels = [
        KernelInfo("a", "pointwise", str(FIRST), 0, 0),
        KernelInfo("b", "resize", str(SECOND), 0, 0),
        KernelInfo("c", TVM, NEST, 0, 0),
    ]
    artifact = SimpleNamespace(kernels=kernels)
    asked = [str(FIRST), NEST, "something else"]
    assert operations_of(artifact, asked) == {str(FIRST): FIRST}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("strips of 33 columns"), "strips of 33 columns"),
        (RuntimeError("a traceback\n  of TVM's\nand at last why\n"), "and at last why"),
        (AssertionError(), "AssertionError"),
        (TypeError("x" * 500), "x" * 200),
    ],
)
def test_a_refusal_is_one_line(error, line):
    assert refusal(error) == line
