"""A network of the space as a file, as the search writes it, and as one line of text.

The file is a genotype's JSON (hmseg.genotype) with `width` and `num_classes`, and whatever else
says where it comes from. The line is ``width 0.5 | s1 e1k3 | ... | 0.5 0.6``: what a checkpoint
calls its network, so that it needs no file beside it. No torch at import.
"""

import json
from pathlib import Path
from typing import Any

from hmseg.genotype import Genotype, parse_genotype
from lut.errors import UserError
from lut.files import read_file, write_atomic
from lut.json_text import parse_json

PREFIX = "width "


def write_network(
    path: Path, genotype: Genotype, width: float, num_classes: int, search: dict[str, Any]
) -> None:
    """Write a genotype's file whole or not at all; `search` says how it was found."""
    fields = json.loads(genotype.to_json()) | {"width": width, "num_classes": num_classes}
    write_atomic(path, json.dumps(fields | {"search": search}, indent=1) + "\n")


def read_network(path: Path) -> tuple[Genotype, float, int | None]:
    """Genotype, width and number of classes, where the file names one.

    Raises UserError, naming file and field, for anything else.
    """
    try:
        text = read_file(path).decode()
        genotype = Genotype.from_json(text)
        fields = parse_json(text)
        width, num_classes = fields.get("width"), fields.get("num_classes")
        if width not in (0.5, 1.0) or isinstance(width, bool):
            raise UserError(f"genotype: the width is {width!r}, not 0.5 or 1.0")
        if num_classes is not None and type(num_classes) is not int:
            raise UserError(f"genotype: num_classes is {num_classes!r}, not a whole number")
        return genotype, width, num_classes
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file") from error
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def read_search(path: Path) -> dict[str, Any]:
    """What a file says about how its network was found; raises UserError where it does not."""
    fields = _fields(path)
    search = fields.get("search") if isinstance(fields, dict) else None
    if not isinstance(search, dict) or not isinstance(search.get("config"), dict):
        raise UserError(f"{path}: it does not say how it was found, as a search writes it")
    return search


def add_measurement(path: Path, measured: dict[str, Any]) -> None:
    """Write beside the estimate what the network found was measured at."""
    fields = _fields(path)
    fields["search"]["measured"] = measured
    write_atomic(path, json.dumps(fields, indent=1) + "\n")


def _fields(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return parse_json(read_file(path))
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error


def to_line(genotype: Genotype, width: float) -> str:
    """The one-line form."""
    return f"{PREFIX}{width:g} | {genotype}"


def parse_line(text: str) -> tuple[Genotype, float]:
    """Read `to_line`'s form; raises UserError for anything else."""
    head, _, rest = text.partition("|")
    word = head.removeprefix(PREFIX).strip()
    if not text.startswith(PREFIX) or word not in ("0.5", "1"):
        raise UserError(f"not a network: {text!r}; expected 'width 0.5 | s1 e1k3 | ... | 0.5 0.5'")
    return parse_genotype(rest), float(word)
