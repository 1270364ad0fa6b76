"""What should hold of every network that is measured, and where it does not: named, never hidden.

A check that is missed is no failure: the figures stand, and the command ends as it would. A time on
a busy machine is no reason to call a table wrong, but one to look at it.
"""

from collections.abc import Mapping

from deploy.bench import OURS
from deploy.paper.cells import ratio, ratio_text
from deploy.paper.records import Record

MOST_LEFT = 0.05  # of a frame's time, to what TVM's own lowering made
PEERS = ("onnxruntime", "onnxruntime CUDA")  # whom no network should be slower than


def of_records(records: Mapping[str, Record | None]) -> list[str]:
    """A line for each check that some network misses, and one that names what the records do not
    say. Of records by their labels; nothing where nothing was timed on a real machine."""
    timed = {
        label: record
        for label, record in records.items()
        if record and record.samples and not record.setting.provenance.emulated
    }
    return [*_slower(timed), *_left_to_tvm(timed)] if timed else []


def _slower(timed: Mapping[str, Record]) -> list[str]:
    found = []
    for peer in PEERS:
        slower = [
            f"{label} {ratio_text(record, peer)}"
            f"{', within the spread' if ratio(record, peer).high >= 1 else ''}"
            for label, record in timed.items()
            if peer in record.samples and ratio(record, peer).median < 1
        ]
        if slower:
            found.append(f"Slower than {peer} (its time over {OURS}'s): {', '.join(slower)}")
    return found


def _left_to_tvm(timed: Mapping[str, Record]) -> list[str]:
    left = {label: record.left_to_tvm for label, record in timed.items()}
    much = [f"{label} ({share:.0%})" for label, share in left.items() if (share or 0) > MOST_LEFT]
    unknown = [
        label
        for label, share in left.items()
        if share is None and timed[label].setting.threads  # of a CPU
    ]
    found = []
    if much:
        found.append(f"More than {MOST_LEFT:.0%} of the frame left to TVM: {', '.join(much)}")
    if unknown:
        which = "all" if len(unknown) == len(left) else ", ".join(unknown)
        found.append(f"Measured before the share of a frame that is left to TVM was kept: {which}")
    return found
