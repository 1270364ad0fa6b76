"""Maps of another size: resizes of any kind and adaptive means."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from deploy.bilinear import Axis
from deploy.graph.match.found import Found
from deploy.graph.match.steps import steps_to
from deploy.graph.view import Graph, bilinear_resize, map_of, plane_of, shape_of
from lut.ops import Resample

_Matrix = NDArray[np.float32]
_SUM = 1e-4  # by which the weights of a mean may miss 1


@dataclass(frozen=True)
class Resampling:
    """rows (h, H) x map x columns^T (W, w), and the values between, which nothing else reads."""

    source: relax.Var
    rows: _Matrix
    columns: _Matrix
    inner: tuple[relax.Var, ...] = ()
    plain: bool = False  # bilinear, with half-pixel centres

    @property
    def taps(self) -> tuple[int, int]:
        """Neighbouring sources that each row, and each column, is made of."""
        return _taps(self.rows), _taps(self.columns)


def match_resample(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``rows, then columns, or one of both, from tables -> steps``."""
    for steps in steps_to(graph, var):
        found = resampled(graph, steps.source)
        if found is None or (found.plain and not steps.then):
            continue
        operation = Resample(*map_of(found.source), *plane_of(var), found.taps, then=steps.then)
        weights = {"rows": found.rows, "columns": found.columns, "steps": list(steps.vectors)}
        inner = (*steps.inner, *found.inner)
        yield Found(operation, [found.source, *steps.operands], var, inner, weights)


def resampled(graph: Graph, var: relax.Expr) -> Resampling | None:
    """What a value is made of, if that is another map's rows and columns."""
    if not isinstance(var, relax.Var) or len(shape_of(var)) != 4 or shape_of(var)[0] != 1:
        return None
    if str(var.ty.dtype) != "float32":
        return None
    source = bilinear_resize(graph, var)
    if source is not None:
        rows, columns = (
            _matrix(*Axis(size, out).table(), size)
            for size, out in zip(plane_of(source), plane_of(var), strict=True)
        )
        return Resampling(source, rows, columns, plain=True)
    return _mean(graph, var) or _by_tables(graph, var)


def _by_tables(graph: Graph, var: relax.Var) -> Resampling | None:
    found: dict[str, _Matrix] = {}
    inner: list[relax.Var] = []
    value = var
    while True:
        step = _along(graph, value)
        if step is None or step[0] in found or (inner and not graph.used_once(value)):
            break
        axis, source, found[axis] = step
        inner.append(value)
        value = source
    if not found:
        return None
    identity = [np.eye(size, dtype=np.float32) for size in plane_of(value)]
    rows, columns = found.get("rows", identity[0]), found.get("columns", identity[1])
    return _checked(Resampling(value, rows, columns, tuple(inner[1:])))


def _along(graph: Graph, value: relax.Var) -> tuple[str, relax.Var, _Matrix] | None:
    """The axis, what is resampled along it, and the matrix."""
    for axis, name in enumerate(("rows", "columns")):
        taken, summed = graph.loops(value, f"take_{name}"), graph.loops(value, f"resample_{name}")
        loops = taken or summed
        if loops is None or not isinstance(loops[0], relax.Var):
            continue
        constants = [graph.constant(table) for table in loops[1:]]
        if any(table is None for table in constants):
            return None
        places = np.asarray(constants[0]).reshape(plane_of(value)[axis], -1)
        weights = np.ones(places.shape, np.float32) if taken else np.asarray(constants[1])
        return name, loops[0], _matrix(places, weights, plane_of(loops[0])[axis])
    return None


def _mean(graph: Graph, var: relax.Var) -> Resampling | None:
    """Products with two constant matrices of shares, which is how adaptive means are read."""
    outer = graph.call(var, "relax.matmul")
    inner = graph.call(outer.args[1], "relax.matmul") if outer is not None else None
    if outer is None or inner is None or not graph.used_once(outer.args[1]):
        return None
    rows, columns, source = (
        graph.constant(outer.args[0]),
        graph.constant(inner.args[1]),
        inner.args[0],
    )
    if rows is None or columns is None or not isinstance(source, relax.Var):
        return None
    columns = columns.T
    for matrix in (rows, columns):
        shares = matrix.ndim == 2 and (matrix >= 0).all()
        if not shares or np.abs(matrix.sum(axis=1) - 1).max() > _SUM:
            return None
    return _checked(Resampling(source, rows, columns, (outer.args[1],)))


def _checked(found: Resampling) -> Resampling | None:
    """None for what the operation does not say: a single tap of a weight that is not 1."""
    for matrix, taps in zip((found.rows, found.columns), found.taps, strict=True):
        if taps == 1 and (matrix.max(axis=1) != 1).any():
            return None
    return found


def _matrix(places: NDArray[Any], weights: _Matrix, size: int) -> _Matrix:
    matrix = np.zeros((len(places), size), np.float32)
    np.add.at(matrix, (np.arange(len(places))[:, None], places), weights)
    return matrix


def _taps(matrix: _Matrix) -> int:
    used = matrix != 0
    last = used.shape[1] - used[:, ::-1].argmax(axis=1)
    return max(1, int((last - used.argmax(axis=1)).max()))
