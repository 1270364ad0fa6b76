"""The documents' lines of commands, as a shell and as our programs read them; their headings."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import typer
from typer.main import get_command

from deploy.cli import hmseg, hmseg_deploy
from tests.conftest import ROOT

README = ROOT / "README.md"
MANUAL = [README, ROOT / "docs" / "cli.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
APPS = {"hmseg-deploy": hmseg_deploy.app, "hmseg": hmseg.app}
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> Iterator[str]:
    """The lines of indented blocks, which hold commands alone (output and code stand in fences):
    put together where a backslash ends one, without comments."""
    started = ""
    for line in _FENCE.sub("", text).splitlines():
        if not line.startswith("    "):
            assert not started, f"{started} \\: goes on nowhere"
            continue
        words = re.sub(r"(^|\s)#.*", "", line).strip()
        if words.endswith("\\"):
            started += words[:-1]
        elif words:
            yield started + words
            started = ""


def without_file(call: str) -> tuple[str, str]:
    """A call, and the file that its data goes to, if it names one."""
    words, _, file = call.partition(" > ")
    return words, file.strip()


@cache
def all_lines() -> dict[str, str]:
    """Each line of the manual, and the page where it stands first."""
    found: dict[str, str] = {}
    for page in MANUAL:
        for line in command_lines(page.read_text()):
            found.setdefault(line, str(page.relative_to(ROOT)))
    return found


def inline_commands(text: str) -> Iterator[str]:
    """Calls of our programs that stand within sentences."""
    for span in re.findall(r"`((?:hmseg-deploy|hmseg) [^`]+)`", _FENCE.sub("", text)):
        yield " ".join(span.split())


def programs(line: str) -> Iterator[list[str]]:
    """The calls of our programs in a line, as words, with what it shows as optional and without
    what it leaves out."""
    line = line.replace("torchrun --nproc-per-node 2 -m deploy.cli.hmseg ", "hmseg ")
    for call in re.split(r"&&|\|", line):
        if call.split()[0] in APPS:
            words = shlex.split(re.sub(r"[\[\]]", " ", without_file(call)[0]))
            yield [word for word in words if word != "..."]


def parse(words: list[str]) -> str:
    """Read a call as its program does, and run nothing; returns the command's name. Raises for a
    command or an option that is not there, and for a value of the wrong type. What names files is
    not looked at, and what is required may be missing."""
    program, *rest = words
    command = get_command(APPS[program])
    context = typer.Context(command, info_name=program)
    while hasattr(command, "list_commands"):
        command = command.get_command(context, rest[0])
        assert command is not None, f"{context.command_path} has no command {rest[0]}"
        context = typer.Context(command, info_name=rest.pop(0), parent=context)
    for parameter in command.params:
        parameter.required, parameter.callback = False, None
    command.make_context(context.info_name, rest, parent=context.parent)
    return context.command_path


def anchors(page: Path) -> set[str]:
    """What a link may name in a page, by GitHub's rule for headings."""
    text = _FENCE.sub("", page.read_text())
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = found[slug] = found.get(slug, -1) + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names
