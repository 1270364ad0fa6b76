"""How long tables take to measure, by what their records say."""

from collections.abc import Iterable, Sequence

from deploy.paper.current import current
from deploy.paper.records import Found, Record
from deploy.paper.run import jobs_of
from deploy.paper.views import View


def measured(views: Sequence[View], found: Found) -> list[Record]:
    """The records that these views are made of, each once; of what failed too."""
    newest = [current(found, job).newest(job) for job in jobs_of(views)]
    return [record for record in newest if record]


def describe(views: Sequence[View], found: Found) -> str:
    """What making some views took, in words: each network as often as it was measured last, as if
    no other view had needed it. Empty where nothing was measured."""
    records = measured(views, found)
    if not records:
        return ""
    parts = {
        "opened": _sum(records, "open"), "compiled and checked": _sum(records, "compile"),
        "timed": _sum(records, "time"),
    }  # fmt: skip
    said = ", ".join(f"{name} in {duration(seconds)}" for name, seconds in parts.items())
    whole = len(jobs_of(views))
    how_many = f"{len(records)} of {whole}" if len(records) < whole else f"{whole}"
    return f"{duration(sum(parts.values()))}: {how_many} networks and sizes, {said}"


def duration(seconds: float) -> str:
    """ "45 s", "14 min", "2 h 5 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _sum(records: Iterable[Record], part: str) -> float:
    return sum(record.seconds.get(part, 0.0) for record in records)
