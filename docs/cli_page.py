"""docs/cli.md: every command with its options, in the words of its own help.

    python -m docs.cli_page           # writes the page
    python -m docs.cli_page --check   # exit code 1 where it differs from the programs

A command's line, arguments and options are those of `--help`. `EXAMPLES` has lines of it, `GUIDES`
what to read; both may be missing.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from deploy.cli import hmseg, hmseg_deploy
from lut.errors import UserError
from lut.files import read_file, write_atomic

PAGE = Path(__file__).parent / "cli.md"
COMMAND = "python -m docs.cli_page"

# tests/test_readme.py runs them, or says why not.
EXAMPLES = {
    "hmseg-deploy quickstart": ["hmseg-deploy quickstart"],
    "hmseg-deploy models": ["hmseg-deploy models"],
    "hmseg-deploy export": ["hmseg-deploy export --model tiny-hmseg --resolution 256x512"],
    "hmseg-deploy compile": [
        "hmseg-deploy compile --model tiny-hmseg --target cpu -o tiny.hmseg",
        "hmseg-deploy compile --model tiny-hmseg --resolution 256x512 --format c -o tiny/",
        "hmseg-deploy compile --precision int8 --calibrate CAMVID/train -o tiny-int8.hmseg",
        "hmseg-deploy compile --target cuda --arch sm_61,sm_90 -o tiny-gpu.hmseg",
    ],
    "hmseg-deploy verify": [
        "hmseg-deploy verify tiny.hmseg",
        "hmseg-deploy verify --model tiny-hmseg",
    ],
    "hmseg-deploy bench": [
        "hmseg-deploy bench --resolution 256x512 --fail-below 1.2 --profile",
        "hmseg-deploy bench --device ssh:pi@board",
    ],
    "hmseg-deploy profile": ["hmseg-deploy profile tiny.hmseg -o roofline.png"],
    "hmseg-deploy tune": ["hmseg-deploy tune --trials 4"],
    "hmseg-deploy run": [
        "hmseg-deploy run tiny.hmseg street.png photos/ --out out",
        "hmseg-deploy run tiny.hmseg street.mp4 --out overlay.mp4",
    ],
    "hmseg-deploy report": ["hmseg-deploy report results -o report.html"],
    "hmseg-deploy upgrade": ["hmseg-deploy upgrade TABLE.jsonl RECORDS.jsonl"],
    "hmseg-deploy cache": ["hmseg-deploy cache", "hmseg-deploy cache --clear"],
    "hmseg-deploy paper": ["hmseg-deploy paper table1", "hmseg-deploy paper all --device adb"],
    "hmseg-deploy lut build": [
        "hmseg-deploy lut build --resolution 256x512 --width 0.5 --threads 2 -o tiny.jsonl"
    ],
    "hmseg-deploy lut show": ["hmseg-deploy lut show tiny.jsonl -o heatmap.png"],
    "hmseg-deploy lut check": ["hmseg-deploy lut check tiny.jsonl"],
    "hmseg-deploy lut calibrate": ["hmseg-deploy lut calibrate tiny.jsonl"],
    "hmseg-deploy lut merge": ["hmseg-deploy lut merge a.jsonl b.jsonl -o both.jsonl"],
    "hmseg-deploy lut export": ["hmseg-deploy lut export tiny.jsonl --csv -o tiny.csv"],
    "hmseg-deploy device doctor": ["hmseg-deploy device doctor --device adb"],
    "hmseg train": ["hmseg train --dataset camvid --data CAMVID --out runs/tiny"],
    "hmseg search": ["hmseg search --data CAMVID --cost TABLE --budget 1.7ms -o runs/search"],
    "hmseg eval": ["hmseg eval tiny-hmseg --data CAMVID"],
}
GUIDES = {
    "hmseg-deploy compile": ["own-model.md", "embed.md", "gpu.md"],
    "hmseg-deploy bench": ["phone.md"],
    "hmseg-deploy run": ["own-model.md#pictures-and-data-sets"],
    "hmseg-deploy tune": ["gpu.md#tuning"],
    "hmseg-deploy report": ["report.md"],
    "hmseg-deploy lut build": ["latency-table.md"],
    "hmseg-deploy lut check": ["latency-table.md#what-an-estimate-is"],
    "hmseg-deploy lut calibrate": ["latency-table.md#a-table-that-is-true-today"],
    "hmseg-deploy upgrade": ["latency-table.md#files-of-earlier-versions"],
    "hmseg-deploy device doctor": ["phone.md"],
    "hmseg train": ["training.md"],
    "hmseg search": ["search.md"],
    "hmseg eval": ["training.md#evaluating"],
}
INTRO = f"""# Commands

