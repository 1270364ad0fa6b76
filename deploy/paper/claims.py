"""What the paper's tables claim, against counts and times of the records: a paragraph for each.

Nothing is written down beforehand: a sentence is made of the figures that are there, and left out
where they are not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from deploy.paper.accuracy import Accuracy, accuracy_of
from deploy.paper.cells import frames_text, median_ms
from deploy.paper.printed import Row
from deploy.paper.records import Record

OWN = "tiny-mrms"  # the row of which the paper says that it is the fastest at its accuracy
_FREE = 0.03  # what adds less than this share to a frame's time is nearly free
# Rows of Table 4, without and with a module.
_MODULES = {"LGE": (("a", "b"), ("c", "d")), "LCF": (("a", "c"), ("b", "d"))}
# Rows of Table 6: what the paper searches, all of it together, and what nobody searched.
_SEARCHED, _BY_HAND = "o+d+r", "hand"
_SEEDS_DIFFER = 5.0  # points of mIoU; less says nothing, as the table's remark has it
_HEAVY = 10  # times the multiply-accumulates of OWN: whom it is said to replace


@dataclass(frozen=True)
class Timed:
    """A row that was timed."""

    row: Row
    record: Record
    ms: float

    @cached_property
    def accuracy(self) -> Accuracy:
        """What is known of its mIoU."""
        return accuracy_of(self.row)

    @property
    def macs(self) -> int:
        """Multiply-accumulates; of a current record they are today's."""
        return self.record.macs

    def __str__(self) -> str:
        known = self.accuracy
        percent = "" if known.percent is None else f", mIoU {known.percent:.1f}{known.printed}"
        return f"{self.row.label} ({frames_text(self.ms)}{percent})"


Rows = Mapping[str, Timed]  # by their keys


def timed_rows(records: Mapping[str, Record | None], rows: Mapping[str, Row]) -> Rows:
    """Of records by the rows' keys those with times, without what emulates a machine."""
    found = {}
    for key, row in rows.items():
        record = records.get(key)
        ms = median_ms(record)
        if record and ms and not record.setting.provenance.emulated:
            found[key] = Timed(row, record, ms)
    return found


def of_accuracy(timed: Rows) -> list[str]:
    """Whether TinyMRMS is the fastest at its accuracy."""
    if OWN not in timed or len(timed) < 2:
        return []
    own = timed[OWN]
    asked = f"Is {own.row.label} the fastest at its accuracy here?"
    faster = [each for each in timed.values() if each.ms < own.ms]
    if not faster:
        return [f"{asked} Yes: none of the {len(timed)} is faster, at whatever accuracy."]
    percent = own.accuracy.percent
    if percent is None:
        return [
            f"{asked} That cannot be said: its own mIoU on these images is not known, neither of "
            f"weights that were released nor as a print that we could read, and {len(faster)} of "
            f"the {len(timed)} are faster: {_named(faster)}."
        ]
    better = [each for each in faster if (each.accuracy.percent or 0) >= percent]
    unknown = [each for each in faster if each.accuracy.percent is None]
    rest = f" Faster, with an mIoU that is not known: {_named(unknown)}." if unknown else ""
    if better:
        return [f"{asked} No: faster, at its {percent:.1f}% or more, is {_named(better)}.{rest}"]
    known = sum(each.accuracy.percent is not None for each in timed.values())
    return [
        f"{asked} As far as is known, yes: of the {known} whose mIoU is known, none is faster at "
        f"its {percent:.1f}% or more.{rest}"
    ]


def of_print_order(timed: Rows) -> list[str]:
    """How often the print has two networks in the order that they have here."""
    printed = {
        key: float(each.row.printed.fps)
        for key, each in timed.items()
        if each.row.printed.fps and not each.row.stands_in
    }
    pairs = list(combinations(printed, 2))
    if len(pairs) < 3:
        return []
    same = sum((printed[a] > printed[b]) == (timed[a].ms < timed[b].ms) for a, b in pairs)
    return [
        f"Of the {len(pairs)} pairs of peers whose speed is printed, {same} stand here in the "
        "print's order."
    ]


