"""Runs of `hmseg train` and `hmseg search` side by side: how fast each is, and an end for each."""

import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.peers_lib.worker import die_with_parent
from deploy.cli.console import say
from lut.jsonl import Record, TornLineWarning, read_records

ROOT = Path(__file__).parents[1]
HMSEG = (sys.executable, "-m", "deploy.cli.hmseg")
TRIES = 2  # a run that fails goes on once from its last checkpoint
GRACE_S = 5.0  # from SIGINT to SIGKILL
SAY_EVERY_S = 10.0
# What a run of a probe is told, in steps, and after how many a probe is over.
PROBE_LOG, PROBE_EVALUATE, PROBE_STEPS = 5, 25, 50


@dataclass
class Job:
    """A run: `command` is hmseg's, without -o and --resume."""

    name: str
    folder: Path
    command: list[str]
    steps: int
    tries: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begin, or go on where the folder has a checkpoint; what it prints goes beside it."""
        self.tries += 1
        resume = ["--resume"] if (self.folder / "last.safetensors").exists() else []
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.printed.open("ab") as printed:
            self.process = subprocess.Popen(
                [*HMSEG, *self.command, "-o", str(self.folder), *resume],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip

    @property
    def printed(self) -> Path:
        """What the run said."""
        return self.folder.with_name(f"{self.folder.name}.txt")

    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self.process is not None
        return self.process.poll()

    def why(self) -> str:
        """The last that a run said which has failed."""
        lines = self.printed.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"exit code {self.exit_code()}: {last}"

    def records(self) -> list[Record]:
        """Its log so far."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TornLineWarning)  # it is being written
            return read_records(self.folder / "log.jsonl")

    def step(self) -> int:
        """The last step in its log."""
        records = self.records()
        return int(records[-1]["step"]) if records else 0


@dataclass(frozen=True)
class Pace:
    """How fast a run is beside the others: until its first line in the log, then each step, and its
    evaluations, of which the first may be longer."""

    start_s: float
    step_s: float
    evaluations_s: tuple[float, ...] = ()

    def steps_in(self, seconds: float, evaluations: int = 0) -> int:
        """How many steps it takes in so long, with so many evaluations among them."""
        left = seconds - self.start_s
        if self.evaluations_s:
            left -= self.evaluations_s[0] + (evaluations - 1) * self.evaluations_s[-1]
        return max(0, int(left / self.step_s))


Seen = list[tuple[float, Record]]  # lines of a log, and when they were there


def pace_of(seen: Seen, began: float, together: float) -> Pace | None:
    """The pace of a run that began then, from when all were `together`; None where too little was
    seen."""
    steps, seconds, evaluations = 0, 0.0, []
    for (before, last), (now, record) in pairwise(seen):
        if "miou" in record:
            evaluations.append(now - before)
        elif before >= together:
            steps += record["step"] - last["step"]
            seconds += now - before
    if not steps or not seconds:
        return None
    return Pace(seen[0][0] - began, seconds / steps, tuple(evaluations))


def probe(jobs: Sequence[Job], until: float) -> tuple[dict[str, Pace], dict[str, str]]:
    """Run all at the same time until each has taken PROBE_STEPS: the pace of each by its name, and
    why others have none. They are stopped then; `until` is on time.monotonic's clock."""
    began = time.monotonic()
    seen: dict[str, Seen] = {job.name: [] for job in jobs}
    why: dict[str, str] = {}
    running = list(jobs)
    try:
        for job in jobs:
            job.start()
        while time.monotonic() < until and any(
            not seen[job.name] or seen[job.name][-1][1]["step"] <= PROBE_STEPS for job in running
        ):
            time.sleep(0.05)
            for job in list(running):
                code = job.exit_code()
                found, now = job.records(), time.monotonic()
                seen[job.name] += [(now, record) for record in found[len(seen[job.name]) :]]
                if code is not None:
                    why[job.name] = job.why()
                    running.remove(job)
    finally:
        stop(jobs)
    starts = [seen[job.name][0][0] for job in running if seen[job.name]]
    paces = {}
    for job in running:
        pace = pace_of(seen[job.name], began, max(starts, default=0.0))
        if pace:
            paces[job.name] = pace
        else:
            why[job.name] = f"too few steps in {time.monotonic() - began:.0f} s"
    return paces, why


def run(jobs: Sequence[Job], until: float, end: float) -> dict[str, str]:
    """Run all to their ends at the same time, and what has none by `until` until then; returns by
    name why a run did not end. `end` is that of the whole schedule; both as `probe`'s."""
    why: dict[str, str] = {}
    running, said = list(jobs), 0.0
    try:
        for job in jobs:
            job.start()
        while running and time.monotonic() < until:
            time.sleep(0.1)
            for job in list(running):
                code = job.exit_code()
                if code and job.tries < TRIES:
                    say(f"{job.name}: {job.why()}; it goes on from its last checkpoint")
                    job.start()
                elif code is not None:
                    running.remove(job)
                    if code:
                        why[job.name] = job.why()
                        say(f"{job.name}: {why[job.name]}")
            if running and time.monotonic() > said + SAY_EVERY_S:
                said = time.monotonic()
                at = ", ".join(f"{job.name} {job.step()} of {job.steps}" for job in running)
                say(f"{at}; {max(0.0, end - said) / 60:.1f} minutes left")
    finally:
        stop(running)
    for job in running:
        why[job.name] = f"interrupted near step {job.step()} of {job.steps}: no time is left"
    return why


def stop(jobs: Sequence[Job]) -> None:
    """Interrupt what runs, and kill what goes on; checkpoints are whole or not there."""
    running = [job.process for job in jobs if job.process and job.process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGINT)
    until = time.monotonic() + GRACE_S
    for process in running:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
