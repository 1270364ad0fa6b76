"""hmseg-deploy lut: build, show, check, calibrate, merge, export."""

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import completion, options, places
from deploy.cli.console import print_json, print_table, say, step
from deploy.cli.groups import grouped
from deploy.resolution import DEFAULT_RESOLUTION, Resolution, parse_resolution
from hmseg.covering import STAGES
from hmseg.operators import Space
from lut.errors import UserError, WorkError
from lut.files import check_writable, write_atomic
from lut.table import Table, merge_tables
from lut.table_file import add_retiming, load_table, require_growing, save_table

if TYPE_CHECKING:
    from deploy.tables.build import Progress
    from deploy.tables.calibrate import Calibrated
    from deploy.tables.check import CheckResult

_EMULATED = "EMULATED: these latencies mean nothing"

app = typer.Typer(help="Measured latency tables for the search.", no_args_is_help=True)

TablePath = Annotated[Path, typer.Argument(help="A table made by lut build.")]


@app.command()
@grouped
def build(
    *,
    target: options.TargetText = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            "--resolution",
            "-r",
            help=f"HEIGHTxWIDTH of the networks [{DEFAULT_RESOLUTION}].",
            callback=options.refusing(parse_resolution),
            autocompletion=completion.resolutions,
        ),
    ] = None,
    width: Annotated[float, typer.Option(help="Width of the networks: 0.5 or 1.0.")] = 1.0,
    precision: options.PrecisionText = None,
    stage: Annotated[
        list[str] | None, typer.Option(help=f"Only this stage ({', '.join(STAGES)}); repeatable.")
    ] = None,
    place: places.PlaceOptions,
    kept: options.CacheOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            "-o",
            help="The table, JSON lines; default: by what it is for, in ~/.cache/hmseg/lut, or "
            "lut in HMSEG_HOME.",
        ),
    ] = None,
) -> None:
    """Measure every operator of the search space.

    Inside of compiled networks. With --target cuda on this machine's GPU; in int8 by scales that
    are made up. Interrupted or killed, or its device lost, the same command goes on where it was.
    """
    cache = kept.open()
    workers, remote = place.read()
    size = options.read_resolution(resolution) or DEFAULT_RESOLUTION
    if width not in (0.5, 1.0):
        raise UserError(f"--width {width:g}: choose 0.5 or 1.0")
    if out:
        check_writable(out)
    from deploy.backends import backend_of
    from deploy.tables.build import Plan, build_table, default_path

    resolved = places.resolve_measured_target(options.target_text(target, remote), precision)
    backend = backend_of(resolved)
    backend.check_place(place.threads, remote)
    workers = backend.record_threads(workers)
    plan = Plan(
        Space(size, width), resolved, workers, stages=tuple(stage or STAGES),
        protocol=backend.protocol,
    )  # fmt: skip
    path, machine = out or default_path(plan), _place(resolved.machine, workers)
    check_writable(path)
    say(f"the table: {path}")
    with step(f"measuring {size}, width {width:g}, {machine}") as progress:

        def tell(now: "Progress") -> None:
            progress.tell(
                f"visit {now.done} of {now.total}, {now.entries} entries, about "
                f"{now.eta_s / 60:.0f} min left"
            )

        devices = backend.devices(workers, remote)
        table = build_table(plan, devices, path, tell, cache)
        progress.result = f"{len(table.entries)} entries from {len(table.visits)} visits"
    noisy = [key for key, entry in table.entries.items() if entry.noisy]
    if noisy:
        say(f"{len(noisy)} entries stayed noisy; lut show marks them")
    print(path)


