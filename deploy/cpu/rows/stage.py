"""How row stages meet: what one needs to know of another."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from deploy import ir
from deploy.cpu.rows.cuts import Chunk, Span


class Keep(Protocol):
    """Takes a channel block of neighbouring pixels: `Row.store`."""

    def __call__(self, block: ir.Expr, column: ir.Expr, /, *vectors: ir.Expr) -> None:
        """The vectors are of one pixel each, from `column` on."""


class Row(Protocol):
    """One row of a map; columns are the map's."""

    def value(self, block: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """One float."""

    def operand(self, block: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """What `Element.dot` takes of a pixel: the channels from `lane` on."""

    def vector(self, block: ir.Expr, column: ir.Expr) -> ir.Expr:
        """A channel block of one pixel."""

    def store(self, block: ir.Expr, column: ir.Expr, /, *vectors: ir.Expr) -> None:
        """Write a channel block of one pixel, or of neighbouring ones from `column` on."""

    def ahead(self, column: ir.Expr, pixels: int) -> None:
        """Ask for `pixels` pixels of every block, which are read later."""


class Rows(Protocol):
    """The rows of a map."""

    def row(self, number: ir.Expr) -> Row:
        """One of them, of those that are there."""


class Source(Protocol):
    """Where rows come from."""

    def start(self, first: ir.Expr, span: Span) -> "SourceRows":
        """Of a thread: `span` of the rows from `first` on."""


class SourceRows(Rows, Protocol):
    """Rows that come one behind the other; the last is there."""

    def advance(self, number: ir.Expr) -> None:
        """Bring in a row; each behind the one before."""


MakeRow: TypeAlias = Callable[[ir.Expr, Keep], None]


class Maker(Protocol):
    """Makes rows of channels that no map holds."""

    def start(self, first: ir.Expr, span: Span, chunk: Chunk) -> MakeRow:
        """Of a thread, for `chunk` in `span` of the rows from `first` on: what makes a row by its
        number, each behind the one before, and hands on its vectors. Channel blocks count from the
        chunk's first."""
