import json
import math
from dataclasses import dataclass

import pytest

from lut.errors import UserError
from lut.json_text import check_types, checked, parse_json, texts_by_name


@dataclass(frozen=True)
class Thing:
    name: str
    count: int
    share: float
    known: bool
    inside: dict[str, str]


GOOD = {"name": "a", "count": 1, "share": 0.5, "known": True, "inside": {}}


@pytest.mark.parametrize("value", [None, 1, "a", [], {}, [[1, {"a": [2]}]], {"a": {"b": [1]}}])
def test_what_is_json_is_read(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "text", ["", "{", "nope", b"\xff\xfe\x00", b"\x00" * 50, "9" * 5000, '{"a": 1} 2']
)
def test_what_is_no_json(text):
    with pytest.raises(UserError, match="not JSON") as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [65, 500, 990, 100_000])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}")])
def test_depth(depth, left, right):
    """Below Python's own limit too: whoever walks through a value may stand deep already."""
    with pytest.raises(UserError, match="nested too deeply"):
        parse_json(left * depth + ("1" if left != "[" else "") + right * depth)
    assert parse_json("[" * 60 + "]" * 60)


def test_fields_of_their_types():
    assert checked(Thing, GOOD) == GOOD
    assert checked(Thing, GOOD | {"share": 1}) == GOOD | {"share": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 5}, "'name' is 5, not str"), ({"count": 1.0}, "'count' is 1.0, not int"),
        ({"count": True}, "'count' is True, not int"), ({"known": 1}, "'known' is 1, not bool"),
        ({"share": "1"}, "'share' is '1', not float"), ({"share": math.nan}, "'share' is nan"),
        ({"share": math.inf}, "'share' is inf"),
        ({"share": 10**400}, "'share' is 1000"),
        ({"other": 1}, "unknown field 'other'"),
    ],
)  # fmt: skip
def test_a_field_of_another_type(change, message):
    with pytest.raises(UserError, match=message):
        checked(Thing, GOOD | change)


def test_missing_fields_and_other_values():
    with pytest.raises(UserError, match="'count' is missing"):
        checked(Thing, {name: value for name, value in GOOD.items() if name != "count"})
    with pytest.raises(UserError, match="expected a JSON object, not"):
        checked(Thing, [1])
    check_types(Thing, {"count": 3})  # what is there
    with pytest.raises(UserError, match="not texts by name"):
        texts_by_name("versions", {"a": 1})
    with pytest.raises(UserError, match="versions are 5"):
        texts_by_name("versions", 5)
