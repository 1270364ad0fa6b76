"""In which order a tensor has the elements of a map: arithmetic on sizes of axes and parts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from tvm import relax

from deploy.graph.view import Graph, shape_of
from lut.ops import Pair, Shape

Vars: TypeAlias = tuple[relax.Var, ...]


class Atom(NamedTuple):
    """A part of an axis: it counts through `size` channels ("C") or pixels ("P"), `step` apart."""

    kind: str
    size: int
    step: int


Axis = tuple[Atom, ...]
Order = tuple[Axis, ...]  # of a tensor's axes, outermost atom first


def order_of_map(channels: int, height: int, width: int) -> Order:
    """Of the map itself."""
    return tidy(
        [(), (Atom("C", channels, 1),), (Atom("P", height, width),), (Atom("P", width, 1),)]
    )


def tidy(axes: Sequence[Sequence[Atom]]) -> Order:
    """The one way to write an order: no atom of size 1, and none that could be joined."""
    return tuple(map(joined, axes))


def joined(atoms: Sequence[Atom]) -> Axis:
    """One axis, written so."""
    axis: list[Atom] = []
    for atom in atoms:
        last = axis[-1] if axis else None
        if atom.size == 1:
            continue
        if last and last.kind == atom.kind and last.step == atom.size * atom.step:
            axis[-1] = Atom(atom.kind, last.size * atom.size, atom.step)
        else:
            axis.append(atom)
    return tuple(axis)


def reshaped(order: Order, shape: Sequence[int]) -> Order | None:
    """The order after a reshape; None where an axis would end within an atom that has no such
    factor."""
    todo = [atom for axis in order for atom in axis][::-1]
    axes: list[list[Atom]] = []
    for size in shape:
        axis: list[Atom] = []
        while size > 1:
            if not todo:
                return None
            atom = todo.pop()
            if size % atom.size == 0:
                axis.append(atom)
                size //= atom.size
            elif atom.size % size == 0:
                rest = atom.size // size
                axis.append(Atom(atom.kind, size, rest * atom.step))
                todo.append(Atom(atom.kind, rest, atom.step))
                size = 1
            else:
                return None
        axes.append(axis)
    return None if todo else tidy(axes)


def without(order: Order, kind: str) -> Order:
    """The same axes without the atoms of a kind."""
    return tuple(tuple(atom for atom in axis if atom.kind != kind) for axis in order)


def turned(order: Order, axes: Sequence[int] | None) -> Order:
    """The order after ``permute_dims``."""
    rank = len(order)
    return tuple(order[axis % rank] for axis in (range(rank)[::-1] if axes is None else axes))


@dataclass(frozen=True)
class Grid:
    """Groups of a map's pixels, `groups` in rows and columns: neighbours, or `apart` from each
    other by so many."""

    groups: Pair = (1, 1)
    apart: bool = False

    @property
    def count(self) -> int:
        """How many groups."""
        return self.groups[0] * self.groups[1]

    def axes(self, height: int, width: int) -> tuple[Axis, Axis]:
        """Of a plane: through the groups, and through the pixels of each."""
        (rows, columns), within = self.groups, (height // self.groups[0], width // self.groups[1])
        if self.apart:
            groups = Atom("P", rows, width), Atom("P", columns, 1)
            pixels = Atom("P", within[0], rows * width), Atom("P", within[1], columns)
        else:
            groups = Atom("P", rows, within[0] * width), Atom("P", columns, within[1])
            pixels = Atom("P", within[0], width), Atom("P", within[1], 1)
        return joined(groups), joined(pixels)

    @staticmethod
    def found(groups: Axis, pixels: Axis, height: int, width: int) -> "Grid | None":
        """The grid whose axes these are."""
        count = math.prod(atom.size for atom in groups)
        for rows in range(1, count + 1):
            if count % rows or height % rows or width % (count // rows):
                continue
            for apart in (False, True):
                grid = Grid((rows, count // rows), apart and count > 1)
                if grid.axes(height, width) == (groups, pixels):
                    return grid
        return None if groups else Grid()  # all pixels, in an order of their own


@dataclass(frozen=True)
class Heads:
    """A map's channels and pixels as matrices, one for each group of pixels and each head."""

    heads: int
    width: int  # channels of a head
    grid: Grid

    @staticmethod
    def found(order: Order, shape: Shape, row: int, column: int) -> "Heads | None":
        """Of a tensor whose axis `row` goes through pixels and `column` through channels."""
        channels, height, width = shape
        batch = [atom for number, axis in enumerate(order) if number not in (row, column)
                 for atom in axis]  # fmt: skip
        (groups, of_channels) = (
            joined([atom for atom in batch if atom.kind == kind]) for kind in "PC"
        )
        if any(a.kind != "P" for a in order[row]) or any(a.kind != "C" for a in order[column]):
            return None
        each = math.prod(atom.size for atom in order[column])
        heads = channels // each
        if channels % each or of_channels != joined([Atom("C", heads, each)]):
            return None
        if order[column] != joined([Atom("C", each, 1)]):
            return None
        grid = Grid.found(groups, order[row], height, width)
        return None if grid is None else Heads(heads, each, grid)

    def order(self, height: int, width: int, *, turned: bool = False) -> Order:
        """Of a tensor (groups, heads, pixels, channels), or (groups, heads, channels, pixels)."""
        groups, pixels = self.grid.axes(height, width)
        channels = joined([Atom("C", self.width, 1)])
        heads = joined([Atom("C", self.heads, self.width)])
        return groups, heads, *((channels, pixels) if turned else (pixels, channels))


