import json
import math

import pytest

from lut.errors import UserError
from lut.record import Visit
from tests.lut.tables import KEY, OTHER, visit


def as_json(record):
    return json.loads(json.dumps(record.to_json()))


def test_round_trip():
    record = visit(entries={KEY: 10.5, OTHER: 2.25}, calls=2)
    assert Visit.from_json(as_json(record)) == record


def test_samples_are_scaled_to_the_reference():
    slow = visit(entries={KEY: 20.0}, whole=300.0, reference=200.0)
    assert slow.entry_us(KEY, 100.0) == [10.0] * 3
    assert slow.frame_us(100.0) == [150.0] * 3


def _set(path, value):
    def change(values):
        *parents, last = path
        for name in parents:
            values = values[name]
        values[last] = value

    return change


SAMPLES = ("entries", str(KEY), "samples_us")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("date"), "'date' is missing"),
        (_set(["extra"], 1), "unknown field 'extra'"),
        (_set(["entries", str(KEY), "samples_ns"], []), "unknown field 'samples_ns'"),
        (_set(["role"], "other"), "the role is 'other'"),
        (_set(["network"], 3), "'network' is 3, not str"),
        (_set([*SAMPLES, 1, 2], -1.0), "sample -1.0"),
        (_set([*SAMPLES, 1, 2], math.nan), "sample nan"),
        (_set([*SAMPLES, 1, 2], math.inf), "sample inf"),
        (_set([*SAMPLES, 1, 2], 0), "sample 0"),
        (_set([*SAMPLES, 1, 2], "10"), "sample '10'"),
        (_set([*SAMPLES, 1, 2], True), "sample True"),
        (_set([*SAMPLES, 1], []), "without samples"),
        (_set(SAMPLES, [[1.0]]), "for every round"),
        (_set(["reference_us"], []), "for every round"),
        (_set(["whole_us", 0, 0], None), "sample None"),
        (_set(["entries"], {}), "at least one entry"),
        (_set(["entries", str(KEY), "calls"], 0), "0 calls"),
        (_set(["entries", "conv"], {"calls": 1, "samples_us": [[1.0]] * 3}), "no operation"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    values = as_json(visit())
    change(values)
    with pytest.raises(UserError, match=message):
        Visit.from_json(values)
