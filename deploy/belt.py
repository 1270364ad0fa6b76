"""A belt between two threads: what one makes, the other takes."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Belt(Generic[T]):
    """Holds `room` items at most. Where it is full the maker waits; or, where the `newest` wins,
    the item that has waited longest is dropped, and counted in `dropped`.

    The taker iterates over it until the maker says that it has ended.
    """

    def __init__(self, room: int, *, newest: bool = False) -> None:
        self.dropped = 0
        self._room, self._newest = room, newest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._left = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Lay an item on it; False where the taker has left, so that more is of no use."""
        with self._changed:
            if self._newest and len(self._items) >= self._room:
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: self._left or len(self._items) < self._room)
            if not self._left:
                self._items.append(item)
            self._changed.notify_all()
            return not self._left

    def end(self, error: BaseException | None = None) -> None:
        """The maker's last word, of which the first counts: nothing more comes. An error is raised
        where the taker iterates, at once."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def leave(self) -> None:
        """The taker's last word: a maker that waits, or comes later, is told."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended)
                if self._error is not None:
                    raise self._error
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
