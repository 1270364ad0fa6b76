"""hmseg-deploy report."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.console import say
from lut.errors import UserError, WorkError
from lut.files import check_writable, write_atomic

_NAMED = 10  # files that are passed over and named on the terminal; the page names all


def report(
    folder: Annotated[Path, typer.Argument(help="A folder of results.")] = Path(),
    out: Annotated[
        Path, typer.Option("--output", "--out", "-o", help="The page, one HTML file.")
    ] = Path("report.html"),
) -> None:
    """Make one HTML page of the results in a folder.

    Tables to sort, pictures, nothing fetched.

    What --json of bench, profile and lut check wrote, latency tables, logs of searches and
    training, the paper's records, and results beside other runtimes. Exit 1 where a file is
    damaged; the page has the others.
    """
    from deploy.report.folder import read_folder
    from deploy.report.page import page_of

    check_writable(out)
    found = read_folder(folder)
    if passed := found.passed_over:
        more = f" and {len(passed) - _NAMED} more" if len(passed) > _NAMED else ""
        say(f"passed over, no results: {', '.join(passed[:_NAMED])}{more}")
    for name, reason in found.damaged.items():
        say(f"damaged: {name}: {reason}")
    damaged = f"{len(found.damaged)} damaged file{'s' * (len(found.damaged) > 1)}"
    if not found.results:
        if found.damaged:
            raise WorkError(f"{folder} holds no result that can be read, and {damaged}")
        raise UserError(
            f"{folder} holds no results; write some there, such as hmseg-deploy bench --json > "
            f"{folder / 'bench.json'}"
        )
    files = sum(len(results) for _, results in found.found)
    write_atomic(out, page_of(found, f"Results in {folder.resolve().name or folder}"))
    say(f"{files} file{'s' * (files > 1)} of results")
    print(out)
    if found.damaged:
        raise WorkError(f"{damaged}; {out} has the others")
