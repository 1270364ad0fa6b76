import os

import pytest

from deploy.cli.places import read_threads
from lut.errors import UserError


def test_threads(monkeypatch):
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
    assert read_threads(None) == len(os.sched_getaffinity(0))
    assert read_threads(3) == 3
    assert os.environ["TVM_NUM_THREADS"] == "3"  # TVM reads it when its pool starts
    assert read_threads(None) == 3
    monkeypatch.setenv("TVM_NUM_THREADS", "5")
    assert read_threads(None) == 5
    assert read_threads(2) == 2


@pytest.mark.parametrize("threads", [0, -1, 10**6])
def test_bad_threads(threads):
    with pytest.raises(UserError, match="--threads"):
        read_threads(threads)


@pytest.mark.parametrize("text", ["0", "-2", "two", "1.5", "²", "٣", "9" * 30])
def test_bad_threads_in_the_environment(monkeypatch, text):
    monkeypatch.setenv("TVM_NUM_THREADS", text)
    with pytest.raises(UserError, match="TVM_NUM_THREADS"):
        read_threads(None)
