"""Tuning records from before operations had a text of their own: carried over.

A record's spec was the text of a Python object of the kernel's own class, every field by name:
`ResizeSpec(channels=16, height=32, width=64, out_height=16, out_width=32)`. The schedules are the
same. What is left to TVM has another text, which stays.
"""

import ast
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from deploy.tuning.records import Record, is_old
from lut import ops
from lut.errors import UserError
from lut.jsonl import hold_records, read_records, rewrite_records
from lut.ops import Operation, Pointwise, parse_operation

_LEFT_TO_TVM = "tvm:"


def operation_of(spec: str) -> Operation:
    """The operation that an earlier version's spec stands for; raises UserError for any other
    text."""
    try:
        operation = _value(ast.parse(spec, mode="eval").body)
        if not isinstance(operation, Operation):
            raise ValueError("no spec")
        return parse_operation(str(operation))  # refuses a value that is none of its field's
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise UserError(f"{spec[:120]!r} is no spec of an earlier version") from error


def _value(node: ast.expr) -> Any:  # noqa: ANN401 - an operation or a field's value
    if isinstance(node, ast.Call):  # a spec may hold others
        if node.args:
            raise ValueError("a value without its field")
        return _KINDS[ast.unparse(node.func)](
            **{str(w.arg): _value(w.value) for w in node.keywords}
        )
    return ast.literal_eval(node)


def _end(*, output: str, **values: Any) -> Operation:  # noqa: ANN401
    return {"labels": ops.Labels, "logits": ops.Logits}[output](**values)


def _pointwise(*, low: tuple[int, int] = (0, 0), **values: Any) -> Operation:  # noqa: ANN401
    low_height, low_width = low  # a GPU's
    return Pointwise(**values, low_height=low_height, low_width=low_width)


_KINDS: dict[str, Callable[..., Operation]] = {
    "ConvertSpec": ops.Convert,
    "DepthwiseSpec": ops.Depthwise,
    "EndSpec": _end,
    "GlobalMeanSpec": ops.GlobalMean,
    "GlobalPoolSpec": ops.GlobalPool,
    "InvertedResidualSpec": ops.InvertedResidual,
    "LabelEndSpec": ops.Labels,
    "LocalGlobalSpec": ops.LocalGlobal,
    "PointwiseSpec": _pointwise,
    "ResizeSpec": ops.Resize,
    "StemBlockSpec": ops.StemBlock,
    "StemPairSpec": ops.StemPair,
    "StemSpec": ops.Stem,
    "UpsampleAddSpec": lambda **values: Pointwise(**values, add="low"),
}


def upgrade_tuning(path: Path) -> int | None:
    """Rewrite a file of tuning records with those of earlier versions carried over, whole or not at
    all. A tuner that appends to it waits.

    Returns how many were; None for a file that has none, which is left as it is. Raises UserError,
    naming the record, for anything else.
    """
    with hold_records(path):
        return _upgrade(path)


def _upgrade(path: Path) -> int | None:
    records, names = read_records(path), {field.name for field in fields(Record)}
    if not records:
        raise UserError(f"{path}: neither a latency table nor tuning records: it has no line")
    old = 0
    for number, record in enumerate(records, 1):
        spec = record.get("spec")
        if set(record) != names or not isinstance(spec, str):
            raise UserError(f"{path}, line {number}: of neither a latency table nor tuning records")
        try:
            if is_old(spec):
                record["spec"] = str(operation_of(spec))
                old += 1
            elif not spec.startswith(_LEFT_TO_TVM):
                parse_operation(spec)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
    if not old:
        return None
    rewrite_records(path, records)
    return old
