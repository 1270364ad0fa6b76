"""The full search and training on one GPU in so many minutes, in one command.

    python -m benchmarks.full_schedule --data CAMVID --minutes 9 -o OUT --device cuda
        [--tiny-cost TABLE --tiny-budget 1.56ms] [--full-cost TABLE --full-budget 3.9ms]
        [--search-share 0.3] [--crop 360x480] [--batch 16] [--search-crop 180x240]

1. For each width with a cost and a budget `hmseg search` with shared weights and the score
   estimator, at half width from the released weights, at full width from random ones: all at the
   same time, for --search-share of the minutes.
2. `hmseg train` of tiny-mrms, of mrms and of the networks found: all at the same time, from random
   weights, by one recipe, for equally many steps.

Before each of the two its runs are started as they will be, for some seconds (the probe): how long
each takes to its first steps, and how fast it is beside the others, says how many steps fit in. The
search's probe takes every step for a dear one, so a search ends early, and what it leaves is for
the training. That is sized to end with a tenth of the minutes to spare; the slowest network
decides, and the others end before it.

OUT/plan.json gets the steps as soon as they are known. A start that was killed, or whose minutes
were over, goes on when the same command is given again: by that plan, each run with `--resume`. A
run that fails is resumed once, then named; one that does not end in time is interrupted and named;
the others go on, and the exit code is then 1.

Of OUT these files matter: report.json (what was reached and what on), plan.json, */log.jsonl,
*/best.safetensors and search-*/genotype.json; *.txt is what the runs said. The rest, above all
last.safetensors, is only for going on.
"""

import json
import os
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.full_schedule_jobs import PROBE_EVALUATE, PROBE_LOG, Job, Pace, probe, run
from benchmarks.full_schedule_options import WIDTHS, read_options
from benchmarks.training_speed import provenance
from deploy.cli.console import print_table, run_main, say
from hmseg.network_file import read_network, read_search
from hmseg.search.budget import show_cost
from hmseg.train.compute import open_device
from lut.errors import UserError, WorkError
from lut.files import check_writable, read_file, write_atomic
from lut.jsonl import content_digest

EVALUATIONS = 8  # of each training
MARGIN = 0.1  # of the time, which a plan leaves free
PROBE_SHARE = 0.4  # of the time, which a probe may take at most
PATIENCE = 1.2  # a search may take somewhat longer than its share: its network is the point of it
LEAST_SEARCH = 20  # steps; a shorter one would find nothing
ENDING_S = 6.0  # for stopping runs and for the report
MANY_STEPS = 1_000_000  # of a run in a probe, which is stopped
# What another start must not change.
SETTINGS = (
    "crop", "batch", "search_crop", "lr", "weight_decay", "warmup", "ema", "class_balance",
    "colour", "precision", "seed", "tiny_budget", "full_budget",
)  # fmt: skip

Plan = dict[str, Any]


