"""docs/paper.md: the paper's tables and figures beside what was measured, from the records.

    hmseg-deploy paper all -o measured      # on each machine, and with --device or --target cuda
    cp measured/paper.jsonl benchmarks/results/paper-<machine>.jsonl
    python -m benchmarks.paper_page         # writes the page and its pictures

With --check nothing is written: exit code 1 where the page differs from the records. Every file
benchmarks/results/paper-*.jsonl is read; of each machine the newest versions count.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import paper_verify
from benchmarks.results_lib.store import FOLDER, ROOT
from deploy.paper.cost import describe
from deploy.paper.markdown import to_markdown
from deploy.paper.page import Page, newest_settings
from deploy.paper.pages import make_page
from deploy.paper.records import Found, Record, Records, Setting
from deploy.paper.views import VIEWS, View
from lut.errors import HmsegError
from lut.files import read_file, write_atomic

PAGE = ROOT / "docs" / "paper.md"
COMMAND = "python -m benchmarks.paper_page"
RECORDS = "paper-*.jsonl"

INTRO = f"""# The paper's tables and figures

Written by `{COMMAND}` from `benchmarks/results/{RECORDS}`; do not edit it by hand.
`hmseg-deploy paper table1` (to `table6`, `figure1`, `figure2`, `figure6`, or `all`) makes the same
on your own machine, phone (`--device`) or GPU (`--target cuda`): [how, and how long it
takes](#how-to-make-them).

"When Humans Meet Machines: Towards Efficient Segmentation Networks" (BMVC 2020) prints what its
peers' own papers say, each from another card and other software. Here every network is built from
its published layers, with random weights (released ones where a row's mIoU says so), compiled,
checked against onnxruntime, and timed beside it in one run, the sides in turn, from the uint8 image
to the uint8 labels: the median of all calls and the range of the rounds' medians. MACs and
parameters are counted by [the paper's rule](networks.md#counting-rule). A printed figure that is
wrong is struck out, and a footnote says what it really is. No cell of the print is guessed:
what is not known here is empty.
"""


def read_all(paths: Sequence[Path]) -> Found:
    """The records of all files, in the order of their dates."""
    records: list[Record] = [record for path in paths for record in Records(path).all]
    return Found(sorted(records, key=lambda record: record.date))


def pages_of(view: View, found: Found) -> list[tuple[Setting | None, Page]]:
    """A page for each machine; one without, where there is none or the view needs none."""
    if view.kind in ("parts", "devices"):
        return [(None, make_page(view, found, found))]
    settings = newest_settings(view, found)
    if not settings:
        return [(None, make_page(view, Found([]), found))]
    return [(setting, make_page(view, found.of(setting), found)) for setting in settings]


def build(
    found: Found, verified: Sequence[paper_verify.Verified], folder: Path, *, draw: bool
) -> str:
    """The whole page; its pictures go into `folder`."""
    parts = [INTRO]
    for view in VIEWS.values():
        for number, (setting, page) in enumerate(pages_of(view, found), 1):
            picture = f"paper-{view.name}{f'-{number}' if number > 1 else ''}.png"
            if page.draw and draw:
                page.draw(folder / picture)
            page.rename_marks(f"-{number}" if number > 1 else "")
            where = "" if setting is None else where_of(setting)
            parts.append(to_markdown(page, where, picture if page.draw else ""))
    return "\n".join([*parts, how_to(found), checked(verified)])


HOW = """## How to make them

    hmseg-deploy paper table1 -o measured                    # this machine
    hmseg-deploy paper table1 -o measured --rows icnet,mrms
    hmseg-deploy paper table1 table5 -o measured --device adb
    hmseg-deploy paper table1 table5 -o measured --target cuda

Killed anywhere, the same command goes on; `measured/paper.jsonl` has a line for each network, and
what one table measured no other measures again. A network that fails is named, the others go on,
and the exit code is 1. What the records below took, compilation included and each table by itself:
"""


def how_to(found: Found) -> str:
    """The commands, and what they took on each machine by its records."""
    machines: dict[str, Found] = {}
    for view in VIEWS.values():
        for setting in newest_settings(view, found):
            machines.setdefault(setting.machine, found.of(setting))
    lines = ["| command | " + " | ".join(["on", "took"]) + " |", "|---|---|---|"]
    views = list(VIEWS.values())
    for name, chosen in [*((view.name, [view]) for view in views), ("all", views)]:
        if not any(view.kind != "parts" for view in chosen):
            lines.append(f"| `hmseg-deploy paper {name}` | | nothing: it is counted |")
            continue
        rows = {machine: describe(chosen, own) for machine, own in machines.items()}
        for machine, took in rows.items():
            if took:
                lines.append(f"| `hmseg-deploy paper {name}` | {machine} | {took} |")
        if not any(rows.values()):
            lines.append(f"| `hmseg-deploy paper {name}` | | not measured yet |")
    return HOW + "\n" + "\n".join(lines) + "\n"


CHECKED = f"""## Verified at these sizes

Before it is timed, every network is compared with onnxruntime on five images; a wrong one is not
timed. PyTorch is compared too by

    hmseg-deploy verify --model icnet --resolution 1024x2048
    {paper_verify.COMMAND}                         # all of them, minutes each

"""


_SIDES = {"torch": "PyTorch", "tvm": "the binary", "file": "the file as it was read"}


def checked(verified: Sequence[paper_verify.Verified]) -> str:
    """What `paper_verify` found, in a paragraph for each machine."""
    by_cpu: dict[str, list[paper_verify.Verified]] = {}
    for one in verified:
        by_cpu.setdefault(one.cpu, []).append(one)
    parts = [_checked_on(cpu, lines) for cpu, lines in by_cpu.items()]
    return CHECKED + "\n\n".join(parts or ["The second was not run yet."]) + "\n"


def _checked_on(cpu: str, lines: Sequence[paper_verify.Verified]) -> str:
    passed = [one for one in lines if not one.failed]
    whole = len(paper_verify.jobs(paper_verify.DEFAULT))
    worst: dict[str, float] = {}
    for one in passed:
        for side, share in (one.shares or {}).items():
            worst[side] = max(worst.get(side, 0.0), share)
    dates = sorted(one.date[:10] for one in lines)
    said = [
        f"On {cpu}, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}: {len(passed)} of "
        f"{len(lines)} passed, of {whole} networks and sizes in all. Of what float32's own noise "
        "allows, the largest error is "
        + ", ".join(f"{share:.0%} ({_SIDES.get(side, side)})" for side, share in worst.items())
        + "."
    ]
    left = [
        f"{one.network} at {one.resolution} ({one.left_to_tvm})" for one in passed
        if one.left_to_tvm
    ]  # fmt: skip
    said.append(f"Kernels left to TVM: {', '.join(left) if left else 'none'}.")
    failed = [f"{one.network} at {one.resolution}: {one.failed}" for one in lines if one.failed]
    return " ".join([*said, *(f"FAILED: {why}." for why in failed)])


def where_of(setting: Setting) -> str:
    """The machine, the versions, the day and the protocol, in a line."""
    known = setting.provenance
    versions = ", ".join(" ".join(item) for item in known.versions.items())
    return (
        f"Measured by `hmseg-deploy paper`; {setting} ({setting.place}, {setting.target_name}); "
        f"{versions}; {known.date[:10]}; {known.protocol}."
    )


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the page differs, 2 a file is not as it should be."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--records", nargs="*", type=Path, help="files (benchmarks/results/)")
    parser.add_argument("--verified", type=Path, default=paper_verify.RESULTS)
    parser.add_argument("-o", "--out", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    try:
        paths = sorted(FOLDER.glob(RECORDS)) if options.records is None else options.records
        verified = paper_verify.read(options.verified)
        text = build(read_all(paths), verified, options.out.parent, draw=not options.check)
        if not options.check:
            write_atomic(options.out, text)
        elif read_file(options.out).decode() != text:
            print(f"{options.out} differs from the records: run {COMMAND}", file=sys.stderr)
            return 1
    except HmsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