def inverse(order: Order, shape: Shape) -> Order:
    """Of a map made of a tensor that has its elements in this order: in atoms whose kind is the
    tensor's axis."""
    found: list[tuple[Atom, Atom]] = []
    for number, axis in enumerate(order):
        step = 1
        for atom in reversed(axis):
            found.append((atom, Atom(str(number), atom.size, step)))
            step *= atom.size
    found.sort(key=lambda pair: (pair[0].kind, -pair[0].step))
    channels, pixels = (joined([at for atom, at in found if atom.kind == kind]) for kind in "CP")
    whole = reshaped(((), channels, pixels), (1, *shape))
    assert whole is not None
    return whole


def orders_behind(graph: Graph, value: relax.Expr) -> Iterator[tuple[relax.Var, Order, Vars]]:
    """The maps that a tensor is made of by moving elements alone, the first one first, with the
    tensor's order, and the values between, the tensor among them."""
    moves: list[relax.Expr] = [value]
    while (call := graph.call(moves[-1], "relax.permute_dims", "relax.reshape")) is not None:
        moves.append(call.args[0])
    while len(moves) > 1:  # it is no map itself, whatever its shape
        of = moves.pop()
        if _is_map(of):
            order = _moved(graph, order_of_map(*shape_of(of)[1:]), moves[::-1])
            if order is not None:
                yield of, order, tuple(moves)


def heads_behind(
    graph: Graph, value: relax.Expr, *, turned: bool = False
) -> tuple[relax.Var, Heads, Vars] | None:
    """The map whose matrices (groups, heads, pixels, channels) a tensor is, or with pixels and
    channels `turned`, how it is split up, and the values between."""
    if len(shape_of(value)) != 4:
        return None
    for of, order, moves in orders_behind(graph, value):
        shape: Shape = shape_of(of)[1:]  # type: ignore[assignment]
        heads = Heads.found(order, shape, 2 + turned, 3 - turned)
        if heads is not None and order == heads.order(*shape[1:], turned=turned):
            return of, heads, moves
    return None


def _is_map(value: relax.Expr) -> bool:
    if not isinstance(value, relax.Var) or str(value.ty.dtype) != "float32":
        return False
    shape = shape_of(value)
    return len(shape) == 4 and shape[0] == 1


def order_of_result(graph: Graph, var: relax.Var) -> tuple[relax.Var, Order, Vars] | None:
    """The tensor that a map is made of by moving elements alone, the map's order in atoms whose
    kind is the tensor's axis, and the values between, the tensor among them."""
    value: relax.Expr = var
    moves: list[relax.Var] = []
    while (call := graph.call(value, "relax.permute_dims", "relax.reshape")) is not None:
        moves.append(value)
        value = call.args[0]
    if not moves or len(shape_of(var)) != 4 or not isinstance(value, relax.Var):
        return None
    axes = [[Atom(str(number), size, 1)] for number, size in enumerate(shape_of(value))]
    order = _moved(graph, tidy(axes), moves[::-1])
    return None if order is None else (value, order, (*moves[1:], value))


def _moved(graph: Graph, order: Order | None, moves: Sequence[relax.Var]) -> Order | None:
    for var in moves:
        if order is None:
            return None
        call = graph.definition(var)
        if call.op.name == "relax.reshape":
            order = reshaped(order, shape_of(var))
        else:
            axes = call.attrs.axes
            order = turned(order, None if axes is None else [int(axis) for axis in axes])
    return order
