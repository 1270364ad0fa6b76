"""A view as text: rows of cells with their footnotes, and what draws its picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.bench import OURS
from deploy.paper.cells import giga, mega
from deploy.paper.current import changed, current
from deploy.paper.jobs import Job
from deploy.paper.networks import absent, refuses
from deploy.paper.printed import About, Row
from deploy.paper.records import Found, Record, Setting
from deploy.paper.views import View

Draw = Callable[[Path], None]


@dataclass
class Page:
    """Cells are text; `notes` are the footnotes by their marks, in order; `remarks` hold for all of
    it, `findings` say what holds of the paper here, `checks` which networks are slower, or left to
    TVM more, than they should be; `draw` writes the picture, None where there is nothing yet."""

    view: View
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    draw: Draw | None = None

    def mark(self, *texts: str) -> str:
        """The marks of footnotes, the same for the same text; empty texts have none."""
        known = {text: mark for mark, text in self.notes.items()}
        marks = []
        for text in filter(None, texts):
            mark = known.setdefault(text, f"{self.view.name}-{len(known) + 1}")
            self.notes[mark] = text
            marks.append(f"[^{mark}]")
        return "".join(marks)

    def rename_marks(self, suffix: str) -> None:
        """Another end for every mark, for where several pages of a view stand on one."""
        for old in list(self.notes) if suffix else ():
            self.notes[old + suffix] = self.notes.pop(old)
            self.rows = [
                [cell.replace(f"[^{old}]", f"[^{old}{suffix}]") for cell in row]
                for row in self.rows
            ]

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "name": self.view.name, "title": self.view.title, "columns": self.columns,
            "rows": self.rows, "notes": self.notes, "remarks": self.remarks,
            "findings": self.findings, "checks": self.checks,
        }  # fmt: skip


def newest(row: Row, job: Job, found: Found) -> Record | None:
    """The record of a row at a size; None where it has none of today's network."""
    if row.network is None or absent(row.network):
        return None
    return current(found, job).newest(job)


def first(view: View, row: Row, found: Found) -> Record | None:
    """The same of the first of a row's sizes."""
    jobs = view.jobs(row)
    return newest(row, jobs[0], found) if jobs else None


def why_not(row: Row, job: Job | None, found: Found) -> str:
    """Why a row has no times at a size, of which `job` is None where the row has no network."""
    if row.network is None or job is None:
        return row.missing
    if why := absent(row.network):
        return why
    if record := newest(row, job, found):
        return f"failed: {record.failed}"
    if why := refuses(job):
        return why
    if old := changed(found, job):
        counts = f"{giga(old.macs)} GMACs and {mega(old.parameters)} M parameters"
        return f"measured on {old.date[:10]}, when it had {counts}: not measured since"
    return "not measured yet"


def newest_settings(view: View, found: Found) -> list[Setting]:
    """Those that measured something of a view, or failed at it, one for each machine: its newest,
    which is of the newest versions."""
    jobs = [job for row in view.rows for job in view.jobs(row) if not absent(job.network)]
    newest: dict[str, Setting] = {}
    for setting in found.settings():
        own = found.of(setting)
        if any(current(own, job).all for job in jobs):
            newest[setting.machine] = setting
    return list(newest.values())


def peers_of(records: Sequence[Record | None]) -> list[str]:
    """Whom some records timed beside ours, in the order of the first."""
    names = [name for record in records if record for name in record.samples if name != OURS]
    return list(dict.fromkeys(names))


def marks_of(page: Page, row: Row, about: About) -> str:
    """The footnotes of a row on one of its cells."""
    return page.mark(*(str(note) for note in row.notes if note.about == about))
