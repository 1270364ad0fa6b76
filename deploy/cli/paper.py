"""hmseg-deploy paper."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import options, places
from deploy.cli.console import print_json, say, step
from deploy.cli.groups import grouped
from lut.errors import UserError, WorkError

if TYPE_CHECKING:
    from deploy.object_cache import ObjectCache
    from deploy.paper.measure import Bench
    from deploy.paper.page import Page
    from deploy.paper.records import Records, Setting
    from deploy.paper.views import View

Names = Annotated[
    list[str],
    typer.Argument(
        help="table1 table2 table3 table4 table5 table6 figure1 figure2 figure6, or all.",
        show_default=False,
    ),
]


@grouped
def paper(
    *,
    names: Names,
    on: options.TargetOptions,
    rows: Annotated[
        str | None, typer.Option(help="Only these rows, with commas: bisenet,tiny-mrms.")
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option("--resolution", "-r", help="HEIGHTxWIDTH of all rows; default: the paper's."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Blocks of each side, in turn.")] = 5,
    place: places.PlaceOptions,
    kept: options.CacheOptions,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of records, tables and pictures.")
    ] = Path("paper"),
    as_json: options.Json = False,
) -> None:
    """Make the paper's tables and figures.

    On this machine, on a device or a GPU.

    What is measured goes into OUT/paper.jsonl, line by line: interrupted or killed, the same
    command goes on where it was. Each table is printed, and written beside it with its picture. A
    network that fails is named, the others go on, exit 1; one that is slower than onnxruntime, or
    leaves more than 5% of its frame to TVM, is named too.
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # NVIDIA's libraries read it when they are loaded
    size = options.read_resolution(resolution)
    from deploy.paper.views import choose_views
    from lut.files import check_writable, lock_folder

    views = choose_views(names, _split(rows), size)
    cache = kept.open()
    from deploy.paper.records import FILE, Records

    check_writable(out / FILE)
    from deploy.paper.run import jobs_of

    with lock_folder(out):
        records = Records(out / FILE)
        failures: list[str] = []
        setting: Setting | None = None
        if jobs_of(views):
            bench = _bench(on, place, rounds, cache)
            setting = bench.setting()
            failures = _measure(views, bench, setting, records)
        pages = [_write(view, records, setting, out, as_json) for view in views]
    if as_json:
        print_json({"pages": [page.to_json() for page in pages], "failed": failures})
    for page in pages:
        for check in page.checks:
            say(f"{page.view.name}: {check}")
    if failures:
        raise WorkError(
            f"{len(failures)} networks failed, the first: {failures[0]}; the same command tries "
            "them again"
        )


def _split(text: str | None) -> list[str]:
    if text is None:
        return []
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UserError(f"--rows {text!r}: write names with commas between them")
    return words


def _bench(
    on: options.TargetOptions, place: places.PlaceOptions, rounds: int,
    cache: "ObjectCache | None",
) -> "Bench":  # fmt: skip
    from deploy.backends import backend_of
    from deploy.paper.measure import Bench

    workers, remote = place.read()
    target = on.resolve(remote)
    backend = backend_of(target)
    backend.check_place(place.threads, remote)
    if on.arch is None:
        target = backend.measured_target(target, options.target_text(on.target, remote))
    return Bench(target, workers, remote, cache, rounds)


def _measure(
    views: "list[View]", bench: "Bench", setting: "Setting", records: "Records"
) -> list[str]:
    from deploy.paper.run import Progress, measure_views

    with step(f"measuring on {setting}") as progress:

        def tell(now: Progress) -> None:
            (progress.tell if now.lasting else progress.at)(str(now))

        failures = measure_views(views, bench, setting, records, tell)
        progress.result = f"{len(records.all)} records in {records.path}"
    return failures


def _write(
    view: "View", records: "Records", setting: "Setting | None", out: Path, as_json: bool
) -> "Page":
    """Print a page, unless it is for --json, and write it with its picture."""
    from deploy.paper.markdown import to_markdown
    from deploy.paper.pages import make_page
    from lut.files import write_atomic

    page = make_page(view, records.of(setting) if setting else records, records)
    picture = out / f"{view.name}.png"
    if page.draw:
        page.draw(picture)
    where = f"Measured on {setting}." if setting and view.kind not in ("parts", "devices") else ""
    text = to_markdown(page, where, picture.name if page.draw else "")
    write_atomic(out / f"{view.name}.md", text)
    if not as_json:
        print(text)
    return page