class Schedule:
    """The runs of one folder, and their plan. Raises UserError for what cannot be started."""

    def __init__(self, arguments: list[str] | None) -> None:
        self.options = options = read_options(__doc__, arguments)
        self.out: Path = options.out
        self.begin = time.monotonic()
        self.end = self.begin + 60 * options.minutes
        self.device = open_device(options.device)
        self.searches = [width for width in WIDTHS if getattr(options, f"{width}_cost")]
        self.failed: dict[str, str] = {}  # why, by the name of the run
        check_writable(self.out / "plan.json")
        self.plan = self.open_plan()

    def open_plan(self) -> Plan:
        """That of an earlier start, or a new one; raises UserError where the settings are others,
        and for a folder that holds runs and no plan."""
        costs = {f"{width}_cost": getattr(self.options, f"{width}_cost") for width in WIDTHS}
        settings = {name: getattr(self.options, name) for name in SETTINGS}
        settings |= {name: path and content_digest(path) for name, path in costs.items()}
        path = self.out / "plan.json"
        if not path.exists():
            if any(self.out.glob("*/last.safetensors")):
                raise UserError(f"{self.out} holds runs but no plan: name another folder")
            return {"settings": settings}
        try:
            plan: Plan = json.loads(read_file(path))
            before: Plan = plan["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a plan of this program ({error})") from error
        for name, value in settings.items():
            if before.get(name) != value:
                raise UserError(
                    f"{path}: another schedule ({name.replace('_', ' ')}: {before.get(name)} "
                    f"there, {value} here): name another folder"
                )
        say(f"goes on with {path}")
        return plan

    def keep(self, name: str, part: Plan) -> None:
        """Add to the plan, on disk too."""
        self.plan[name] = part
        write_atomic(self.out / "plan.json", json.dumps(self.plan, indent=1) + "\n")

    def search(self) -> None:
        """Search at every width, or go on with it."""
        began = time.monotonic()
        share_s = self.options.search_share * (self.end - began)
        if "search" not in self.plan:
            jobs = [self.search_job(width, None) for width in self.searches]
            paces = self.probe(jobs, began + PROBE_SHARE * share_s)
            left = began + (1 - MARGIN) * share_s - time.monotonic()
            steps = {name: pace.steps_in(left) for name, pace in paces.items()}
            self.keep("search", {
                name: {"steps": count, "pace": asdict(paces[name])}
                for name, count in steps.items() if count >= LEAST_SEARCH
            })  # fmt: skip
        planned = self.plan["search"]
        jobs = []
        for width in self.searches:
            name = f"search-{width}"
            if name not in planned:
                self.failed[name] = "its probe failed, or there is no time for it"
            elif not self.genotype(width).exists():
                jobs.append(self.search_job(width, planned[name]["steps"]))
        self.run(jobs, min(began + PATIENCE * share_s, self.end - ENDING_S))

    def train(self) -> None:
        """Train all networks that there are, or go on with it. Raises WorkError where no step could
        be taken in time."""
        models = self.models()
        if "train" not in self.plan:
            began = time.monotonic()
            jobs = [self.train_job(name, None) for name in models]
            paces = self.probe(jobs, began + PROBE_SHARE * (self.end - began))
            margin_s = 60 * MARGIN * self.options.minutes + ENDING_S
            left = self.end - margin_s - time.monotonic()
            steps = min(
                (pace.steps_in(left, EVALUATIONS) for pace in paces.values()), default=0
            )  # fmt: skip
            if steps < EVALUATIONS:
                raise WorkError(f"no time for training: {steps} steps would fit in; see above")
            told = {name: asdict(pace) for name, pace in paces.items()}
            self.keep("train", {"steps": steps, "pace": told})
        jobs = [self.train_job(name, self.plan["train"]["steps"]) for name in models]
        self.run([job for job in jobs if not is_done(job)], self.end - ENDING_S)

    def probe(self, jobs: list[Job], until: float) -> dict[str, Pace]:
        """The pace of each job beside the others, by name; those without one are told."""
        folder = self.out / "probe"
        shutil.rmtree(folder, ignore_errors=True)
        say(f"probes {', '.join(job.name for job in jobs)}")
        paces, why = probe(jobs, until)
        for name, reason in why.items():
            say(f"{name} in its probe: {reason}")
        shutil.rmtree(folder, ignore_errors=True)
        return paces

    def run(self, jobs: list[Job], until: float) -> None:
        """Run all to their ends; what has none by then is among the failed."""
        if jobs:
            say(f"runs {', '.join(f'{job.name} for {job.steps} steps' for job in jobs)}")
            self.failed |= run(jobs, until, self.end)

    def genotype(self, width: str) -> Path:
        """What the search at that width finds."""
        return self.out / f"search-{width}" / "genotype.json"

    def models(self) -> dict[str, str]:
        """What to train, by the name of its run."""
        found = {f"{width}-found": self.genotype(width) for width in self.searches}
        return {model: model for model, _ in WIDTHS.values()} | {
            name: str(path) for name, path in found.items() if path.exists()
        }

    def search_job(self, width: str, steps: int | None) -> Job:
        """`hmseg search` at one width; in a probe without `steps`."""
        options = self.options
        job = self.job(f"search-{width}", steps, "search", len(self.searches), options.search_crop)
        table: Path = getattr(options, f"{width}_cost")
        job.command += [
            "--model", WIDTHS[width][0], "--cost", str(table.resolve()), "--no-measure",
            "--budget", getattr(options, f"{width}_budget"), "--share-weights",
            "--estimator", "score", "--samples", "4", "--arch-lr", "0.04", "--lr", "0.001",
        ]  # fmt: skip
        job.command += ["--pretrained"] * (width == "tiny")
        job.command += ["--warmup", "0"] * (steps is None)
        return job

    def train_job(self, name: str, steps: int | None) -> Job:
        """`hmseg train` of one network; in a probe without `steps`."""
        options, models = self.options, self.models()
        job = self.job(name, steps, "train", len(models), options.crop)
        evaluate = -(-steps // EVALUATIONS) if steps else PROBE_EVALUATE
        job.command += [
            "--model", models[name], "--lr", str(options.lr),
            "--weight-decay", str(options.weight_decay), "--ema", str(options.ema),
            "--warmup", str(min(options.warmup, job.steps // 20)),
            "--colour", str(options.colour), "--evaluate-every", str(evaluate),
        ]  # fmt: skip
        return job

    def job(self, name: str, steps: int | None, what: str, beside: int, crop: str) -> Job:
        """A run with what search and training share, one of `beside` at the same time."""
        options, taken = self.options, steps or MANY_STEPS
        threads = max(1, len(os.sched_getaffinity(0)) // beside)
        log = max(1, min(20, steps // 20)) if steps else PROBE_LOG
        command = (
            what, "--data", options.data, "--device", options.device, "--seed", options.seed,
            "--stage", f"{crop}:{options.batch}:{taken}", "--optimizer", "adamw",
            "--class-balance", options.class_balance, "--precision", options.precision,
            "--threads", threads, "--loader-threads", max(1, threads - 1),
            "--log-every", log, "--checkpoint-every", max(1, taken // 20),
        )  # fmt: skip
        folder = self.out / name if steps else self.out / "probe" / name
        return Job(name, folder, list(map(str, command)), taken)

    def report(self) -> None:
        """Print what the networks reached, and write it with what it comes from."""
        rows, lines = [], []
        for name, model in self.models().items():
            records = self.train_job(name, self.plan["train"]["steps"]).records()
            scores = [record for record in records if "miou" in record]
            if not scores:
                continue
            best, last = max(scores, key=lambda record: record["miou"]), scores[-1]
            row = {"name": name, "images_seen": records[-1]["step"] * self.options.batch}
            for which, score in (("best", best), ("last", last)):
                row |= {
                    f"{which}_miou_percent": 100 * score["miou"],
                    f"{which}_step": score["step"],
                }
            upper = "-"
            if model.endswith(".json"):
                search = read_search(Path(model))
                row["genotype"] = str(read_network(Path(model))[0])
                row |= {"estimate": search["estimate"], "budget": search["config"]["budget"]}
                upper = show_cost(search["estimate"]["upper"], search["estimate"]["unit"])
            rows.append(row)
            shown = (f"{100 * score['miou']:.2f} ({score['step']})" for score in (best, last))
            lines.append((name, *shown, row["images_seen"], upper))
        result = {
            "provenance": provenance(self.device), "minutes": self.options.minutes,
            "minutes_taken": (time.monotonic() - self.begin) / 60, "plan": self.plan,
            "networks": rows, "not_ended": self.failed,
        }  # fmt: skip
        write_atomic(self.out / "report.json", json.dumps(result, indent=1) + "\n")
        columns = ("network", "best mIoU % (step)", "last mIoU % (step)", "images", "upper bound")
        print_table("", columns, lines)


def is_done(job: Job) -> bool:
    """Whether a training has made its last evaluation."""
    return any("miou" in record and record["step"] == job.steps for record in job.records())


def main(arguments: list[str] | None = None) -> int:
    schedule = Schedule(arguments)
    if schedule.searches:
        schedule.search()
    schedule.train()
    schedule.report()
    for name, why in schedule.failed.items():
        say(f"did not end: {name}, {why}")
    return 1 if schedule.failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its runs are to end with it
    run_main(main)
