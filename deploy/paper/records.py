"""What was measured, a line for each network: appended, never changed.

A line says of itself all that it means: ``"kind": "paper"``, the network, its size and counts, what
it was measured on (`Setting`), and the result with its raw samples, or why there is none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.artifact import TVM
from deploy.bench import OURS
from deploy.paper.jobs import Job
from deploy.resolution import parse_resolution
from lut import jsonl
from lut.errors import UserError
from lut.json_text import check_types, checked, is_number, texts_by_name
from lut.provenance import Provenance

KIND, VERSION = "paper", 1
FILE = "paper.jsonl"
HERE = "this machine"


@dataclass(frozen=True)
class Setting:
    """What a latency depends on besides the network. Equal whatever the dates."""

    target: str  # `Target.key`
    target_name: str
    threads: int  # 0 where there are none
    place: str  # HERE, or the device's name
    provenance: Provenance

    def to_json(self) -> dict[str, Any]:
        """JSON fields."""
        return vars(self) | {"provenance": self.provenance.to_json()}

    @staticmethod
    def from_json(values: Any) -> "Setting":  # noqa: ANN401 - any JSON
        """Read `to_json`'s fields; raises UserError naming one that is wrong."""
        known = checked(Setting, values)
        return Setting(**known | {"provenance": Provenance.from_json(known["provenance"])})

    @property
    def machine(self) -> str:
        """What it runs on, whatever the versions: of two devices of one kind each by its name."""
        there = "" if self.place == HERE else f", {self.place}"
        return f"{self}, {self.target_name}{there}"

    def __str__(self) -> str:
        """For a title."""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.provenance.cpu}{threads}{', 1 thread' if self.threads == 1 else ''}"


@dataclass(frozen=True)
class Record:
    """One network on one setting: `result` is `BenchResult.to_json`, None where it `failed`."""

    job: Job
    setting: Setting
    macs: int
    parameters: int
    weights: str
    date: str
    seconds: dict[str, float]  # of opening it, compiling and checking it, timing it
    result: dict[str, Any] | None = None
    failed: str = ""

    def to_json(self) -> dict[str, Any]:
        """The line of the file."""
        return {
            "kind": KIND, "version": VERSION, **self.job.to_json(),
            "macs": self.macs, "parameters": self.parameters, "weights": self.weights,
            "date": self.date, "seconds": self.seconds, "setting": self.setting.to_json(),
            "result": self.result, "failed": self.failed,
        }  # fmt: skip

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Record":
        """Read a line; raises UserError naming a field that is missing or wrong."""
        if values.get("kind") != KIND:
            raise UserError(f"a line of the kind {values.get('kind')!r}, not {KIND!r}")
        if values.get("version") != VERSION:
            raise UserError("a newer program may have written it")
        inner = ("network", "resolution", "classes", "profiled")
        own = ("macs", "parameters", "weights", "date", "seconds", "result", "failed")
        for name in (*inner, *own, "setting"):
            if name not in values:
                raise UserError(f"the field {name!r} is missing")
        check_types(Record, values)
        check_types(Job, values)
        if values["result"] is not None:
            _check_result(values["result"], values["profiled"])
        job = {name: values[name] for name in inner}
        job["resolution"] = parse_resolution(str(job["resolution"]))
        return Record(
            Job(**job),
            setting=Setting.from_json(values["setting"]),
            **{name: values[name] for name in own},
        )

    @property
    def samples(self) -> dict[str, list[list[int]]]:
        """Nanoseconds of every call of each side, a list for each round; none where it failed."""
        found: dict[str, list[list[int]]] = self.result["samples_ns"] if self.result else {}
        return found

    @property
    def left_to_tvm(self) -> float | None:
        """The share of a frame's kernels that TVM's own lowering made, by time. None where the line
        does not say: of a GPU, and of a line from before it was kept that has no profile."""
        result = self.result or {}
        if "left_to_tvm" in result:
            return float(sum(result["left_to_tvm"].values()))
        kernels = (result.get("profile") or {}).get("kernels")
        if not kernels:
            return None
        total = sum(kernel["median_ms"] for kernel in kernels) or 1.0
        left = sum(kernel["median_ms"] for kernel in kernels if kernel.get("template") == TVM)
        return float(left / total)

    @property
    def absent(self) -> dict[str, str]:
        """Peers that were not timed, and why."""
        found: dict[str, str] = (self.result or {}).get("absent", {})
        return found


class Found:
    """Some records in the order of their dates; the newest of a job counts."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.all = list(records)

    def newest(self, job: Job, *, failed: bool = True) -> Record | None:
        """The newest of a job, one with a profile also where none is asked for; `failed` ones
        where none was measured."""
        fits = [record for record in self.all if serves(record.job, job)]
        done = [record for record in fits if record.result is not None]
        best = done or (fits if failed else [])
        return best[-1] if best else None

    def settings(self) -> list[Setting]:
        """Each once, in the order of their newest records: what was measured last stands last."""
        newest_first = dict.fromkeys(record.setting for record in reversed(self.all))
        return list(reversed(newest_first))

    def of(self, setting: Setting) -> "Found":
        """Those of one setting."""
        return Found([record for record in self.all if record.setting == setting])


class Records(Found):
    """The lines of one file. Raises UserError for one that is damaged or of another kind."""

    def __init__(self, path: Path) -> None:
        super().__init__(list(_read(path)))
        self.path = path

    def append(self, record: Record) -> None:
        """It is on disk when this returns; raises UserError where it cannot be written."""
        jsonl.append_record(self.path, record.to_json())
        self.all.append(record)


def _check_result(result: Any, profiled: bool) -> None:  # noqa: ANN401 - any JSON
    """Raise UserError for what no table can be made of."""
    samples = result.get("samples_ns") if isinstance(result, dict) else None
    if not isinstance(samples, dict) or (samples and OURS not in samples):
        raise UserError(f"the result has no samples of {OURS}")
    rounds = len(samples.get(OURS, ()))
    for side, blocks in samples.items():
        if not isinstance(blocks, list) or len(blocks) != rounds or not all(map(_is_block, blocks)):
            raise UserError(f"the samples of {side!r} are no rounds such as ours")
    texts_by_name("the absent peers", result.get("absent", {}))
    left = result.get("left_to_tvm", {})
    if not isinstance(left, dict) or not all(map(is_number, left.values())):
        raise UserError("what is left to TVM has no shares")
    if not profiled:
        return
    profile = result.get("profile")
    kernels = profile.get("kernels") if isinstance(profile, dict) else None
    if not isinstance(kernels, list) or not is_number(profile.get("frame_ms")):
        raise UserError("the profile is missing")
    for kernel in kernels:
        known = isinstance(kernel, dict) and isinstance(kernel.get("spec"), str)
        if not known or not is_number(kernel.get("median_ms")):
            raise UserError("a kernel of the profile has no operation or no time")


def _is_block(block: Any) -> bool:  # noqa: ANN401
    return isinstance(block, list) and bool(block) and all(is_number(ns) and ns > 0 for ns in block)


def serves(found: Job, wanted: Job) -> bool:
    """Whether what was measured is what is wanted, or the same with a profile."""
    what = (wanted.network, wanted.resolution, wanted.classes)
    return (found.network, found.resolution, found.classes) == what and (
        found.profiled or not wanted.profiled
    )


def _read(path: Path) -> Iterator[Record]:
    for number, line in enumerate(jsonl.read_records(path), 1):
        try:
            yield Record.from_json(line)
        except (UserError, TypeError) as error:
            raise UserError(f"{path}, line {number}: {error}; name another folder") from error
