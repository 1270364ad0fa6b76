"""hmseg-deploy tune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import options, places
from deploy.cli.console import print_json, print_table, say, step
from deploy.cli.groups import grouped

if TYPE_CHECKING:
    from deploy.artifact import Artifact
    from deploy.schedules import Fields
    from deploy.tuning.tune import Trial


@grouped
def tune(
    *,
    model: options.Model = options.DEFAULT_MODEL,
    target: options.TargetText = None,
    precision: options.PrecisionText = None,
    given: options.SourceOptions,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Candidates to measure at most; default 200, on a GPU 1000, where one network "
            "carries a candidate of every kernel.",
        ),
    ] = None,
    early_stopping: Annotated[
        int, typer.Option(min=1, help="Leave a kernel after this many candidates without gain.")
    ] = 24,
    records: Annotated[
        Path | None, typer.Option(help="Folder of records; default: HMSEG_HOME/tuning.")
    ] = None,
    place: places.PlaceOptions,
    kept_objects: options.CacheOptions,
    as_json: options.Json = False,
) -> None:
    """Measure schedules inside the network; keep those that win.

    With --target cuda on this machine's GPU.
    """
    cache = kept_objects.open()
    workers, remote = place.read()
    read = options.read_file(model, given)
    resolved = places.resolve_measured_target(options.target_text(target, remote), precision)
    from deploy.backends import backend_of

    backend = backend_of(resolved)
    backend.check_place(place.threads, remote)
    with step(f"exporting {model}"):
        source = options.open_model(model, given, read=read)
    from deploy.build import build_source
    from deploy.measure.interleave import Protocol
    from deploy.schedules import TRACE
    from deploy.tuning.compare import compare_artifacts
    from deploy.tuning.records import default_folder, winners
    from deploy.tuning.tune import Limits
    from deploy.tuning.tune import tune as run_tuning

    folder, limits = records or default_folder(), Limits(trials or backend.trials, early_stopping)

    def build(measured: "dict[str, Fields]") -> "Artifact":
        return build_source(
            source, resolved, threads=workers, measured=measured, remote=remote, cache=cache
        )[0]

    with step("compiling by the rule"):
        rule = build({})
    with step(f"measuring up to {limits.trials} candidates") as progress:

        def tell(trial: "Trial") -> None:
            best = f"best of this kernel {trial.best_gain:.2f}"
            progress.at(f"{trial.number} of {limits.trials}, {best}")

        measured = run_tuning(
            source.graph, resolved, folder, rule, limits, threads=workers, remote=remote,
            emulated=records is not None, on_trial=tell,
        )  # fmt: skip
        kept = winners(measured)
        progress.result = f"{len(measured)} records, {len(kept)} schedules kept"
    with step("the whole network, rule against records"):
        devices = backend.devices(workers, remote)
        ratio = compare_artifacts(rule, build(kept), Protocol(), devices)
    gains = {record.spec: record.gain for record in sorted(measured, key=lambda r: r.gain)}
    if as_json:
        print_json({
            "records": str(folder), "measured": len(measured), "kept": kept,
            "whole_network": {"median": ratio.median, "low": ratio.low, "high": ratio.high},
        })  # fmt: skip
        return
    print_table(
        "kept", ("gain", "kernel", "schedule"),
        [
            (f"{gains[spec]:.2f}", spec, "MetaSchedule's" if TRACE in schedule else schedule)
            for spec, schedule in kept.items()
        ],
    )  # fmt: skip
    print(
        f"rule / records, whole network: {ratio.median:.3f} [{ratio.low:.3f} .. {ratio.high:.3f}]"
    )
    say(f"records: {folder}")
