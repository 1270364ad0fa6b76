"""What a file of results holds: JSON, or JSON lines, packed or not; and fields of it, checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lut.errors import UserError
from lut.files import read_file, size_of
from lut.json_text import is_number, parse_json
from lut.jsonl import PACKED, read_records

MOST_BYTES = 64 << 20  # no result is as large; data sets' descriptions are
_MOST, _MOST_THINGS = 1e30, 1 << 53  # of figures, and of numbers of things
_NAMED = (".json", ".jsonl")  # such a file ought to be JSON


class NoResultError(Exception):
    """Nothing that a result could be in, by its first byte or its size; the text says why."""


@dataclass(frozen=True)
class Content:
    """The JSON objects of a file, one for each line, or one alone; `name` is the file's, from the
    folder on."""

    name: str
    records: tuple[dict[str, Any], ...]

    @property
    def first(self) -> dict[str, Any]:
        """What a file is known by."""
        return self.records[0]

    def fields(self) -> "Iterator[Fields]":
        """The objects, each with its line."""
        for number, record in enumerate(self.records, 1):
            yield Fields(record, f"line {number}: " if len(self.records) > 1 else "")


def read_content(path: Path, name: str) -> Content:
    """The content of a regular file.

    Raises NoResultError for one of another kind, UserError for one whose name says that it is JSON
    and that is damaged. A last line that was cut short is dropped with a warning.
    """
    packed = path.suffix == PACKED
    named = (path.with_suffix("") if packed else path).suffix in _NAMED
    if (size_of(path) or 0) > MOST_BYTES:
        raise NoResultError(f"larger than {MOST_BYTES >> 20} MiB")
    if packed and named:
        return _checked(name, list(read_records(path)))
    data = read_file(path)
    if not data.lstrip().startswith(b"{"):
        if named:
            parse_json(data)
        raise NoResultError("no result")
    try:
        return _checked(name, _records(path, data))
    except UserError as error:
        if named:
            raise
        raise NoResultError("no result") from error


def _records(path: Path, data: bytes) -> list[dict[str, Any]]:
    try:
        return [parse_json(data)]
    except UserError:
        first, _, rest = data.partition(b"\n")
        if not rest.strip():
            raise
        try:
            parse_json(first)
        except UserError:
            pass
        else:
            return read_records(path)
        raise


def _checked(name: str, records: list[dict[str, Any]]) -> Content:
    if not records:
        raise UserError("it has no line")
    return Content(name, tuple(records))


@dataclass(frozen=True)
class Fields:
    """An object of a file. What is asked for and is not there, or is something else, raises
    UserError naming it. No figure is as large, or as near to 0, that products and quotients of
    some would be beyond a float."""

    values: dict[str, Any]
    where: str = ""

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def _wrong(self, name: str, wanted: str) -> UserError:
        if name not in self.values:
            return UserError(f"{self.where}{name!r} is missing")
        return UserError(f"{self.where}{name!r} is {self.values[name]!r:.40}, not {wanted}")

    def number(self, name: str) -> float:
        """A number, up to 1e30."""
        value = self.values.get(name)
        if not is_number(value) or abs(value) > _MOST:  # type: ignore[arg-type]
            raise self._wrong(name, "a number up to 1e30")
        return float(value)  # type: ignore[arg-type]

    def positive(self, name: str) -> float:
        """A number above 0."""
        value = self.number(name)
        if value < 1 / _MOST:
            raise self._wrong(name, "above 0")
        return value

    def whole(self, name: str) -> int:
        """A number of things, 0 or more."""
        value = self.values.get(name)
        if type(value) is not int or not 0 <= value <= _MOST_THINGS:
            raise self._wrong(name, "a whole number")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A text; `default` where there is none."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def inside(self, name: str) -> "Fields":
        """An object in it."""
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return Fields(value, f"{self.where}{name}: ")

    def optional(self, name: str) -> "Fields":
        """An object in it, an empty one where there is none."""
        return self.inside(name) if name in self else Fields({}, self.where)

    def named(self) -> Iterator[tuple[str, "Fields"]]:
        """The objects in it, by name."""
        for name in self.values:
            yield name, self.inside(name)

    def numbers(self) -> dict[str, float]:
        """All its values, which are numbers; None is left out."""
        return {name: self.number(name) for name, value in self.values.items() if value is not None}

    def texts(self) -> dict[str, str]:
        """All its values, which are texts."""
        return {name: self.text(name) for name in self.values}

    def each(self, name: str) -> Iterator["Fields"]:
        """The objects of a list in it."""
        for number, value in enumerate(self.items(name), 1):
            if not isinstance(value, dict):
                raise UserError(f"{self.where}{name} {number} is {value!r:.40}, not an object")
            yield Fields(value, f"{self.where}{name} {number}: ")

    def items(self, name: str) -> list[Any]:
        """A list in it."""
        value = self.values.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def rounds(self, name: str) -> list[list[int]]:
        """Samples in nanoseconds: rounds of at least one each."""
        found = self.items(name)
        if not found or not all(
            isinstance(block, list)
            and block
            and all(is_number(sample) and 1 / _MOST < sample < _MOST for sample in block)
            for block in found
        ):
            raise self._wrong(name, "samples, round by round")
        return found
