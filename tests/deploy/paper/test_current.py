"""A network that counts otherwise than when it was measured is another network."""

from deploy.paper.current import changed, current, is_changed
from deploy.paper.jobs import Job
from deploy.paper.records import Found
from deploy.resolution import Resolution
from tests.deploy.paper.fakes import record

JOB = Job("mrms", Resolution(64, 128), 19)
NOW = record("mrms", hmseg=[[1.0]])


def test_changed_macs_and_parameters():
    for counts in ((NOW.macs + 1, NOW.parameters), (NOW.macs, NOW.parameters - 1)):
        old = record("mrms", hmseg=[[2.0]], counts=counts)
        assert is_changed(old)
        assert current(Found([old]), JOB).all == []
        assert changed(Found([old]), JOB) == old
        assert current(Found([NOW, old]), JOB).all == [NOW]  # whichever is newer
        assert changed(Found([NOW, old]), JOB) is None
    assert not is_changed(NOW)
    assert changed(Found([]), JOB) is None


def test_a_size_that_it_does_not_take_any_more():
    assert is_changed(record("dfanet-b", "360x640", hmseg=[[1.0]]))


def test_what_failed_before_it_was_counted():
    assert not is_changed(record("dfanet-b", "360x640", failed="it does not take this size"))