Written by `{COMMAND}` from the programs' own help; do not edit it by hand.

Two programs: `hmseg-deploy` makes, checks, measures and runs binaries, `hmseg` searches, trains and
evaluates. Data goes to stdout, progress to stderr. Exit codes: 0 done, 1 the work failed, 2 your
mistake (one line says which), 130 interrupted. These print JSON with `--json`: {{json}}.

`--model` takes a zoo name, a training's checkpoint or an ONNX file
([your own model](guides/own-model.md)), `--device` a machine behind ssh or a phone on a cable,
where nothing has to be installed ([guide](guides/phone.md)). **An artifact is code**, and so is a C
package: run only those that you, or somebody you trust, compiled.
"""


@dataclass(frozen=True)
class Command:
    """One that does something: its whole name, what its help says in a line, and typer's context
    of it."""

    name: str
    line: str
    context: typer.Context

    @property
    def usage(self) -> str:
        """The pieces of its usage line."""
        return " ".join([self.name, *self.context.command.collect_usage_pieces(self.context)])

    @property
    def options(self) -> set[str]:
        """Every spelling of every option."""
        params = self.context.command.params
        return {text for p in params for text in (*p.opts, *p.secondary_opts) if text[0] == "-"}


def records(context: typer.Context) -> list[tuple[str, str]]:
    """Arguments and options as a help shows them, each with its words; not `--help`."""
    found = [p.get_help_record(context) for p in context.command.params]
    return [(name, words) for name, words in filter(None, found) if name != "--help"]


def commands() -> list[Command]:
    """Those of both programs, in the order of their help."""
    return [
        command
        for name, app in (("hmseg-deploy", hmseg_deploy.app), ("hmseg", hmseg.app))
        for command in _inside(get_command(app), name, None)
    ]


def _inside(command: Any, name: str, parent: typer.Context | None) -> Iterator[Command]:  # noqa: ANN401
    context = typer.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    if not hasattr(command, "list_commands"):
        yield Command(name, command.get_short_help_str(1000), context)
        return
    for word in command.list_commands(context):
        yield from _inside(command.get_command(context, word), f"{name} {word}", context)


def page() -> str:
    """The whole page; raises UserError for an example or a guide of no command."""
    found = commands()
    if unknown := sorted({*EXAMPLES, *GUIDES} - {command.name for command in found}):
        raise UserError(f"{Path(__file__).name}: there is no command {unknown[0]!r}")
    json = ", ".join(f"`{command.name}`" for command in found if "--json" in command.options)
    rows = [f"| [`{c.name}`](#{c.name.replace(' ', '-')}) | {_cell(c.line)} |" for c in found]
    program = typer.Context(get_command(hmseg_deploy.app), info_name="hmseg-deploy")
    parts = [
        INTRO.format(json=json),
        "\n".join(["| command | what it does |", "|---|---|", *rows]),
        "Both programs themselves take these:",
        _table(records(program)),
        *map(_section, found),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section(command: Command) -> str:
    parts = [f"## {command.name}", _cell(" ".join((command.context.command.help or "").split()))]
    if guides := [_guide(at) for at in GUIDES.get(command.name, ())]:
        parts.append(f"Guides: {'; '.join(guides)}.")
    parts.append("\n".join(f"    {line}" for line in EXAMPLES.get(command.name, ())))
    if len(command.usage.split()) > len(command.name.split()) + 1:  # arguments, not options alone
        parts.append(f"`{command.usage}`")
    parts.append(_table(records(command.context)))
    return "\n\n".join(filter(None, parts))


def _table(found: list[tuple[str, str]]) -> str:
    bar = "\\|"
    rows = [f"| `{name.replace('|', bar)}` | {_cell(words)} |" for name, words in found]
    return "\n".join(["| | |", "|---|---|", *rows]) if rows else ""


def _guide(at: str) -> str:
    title = (PAGE.parent / "guides" / at.partition("#")[0]).read_text().partition("\n")[0]
    return f"[{title.removeprefix('# ')}](guides/{at})"


def _cell(words: str) -> str:
    """In a table, where a bar would end the cell and a bracket could be a tag."""
    return words.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*").replace("  [", " [")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the page differs, 2 it cannot be read or written."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    options = parser.parse_args(arguments)
    try:
        text = page()
        if not options.check:
            write_atomic(PAGE, text)
        elif read_file(PAGE).decode() != text:
            print(f"{PAGE} differs from the programs' help: run {COMMAND}", file=sys.stderr)
            return 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