def of_counts(timed: Rows) -> list[str]:
    """How many times smaller than heavy networks TinyMRMS is, by counts and by time."""
    if OWN not in timed:
        return []
    own, heavy = timed[OWN], [e for e in timed.values() if e.macs >= _HEAVY * timed[OWN].macs]
    if not heavy:
        return []
    said = [
        f"{each.row.label} has {each.macs / own.macs:.0f} times its multiply-accumulates and "
        f"{each.record.parameters / own.record.parameters:.0f} times its parameters, and takes "
        f"{each.ms / own.ms:.0f} times as long"
        for each in heavy
    ]
    less = sum(each.ms / own.ms < each.macs / own.macs for each in heavy)
    return [
        f"Against {own.row.label}: {'; '.join(said)}. The time falls by less than the "
        f"multiply-accumulates in {less} of {len(heavy)}."
    ]


def of_modules(timed: Rows) -> list[str]:
    """What global enhancement and context fusion cost, each without and with the other."""
    found = []
    for name, pairs in _MODULES.items():
        both = [(timed[a], timed[b]) for a, b in pairs if a in timed and b in timed]
        if not both:
            continue
        macs = " and ".join(f"{more.macs / less.macs - 1:.1%}" for less, more in both)
        time = " and ".join(f"{more.ms / less.ms - 1:+.1%}" for less, more in both)
        free = all(more.ms / less.ms - 1 < _FREE for less, more in both)
        found.append(
            f"{name} adds {macs} to the multiply-accumulates and {time} to the time: "
            f"{'nearly free' if free else 'not free'}."
        )
    return [*found, "What they gain in mIoU is not measured here."] if found else []


def of_searches(timed: Rows) -> list[str]:
    """Whether operators, depth and resolution together find more than one of them, or nobody."""
    known = {key: e.accuracy.percent for key, e in timed.items() if e.accuracy.percent is not None}
    if _SEARCHED not in known or len(known) < 2:
        return []
    own = known.pop(_SEARCHED)
    best = max(known, key=lambda key: known[key])
    against = f"{known[best]:.1f}% of the best of the others ({timed[best].row.label})"
    if _BY_HAND in known and best != _BY_HAND:
        against += f" and {known[_BY_HAND]:.1f}% by hand"
    gain = own - known[best]
    said = "yes" if gain > _SEEDS_DIFFER else "no" if gain < -_SEEDS_DIFFER else "that is not shown"
    return [
        "Is it best to search operators, depth and resolution together? At "
        f"{own:.1f}%, against {against}, {said} here."
    ]


def of_machines(machines: Mapping[str, Rows]) -> list[str]:
    """Who is the fastest on each machine, and whether networks stand in one order on all."""
    known = {name: timed for name, timed in machines.items() if len(timed) > 1}
    found = []
    for name, timed in known.items():
        best = min(timed.values(), key=lambda each: each.ms)
        times = f", {timed[OWN].ms / best.ms:.2f} times as fast as" if OWN in timed else ""
        behind = f"{times} {timed[OWN].row.label}" if times and best is not timed[OWN] else ""
        found.append(f"On {name}, the fastest is {best}{behind}.")
    if len(known) < 2:
        return [*found, "No other machine is in the records."] if found else []
    (first, reference), *others = known.items()
    for name, timed in others:
        pairs = list(combinations([key for key in reference if key in timed], 2))
        same = sum(
            (reference[a].ms < reference[b].ms) == (timed[a].ms < timed[b].ms) for a, b in pairs
        )
        found.append(f"{same} of {len(pairs)} pairs stand on {name} in the order of {first}.")
    return found


# By the view's name, beside who is the fastest.
OF_TABLES: Mapping[str, tuple[Callable[[Rows], list[str]], ...]] = {
    "table1": (of_accuracy, of_print_order),
    "table2": (of_accuracy,),
    "table3": (of_accuracy, of_counts),
    "table4": (of_modules,),
    "table6": (of_searches,),
}


def _named(several: list[Timed]) -> str:
    return ", ".join(map(str, several))
