"""What a kind of result has to do to be on the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from deploy.report.content import Content
from deploy.report.markup import Markup
from deploy.report.source import Source


class Result(Protocol):
    """What was read from a file."""

    @property
    def source(self) -> Source:
        """Where it is from."""


Read = TypeVar("Read", bound=Result)


@dataclass(frozen=True)
class Kind(Generic[Read]):
    """`recognises` looks at a file's objects and raises nothing; `read` raises UserError where one
    is damaged; `draw` makes a section of all that were read, one or more."""

    title: str
    recognises: Callable[[Content], bool]
    read: Callable[[Content], Read]
    draw: Callable[[Sequence[Read]], Markup]
