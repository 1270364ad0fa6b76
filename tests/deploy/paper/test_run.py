"""What is measured, and what a failure does to the rest; nothing is timed here."""

import errno
from types import SimpleNamespace

import pytest

from deploy.paper import measure, run
from deploy.paper.networks import NoRoomError
from deploy.paper.records import FILE, Records
from deploy.paper.run import measure_views
from deploy.paper.views import choose_views
from deploy.resolution import Resolution
from tests.deploy.paper.fakes import record, setting

BENCH = measure.Bench(None, 2, None, None, 1)  # type: ignore[arg-type]  # no target is looked at


def views(*rows):
    return choose_views(["table1"], rows, Resolution(64, 128))


@pytest.fixture
def measured(monkeypatch):
    """The networks that were measured, by a stand-in."""
    found = []

    def stand_in(job, _bench, on, _tell):
        found.append(job.network)
        return record(job.network, str(job.resolution), on=on, hmseg=[[1.0]])

    monkeypatch.setattr(run, "measure", stand_in)
    return found


def test_a_network_that_has_changed_is_measured_again(tmp_path, measured):
    records = Records(tmp_path / FILE)
    records.append(record("mrms", hmseg=[[9.0]], counts=(1, 2)))
    records.append(record("tiny-mrms", hmseg=[[9.0]]))
    assert measure_views(views("mrms", "tiny-mrms"), BENCH, setting(), records) == []
    assert measured == ["mrms"]
    assert measure_views(views("mrms", "tiny-mrms"), BENCH, setting(), records) == []
    assert measured == ["mrms"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("conv3"), r"KeyError: 'conv3' \(at test_run\.py:\d+\)"),
        (AssertionError(), r"AssertionError \(at test_run\.py:\d+\)"),
        (MemoryError(), "out of memory"),
        (RuntimeError("std::bad_alloc"), "out of memory"),
        (OSError(errno.EIO, "Input/output error"), r"OSError: .*Input/output error"),
    ],
)
def test_whatever_fails_the_table_goes_on(tmp_path, monkeypatch, error, message):
    def fail(_job):
        raise error

    monkeypatch.setattr(measure, "open_network", fail)
    records = Records(tmp_path / FILE)
    failures = measure_views(views("mrms", "tiny-mrms"), BENCH, setting(), records)
    assert [failure.partition(":")[0] for failure in failures] == [
        "mrms 64x128",
        "tiny-mrms 64x128",
    ]
    again = Records(tmp_path / FILE).all
    assert len(again) == 2
    for one in again:
        assert one.result is None
        with pytest.raises(ValueError, match=message):
            raise ValueError(one.failed)


def test_a_disk_that_fills_up_ends_all(tmp_path, monkeypatch):
    def fail(_job):
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x.so")

    monkeypatch.setattr(measure, "open_network", fail)
    records = Records(tmp_path / FILE)
    with pytest.raises(NoRoomError, match=r"no room on the disk while mrms 64x128 .*/tmp/x\.so"):
        measure_views(views("mrms"), BENCH, setting(), records)
    assert records.all == []


def test_no_network_is_measured_whose_record_would_have_no_room(tmp_path, measured, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(NoRoomError, match=r"no room on the disk for .*paper\.jsonl; free the disk"):
        measure_views(views("mrms"), BENCH, setting(), Records(tmp_path / FILE))
    assert measured == []
