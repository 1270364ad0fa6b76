"""How long tables took, by what records say."""

from deploy.paper.cost import describe, duration
from deploy.paper.records import Found
from deploy.paper.views import choose_views
from deploy.resolution import Resolution
from tests.deploy.paper.fakes import record


def test_durations():
    assert [duration(s) for s in (0.4, 119, 120, 871, 7500)] == [
        "0 s", "119 s", "2 min", "15 min", "2 h 5 min",
    ]  # fmt: skip


def test_each_record_counts_once_the_newest_and_what_failed():
    views = choose_views(["table1", "table5"], ["mrms", "tiny-mrms", "cas"], Resolution(64, 128))
    found = Found([
        record("mrms", hmseg=[[9.0]]), record("mrms", hmseg=[[1.0]]),
        record("tiny-mrms", failed="no"), record("enet", hmseg=[[1.0]]),
    ])  # fmt: skip
    assert describe(views, found) == (
        "2 min: 2 networks and sizes, opened in 6 s, compiled and checked in 2 min, timed in 2 s"
    )
    assert describe(views, Found([])) == ""
