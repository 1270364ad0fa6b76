"""JSON from files: whatever it holds, an error is one line."""

import json
import sys
from dataclasses import fields
from typing import Any

from lut.errors import UserError

_TOO_DEEP = "not JSON that can be read (nested too deeply)"
_DEEPEST = 64  # what works on a value may call itself: far below Python's limit, wherever it stands


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - any JSON value
    """The value that a text holds; raises UserError for what is no JSON, no UTF-8, or nested deeper
    than can be read."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise UserError(_TOO_DEEP) from None
    except ValueError as error:
        raise UserError(f"not JSON ({error})") from error
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:  # noqa: ANN401
    inside = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEEPEST):
        items = (each.values() if isinstance(each, dict) else each for each in inside)
        inside = [item for each in items for item in each if isinstance(item, dict | list)]
        if not inside:
            return
    raise UserError(_TOO_DEEP)


def checked(kind: type, values: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """The fields of a dataclass, all of them, as `check_types`; raises UserError naming one that is
    missing, unknown or of another type."""
    wanted = {f.name for f in fields(kind)}
    if not isinstance(values, dict):
        raise UserError(f"expected a JSON object, not {values!r:.40}")
    missing, unknown = wanted - values.keys(), values.keys() - wanted
    if missing:
        raise UserError(f"the field {min(missing)!r} is missing")
    if unknown:
        raise UserError(f"unknown field {min(unknown)!r}; a newer program may have written it")
    check_types(kind, values)
    return dict(values)


def check_types(kind: type, values: dict[str, Any]) -> None:
    """Raise UserError naming a field that is not of its dataclass's type.

    Only plain types are checked; the caller looks into what is nested.
    """
    for f in fields(kind):
        kind_of = f.type
        if f.name in values and isinstance(kind_of, type) and kind_of in (str, int, bool, float):
            value = values[f.name]
            right = is_number(value) if kind_of is float else type(value) is kind_of
            if not right:
                raise UserError(f"the field {f.name!r} is {value!r:.40}, not {kind_of.__name__}")


def is_number(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Whether it is a finite number that a float can hold: JSON's integers may be of any size."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def texts_by_name(name: str, value: Any) -> dict[str, str]:  # noqa: ANN401 - any JSON value
    """A JSON object of texts; raises UserError, in which it is called `name`, for anything else."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise UserError(f"{name} are {value!r:.40}, not texts by name")
    return value
