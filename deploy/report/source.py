"""Where figures come from, and how a page says so."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.report.content import Fields
from deploy.report.markup import Child, Markup, join, tag

EMULATED = "EMULATED: these times say nothing of any real machine"


@dataclass(frozen=True)
class Source:
    """A file, what it is of, and what it says of its making; empty where it does not."""

    file: str
    what: str
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    date: str = ""
    emulated: bool = False

    @property
    def date_text(self) -> str:
        """The date, times to the minute."""
        return re.sub(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[\d:.+Z-]*", r"\1 \2", self.date)

    @property
    def versions_text(self) -> str:
        """``numpy 2.4.6, ...``."""
        return ", ".join(f"{name} {version}" for name, version in self.versions.items())

    def line(self) -> Markup:
        """The file and what it says, and what it does not."""
        known = {"device": self.device, "versions": self.versions_text, "date": self.date_text}
        missing = [name for name, value in known.items() if not value]
        words = [value for value in known.values() if value]
        silent = f"the file names no {' and no '.join(missing)}" if missing else None
        return tag(
            "p",
            tag("code", self.file),
            *(tag("span", word) for word in words),
            tag("span", silent, class_="silent") if silent else None,
            tag("strong", EMULATED) if self.emulated else None,
            class_="source",
        )


def article(source: Source, *blocks: Child, title: str = "") -> Markup:
    """What one file has, behind its title, with its source."""
    return tag("article", tag("h3", title or source.what), source.line(), join(*blocks))


def listed(versions: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Versions of one file that has many runs: all of each name."""
    return {name: " and ".join(each) for name, each in versions.items()}


def span(dates: Sequence[str]) -> str:
    """From the first date to the last, in words; one where they are the same."""
    return " to ".join(dict.fromkeys((min(dates), max(dates))))


def machine_of(machine: Fields) -> tuple[str, bool]:
    """From `Session.machine`: the device in words, and whether it is emulated."""
    words = [machine.text("machine"), machine.text("architecture", "")]
    return ", ".join(filter(None, words)), machine.values.get("emulated") is True


def threads_text(threads: Any) -> str:  # noqa: ANN401 - any JSON value
    """``, 2 threads``; nothing where there are none, as on a GPU."""
    if type(threads) is not int or threads < 1:
        return ""
    return f", {threads} thread{'s' * (threads > 1)}"
