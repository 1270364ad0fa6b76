"""Which records are of the networks as they are today."""

from deploy.paper.jobs import Job
from deploy.paper.networks import count
from deploy.paper.records import Found, Record, serves
from lut.errors import WorkError


def current(found: Found, job: Job) -> Found:
    """The records of a job whose network counted as it does today. One that has other parameters or
    multiply-accumulates now is another network: it is measured again, and its old times are not
    shown."""
    return Found([r for r in found.all if serves(r.job, job) and not is_changed(r)])


def is_changed(record: Record) -> bool:
    """Whether a network counts otherwise than when it was measured. What failed before it was
    counted has nothing to compare."""
    if record.failed and not record.macs:
        return False
    try:
        return count(record.job) != (record.macs, record.parameters)
    except WorkError:  # it does not take the size any more
        return True


def changed(found: Found, job: Job) -> Record | None:
    """The newest record of a job that is of another network now, where no other is left."""
    old = [r for r in found.all if serves(r.job, job)]
    return old[-1] if old and not current(found, job).all else None
