"""Latency tables of format version 1, from before operations had a text of their own: carried over.

A key had one form for every kind, `inverted_residual 16-96-16 k3 s1 d1 64x128`: channels of input,
middle and output; kernel, stride and dilation; the input's size, and that of another map; a stem
pair had its first block's channels and kernel behind that. The measurements are the same.
"""

import re
from pathlib import Path
from typing import Any

from lut.errors import UserError
from lut.jsonl import Record, read_records, rewrite_records
from lut.ops import (
    Classifier,
    Context,
    Depthwise,
    GlobalPool,
    InvertedResidual,
    Labels,
    LocalGlobal,
    Operation,
    Pointwise,
    Resize,
    Stem,
    StemBlock,
    StemPair,
    parse_operation,
)
from lut.table_file import FORMAT, FORMAT_VERSION, lock_table, parse_table

_KEY = re.compile(
    r"([a-z_]+) (\d+-\d+-\d+) k(\d+) s(\d+) d(\d+) (\d+x\d+)(?: (\d+x\d+))?(?: behind (\d+ k\d+))?",
    re.ASCII,
)


def operation_of(key: str) -> Operation:
    """The operation that a key of version 1 stands for; raises UserError for any other text."""
    found = _KEY.fullmatch(key)
    try:
        operation = _operation(*found.groups("")) if found else None
        if operation is None:
            raise ValueError("no such kind, or with a field that the kind does not have")
        return parse_operation(str(operation))  # refuses sizes of 0
    except ValueError as error:  # UserError too
        raise UserError(f"{key[:120]!r} is no key of a latency table of version 1") from error


def _operation(
    kind: str, channels: str, k: str, s: str, d: str, plane: str, other: str, behind: str
) -> Operation | None:
    kernel, stride, dilation = int(k), int(s), int(d)
    height, width = _numbers(plane)
    window = kernel, stride, dilation
    match kind, _numbers(channels), window, _numbers(other), _numbers(behind):
        case "stem", (3, 0, cout), (3, 2, 1), (), ():
            return Stem(cout, height, width)
        case "stem_block", (3, hidden, cout), (_, 2, _), (), ():
            return StemBlock(hidden, cout, height, width, kernel, 1, dilation)
        case "stem_pair", (cin, hidden, cout), (_, 2 | 4, _), (), (first, first_kernel):
            block = StemBlock(first, cin, height, width, first_kernel)
            second = InvertedResidual(
                cin, hidden, cout, *block.output[1:], kernel, stride // 2, dilation,
                expand=hidden != cin,
            )  # fmt: skip
            return StemPair(block, second)  # the key's stride is from the image
        case "inverted_residual", (cin, hidden, cout), _, (), ():
            return InvertedResidual(
                cin, hidden, cout, height, width, kernel, stride, dilation, expand=hidden != cin,
                residual=stride == 1 and cin == cout,
            )  # fmt: skip
        case "classifier", (cin, hidden, classes), (3, 1, 1), (), () if hidden == cin:
            return Classifier(cin, classes, height, width)
        case "resize", (cin, 0, cout), (0, 1, 1), (rows, columns), () if cin == cout:
            return Resize(cin, height, width, rows, columns)
        case "context", (cin, 0, cout), (1, 1, 1), (), ():
            return Context(cin, cout, height, width)
        case "upsample_add", (cin, 0, cout), (1, 1, 1), (rows, columns), ():
            return Pointwise(
                cin, cout, height, width, add="low", low_height=rows, low_width=columns
            )
        case "depthwise", (cin, 0, cout), _, (), () if cin == cout:
            return Depthwise(cin, height, width, kernel, stride, dilation)
        case "gate", (cin, 0, cout), (1, 1, 1), (), ():
            return GlobalPool(cin, cout, height, width, "sigmoid")
        case "local_global", (cin, mid, cout), (1, 1, 1), (rows, columns), ():
            return LocalGlobal(cin, mid, cout, height, width, rows, columns)
        case "labels", (classes, 0, 0), (0, 1, 1), (rows, columns), ():
            return Labels(classes, height, width, rows, columns)
    return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text, re.ASCII)))


def upgrade_table(path: Path) -> int | None:
    """Rewrite a table of version 1, whole or not at all.

    Returns how many measurements were carried over; None for a table of this version, which is left
    as it is. Raises UserError, naming the line, for anything else, and while a builder is at work.
    """
    with lock_table(path):
        records = read_records(path)
        old = bool(records) and _is_old(records[0])
        if old:
            records = [
                record | {"format_version": FORMAT_VERSION} if number == 1
                else _carried(record, f"{path}, line {number}")
                for number, record in enumerate(records, 1)
            ]  # fmt: skip
        table = parse_table(records, str(path))
        if not old:
            return None
        rewrite_records(path, records)
    return len(table.visits)


def _is_old(header: Record) -> bool:
    version = header.get("format_version")
    return header.get("kind") == FORMAT and type(version) is int and version == 1


def _carried(record: Record, place: str) -> Record:
    entries: Any = record.get("entries")
    if not isinstance(entries, dict):
        return record  # a provenance, or damage that reading the table finds
    try:
        return record | {"entries": {str(operation_of(key)): v for key, v in entries.items()}}
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
