"""hmseg-deploy tune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import options
from deploy.cli.console import print_json, print_table, say, step
from lut.errors import UserError

if TYPE_CHECKING:
    from deploy.tuning.tune import Trial

TRIALS, GPU_TRIALS = 200, 1000


def tune(
    model: options.Model = options.DEFAULT_MODEL,
    target: options.TargetText = "cpu",
    precision: options.PrecisionText = "fp32",
    resolution: options.ResolutionText = None,
    classes: options.Classes = None,
    mean: options.Mean = None,
    std: options.Std = None,
    threads: options.Threads = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help=f"Candidates to measure at most; default {TRIALS}, on a GPU {GPU_TRIALS}, where "
            "one network carries a candidate of every kernel."
        ),
    ] = None,
    early_stopping: Annotated[
        int, typer.Option(help="Leave a kernel after this many candidates without gain.")
    ] = 24,
    records: Annotated[
        Path | None, typer.Option(help="Folder of records; default: HMSEG_HOME/tuning.")
    ] = None,
    rpc_tracker: options.Tracker = None,
    rpc_key: options.Key = None,
    rpc_limit: options.CallLimit = options.CALL_LIMIT_S,
    as_json: options.Json = False,
) -> None:
    """Measure schedules inside the network; keep those that win.

    With --target cuda on this machine's GPU.
    """
    if (trials is not None and trials < 1) or early_stopping < 1:
        raise UserError("--trials and --early-stopping must be at least 1")
    workers, remote = options.read_place(threads, rpc_tracker, rpc_key, rpc_limit)
    resolved = options.resolve_measured_target(target, precision)
    if resolved.gpu and remote:
        raise UserError("a GPU is tuned on its own machine: leave --rpc-key and its variable out")
    if resolved.gpu and threads is not None:
        raise UserError("--threads is of a CPU; leave it out for a GPU")
    if trials is None:
        trials = GPU_TRIALS if resolved.gpu else TRIALS
    with step(f"exporting {model}"):
        source = options.open_model(model, resolution, "labels", classes, mean, std)
    from deploy.build import build_artifact
    from deploy.cpu.passes.schedule_fallback import TRACE
    from deploy.measure.interleave import Protocol
    from deploy.tuning.compare import compare_artifacts
    from deploy.tuning.records import NO_THREADS, default_folder, tuned_schedules, winners
    from deploy.tuning.tune import tune as run_tuning

    key_threads = NO_THREADS if resolved.gpu else workers
    folder = records or default_folder()
    with step(f"measuring up to {trials} candidates") as progress:

        def tell(trial: "Trial") -> None:
            best = f"best of this kernel {trial.best_gain:.2f}"
            progress.at(f"{trial.number} of {trials}, {best}")

        if resolved.gpu:
            from deploy.gpu.tune import tune_on_gpu

            measured = tune_on_gpu(
                source.graph, resolved, folder, trials=trials, early_stopping=early_stopping,
                on_trial=tell,
            )  # fmt: skip
        elif remote:
            from deploy.tuning.remote import tune_on_devices

            measured = tune_on_devices(
                source.graph, resolved, folder, remote, trials=trials,
                early_stopping=early_stopping, emulated=records is not None, on_trial=tell,
            )  # fmt: skip
        else:
            measured = run_tuning(
                source.graph, resolved, folder, threads=workers, trials=trials,
                early_stopping=early_stopping, on_trial=tell,
            )  # fmt: skip
        kept = winners(measured)
        progress.result = f"{len(measured)} records, {len(kept)} schedules kept"
    with step("the whole network, rule against records"):
        schedules = tuned_schedules(resolved, key_threads, [folder])
        rule, _ = build_artifact(
            source.graph, resolved, threads=workers, measured={}, remote=remote
        )
        tuned, _ = build_artifact(
            source.graph, resolved, threads=workers, measured=schedules, remote=remote
        )
        if remote:
            from deploy.tuning.remote import compare_on_device

            ratio = compare_on_device(rule, tuned, Protocol(), remote)
        else:
            ratio = compare_artifacts(rule, tuned, Protocol(), threads=workers)
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
