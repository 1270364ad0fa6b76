"""The tuned schedules that a latency table depends on: those of kernels that its space calls."""

import hashlib
import json

from deploy.backends import backend_of
from deploy.schedules import Fields
from deploy.tables.entries import forms_of, plain_of
from deploy.target import Target
from deploy.tuning.records import tuned_schedules
from hmseg.operators import Space
from lut.ops import expand


def schedules_of(space: Space, target: Target, threads: int) -> dict[str, Fields]:
    """`tuned_schedules` without those that no network of the space can use, such as those of
    another size: tuning them leaves a table of this space what it is."""
    backend = backend_of(target)
    parts = {part for entry in space.all_keys() for part in expand(entry, backend.has)}
    called = {form for part in parts for form in forms_of(part)}
    schedules = tuned_schedules(target.key, threads, backend.kernels_version)
    return {text: values for text, values in schedules.items() if plain_of(text) in called}


def digest(schedules: dict[str, Fields]) -> str:
    """What a table's provenance says of them: "rule" where there are none."""
    if not schedules:
        return "rule"
    return hashlib.sha256(json.dumps(schedules, sort_keys=True).encode()).hexdigest()[:16]