@app.command()
def show(
    path: TablePath,
    out: Annotated[
        Path | None, typer.Option("--output", "--out", "-o", help="Draw a heat map, PNG.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print a table; -o draws operator x layer."""
    table, space = _open(path)
    if out:
        check_writable(out)
        from deploy.tables.heatmap import draw_heatmap

        draw_heatmap(table, space, out)
        say(f"heat map: {out}")
    if as_json:
        print_json(_describe(table, space))
    else:
        _print(table, space)


@app.command()
@grouped
def check(
    *,
    path: TablePath,
    target: Annotated[
        str | None,
        typer.Option(
            help="By default the table's own.",
            callback=options.refusing(options.check_target),
            autocompletion=completion.targets,
        ),
    ] = None,
    networks: Annotated[int, typer.Option(min=2, help="Random networks to compile and time.")] = 30,
    stage: Annotated[
        list[str] | None,
        typer.Option(help="For a table of these stages: networks that differ there alone."),
    ] = None,
    place: places.DeviceTablePlaceOptions,
    kept: options.CacheOptions,
    as_json: options.Json = False,
) -> None:
    """Compare a table's estimates with whole networks.

    With such as it has not seen; exit 1 below the bars.
    """
    cache, (table, _) = kept.open(), _open(path)
    resolved, devices = place.open(table.identity, target)
    from deploy.tables.check import check_networks, unseen_networks

    with step(f"compiling and timing {networks} networks") as progress:
        result = check_networks(
            table, resolved, devices, unseen_networks(table, networks, stage or ()),
            on_progress=progress.tell, cache=cache,
        )  # fmt: skip
    if as_json:
        print_json({"table": str(path), **result.to_json()})
    else:
        _print_check(result)
        if table.emulated:
            print(_EMULATED)
    if not result.passed:
        raise WorkError(
            f"{path}: mean error {result.mean_error:.1%} (bar 5%), worst {result.worst_error:.1%} "
            f"(bar 10%), Kendall tau {result.tau:.3f} (bar 0.95)"
        )


@app.command()
@grouped
def calibrate(
    *,
    path: TablePath,
    target: Annotated[str | None, typer.Option(help="By default the table's own.")] = None,
    place: places.DeviceTablePlaceOptions,
    kept: options.CacheOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "--out", "-o", help="The table with the calibration; by default it grows."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Make a table's estimates those of today.

    Its calibration networks are timed here and now. Refuses, and writes nothing, where entries have
    changed and not only their scale.
    """
    cache, (table, _) = kept.open(), _open(path)
    check_writable(out or path)
    if out is None:
        require_growing(path)
    resolved, devices = place.open(table.identity, target)
    from deploy.tables.calibrate import calibrate_table

    with step("compiling and timing the calibration networks") as progress:

        def tell(done: int, total: int, left_s: float) -> None:
            progress.tell(f"visit {done} of {total}, about {left_s:.0f} s left")

        found = calibrate_table(table, resolved, devices, on_progress=tell, cache=cache)
        progress.result = f"{found.after.networks} networks, {len(found.drift.entries)} entries"
    add_retiming(path, found.retiming, out or path)
    if as_json:
        print_json({"table": str(out or path), **found.to_json()})
        return
    _print_calibrated(found)
    if table.emulated:
        print(_EMULATED)
    print(out or path)


@app.command()
def merge(
    tables: Annotated[list[Path], typer.Argument(help="Tables of one target and resolution.")],
    out: Annotated[Path, typer.Option("--output", "--out", "-o", help="The merged table.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also where devices, versions or protocol differ.")
    ] = False,
) -> None:
    """Join tables; equal measurements are taken once."""
    if len(tables) < 2:
        raise UserError("merge needs at least two tables")
    check_writable(out)
    merged = merge_tables([load_table(path) for path in tables], str(out), force=force)
    save_table(merged, out)
    if len(merged.runs) > 1:
        say(f"{out} mixes {len(merged.runs)} provenances; lut show lists them")
    print(out)


@app.command("export")
def export_csv(
    path: TablePath,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
    out: Annotated[
        Path | None, typer.Option("--output", "--out", "-o", help="The file; default stdout.")
    ] = None,
) -> None:
    """Write the entries for other programs."""
    if not as_csv:
        raise UserError("lut export: name the format, --csv")
    table, _ = _open(path)
    lines = _csv(table)
    if out:
        write_atomic(out, lines)
    else:
        print(lines, end="")


def _open(path: Path) -> tuple[Table, Space]:
    """A table and the space it is for, whose entries it holds and no others."""
    table = load_table(path)
    identity = table.identity
    size: Resolution = parse_resolution(identity.resolution)
    space = Space(size, identity.width, identity.num_classes)
    space.require_table(table)
    space.check(set(table.entries), str(path))
    return table, space


def _describe(table: Table, space: Space) -> dict[str, Any]:
    wanted = space.all_keys()
    return {
        "identity": asdict(table.identity),
        "provenance": [provenance.to_json() for provenance, _ in table.runs],
        "calibrated": [again.provenance.to_json() for again in table.retimings],
        "present_us": table.present_us if table.visits else None,
        "visits": len(table.visits),
        "baseline_us": table.baseline_us if table.visits else None,
        "calibration": _calibration(table),
        "missing": len(wanted - set(table.entries)),
        "entries": {
            str(key): asdict(entry) | {"noisy": entry.noisy}
            for key, entry in sorted(table.entries.items(), key=lambda item: str(item[0]))
        },
    }


def _calibration(table: Table) -> dict[str, Any] | None:
    from lut.estimate import MIN_CALIBRATION, LatencyCost

    needed = {key for visit in table.calibration for key in visit.entries}
    networks = {visit.network for visit in table.calibration}
    if len(networks) < MIN_CALIBRATION or not needed <= table.entries.keys():
        return None  # a table that is being built
    return asdict(LatencyCost(table).calibration)


def _print(table: Table, space: Space) -> None:
    from deploy.precision import FP32

    rows = [
        (
            str(key), f"{entry.median_us:.1f}", f"{entry.p10_us:.1f}", f"{entry.p90_us:.1f}",
            f"{entry.half_interval_us / entry.median_us:.1%}", entry.rounds,
            "noisy" if entry.noisy else "",
        )
        for key, entry in sorted(table.entries.items(), key=lambda item: str(item[0]))
    ]  # fmt: skip
    identity = table.identity
    title = (
        f"{identity.target_name} ({table.cpus or 'nothing measured'}), {identity.resolution}, "
        f"width {identity.width:g}, {_place(identity.precision or FP32.name, identity.threads)}"
        + (f", {identity.precision}" if identity.precision and identity.threads else "")
    )
    print_table(title, ("entry", "us", "p10", "p90", "+-95%", "rounds", ""), rows)
    wanted = space.all_keys()
    reference = f", reference {table.baseline_us / 1000:.3f} ms" if table.visits else ""
    print(f"{len(table.entries)} of {len(wanted)} entries, {len(table.visits)} visits{reference}")
    fit = _calibration(table)
    if fit:
        print(
            f"network = {fit['overhead_us']:.0f} us + {fit['factor']:.4f} x entries, residual "
            f"{fit['error']:.1%} over {fit['networks']} networks"
        )
    if spread := table.occasions_spread if table.visits else []:
        print(
            f"a network's visits differ by {spread[len(spread) // 2]:.1%} (median standard "
            f"deviation), at most {spread[-1]:.1%}"
        )
    for provenance, visits in table.runs:
        print(f"{len(visits)} visits: {provenance.cpu}, {provenance.date}, {provenance.protocol}")
    for again in table.retimings:
        provenance = again.provenance
        print(
            f"calibrated {provenance.date} by {len(again.visits)} visits: {provenance.cpu}, "
            f"reference {again.baseline_us / 1000:.3f} ms"
        )
    if table.emulated:
        print(_EMULATED)


def _place(otherwise: str, threads: int) -> str:
    """The number of threads, or what stands in its place where there are none."""
    return f"{threads} threads" if threads else otherwise


def _print_check(result: "CheckResult") -> None:
    rows = [
        (row.network, f"{row.estimate_us:.0f}", f"{row.measured_us:.0f}", f"{row.error:+.1%}")
        for row in result.rows
    ]
    print_table("check", ("network", "estimate us", "measured us", "error"), rows)
    print(
        f"mean error {result.mean_error:.2%}, worst {result.worst_error:.2%}, Kendall tau "
        f"{result.tau:.3f}; {result.within_upper} of {len(rows)} within the upper bound"
    )


def _print_calibrated(found: "Calibrated") -> None:
    drift, before, after = found.drift, found.before, found.after
    then, now = drift.reference_us
    rows = [
        ("reference network", f"{then / 1e3:.3f} ms", f"{now / 1e3:.3f} ms"),
        ("overhead", f"{before.overhead_us:.0f} us", f"{after.overhead_us:.0f} us"),
        ("x entries", f"{before.factor:.4f}", f"{after.factor:.4f}"),
        ("residual", f"{before.error:.1%}", f"{after.error:.1%}"),
    ]
    print_table("calibration", ("", "before", "now"), rows)
    print(
        f"the machine is {abs(drift.speed - 1):.1%} {'slower' if drift.speed > 1 else 'faster'}; "
        f"beside its reference network entries take x {drift.scale:.3f}, "
        f"{len(drift.moved)} of the {len(drift.entries)} timed moved by themselves "
        f"({drift.moved_share:.1%} of the networks' time)"
    )
    print(
        f"so far: mean error {found.error_before:.2%}, {found.within_before} of {after.networks} "
        "networks within their upper bounds"
    )


def _csv(table: Table) -> str:
    names = ["kind", "macs", "parameters"]
    columns = ["median_us", "p10_us", "p90_us", "half_interval_us", "rounds", "noisy"]
    device = table.cpus
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["operation", *names, *columns, "device"])
    for key, entry in sorted(table.entries.items(), key=lambda item: str(item[0])):
        values = [getattr(key, name) for name in names]
        writer.writerow([key, *values, *(getattr(entry, column) for column in columns), device])
    return buffer.getvalue()
