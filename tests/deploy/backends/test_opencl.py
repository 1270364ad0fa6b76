"""The backend for phones' GPUs: it writes, and runs nowhere. tests/deploy/gpu/test_adreno.py reads
what it writes."""

import pytest

from deploy.backends import backend_of
from deploy.targets import resolve_target
from lut.errors import UserError

TARGET = resolve_target("adreno")
BACKEND = backend_of(TARGET)


def test_nothing_is_measured():
    assert not BACKEND.tunes(TARGET)
    assert BACKEND.where(TARGET) == ""
    assert BACKEND.versions() == {}
    for ask in (
        lambda: BACKEND.measured_target(TARGET, "adreno"), lambda: BACKEND.devices(1, None),
    ):  # fmt: skip
        with pytest.raises(UserError, match="this version runs OpenCL on no device"):
            ask()
