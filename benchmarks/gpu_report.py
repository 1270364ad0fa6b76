"""The results of benchmarks/gpu.sh: where they come from, their file, and the bars for them."""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lut.files import write_atomic

if TYPE_CHECKING:
    from deploy.gpu.driver import Driver

ROOT = Path(__file__).parents[1]
PACKAGES = ("hmseg", "apache-tvm", "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "numpy")
PASSING = ("date", "command")  # of the provenance: may differ between starts
BAR_RESOLUTIONS = ("768x1536", "1024x2048")
MOST_OVER_FLOOR = 3.0
UNKNOWN = "unknown"

Row = dict[str, Any]
Key = tuple[str, str, str]  # model, digest of its file, resolution


def provenance(driver: "Driver", options: argparse.Namespace) -> dict[str, Any]:
    """The machine, the software and the protocol of a start. Raises UserError without NVRTC."""
    from benchmarks.peers_lib.adapters import deploy_digest
    from deploy import host
    from deploy.gpu.nvrtc import toolkit_version

    versions = {"cuda-nvrtc": toolkit_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "benchmarks/gpu.sh " + " ".join(sys.argv[1:]),
        "commit": (_git("rev-parse", "HEAD") or UNKNOWN).strip(),
        "dirty": _dirty(),
        "deploy": deploy_digest(),
        "versions": versions,
        # Two packages bring the module; where both are installed either may be what runs.
        "onnxruntime_packages": sorted(packages_distributions().get("onnxruntime", [])),
        "cpu": host.cpu_model(),
        "gpu": driver.name,
        "precision": options.precision,
        "capability": driver.capability,
        "driver_cuda": driver.version,
        "protocol": {
            name: getattr(options, name) for name in ("tune_seconds", "rounds", "repeat")
        },
    }  # fmt: skip


def _dirty() -> str:
    """Whether tracked files other than results differ from the commit, and then a digest of how."""
    changes = _git("diff", "HEAD", "--", ".", ":!benchmarks/results")
    if changes is None:
        return UNKNOWN
    return f"yes, {hashlib.sha256(changes.encode()).hexdigest()[:16]}" if changes else "no"


def _git(*arguments: str) -> str | None:
    """What git prints; None without git or outside of a repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, errors="replace", check=False,
            cwd=ROOT,
        )  # fmt: skip
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def key_of(row: Row) -> Key:
    """Which network at which size a row is of."""
    return row["model"], row["model_file"], row["resolution"]


@dataclass
class Results:
    """What DIR/gpu-NAME.json holds; `write` after every change."""

    path: Path
    provenance: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    table: dict[str, Any] | None = None
    left_out: dict[str, str] = field(default_factory=dict)  # why, by what
    errors: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Rewrite the file, whole or not at all."""
        result = {
            "provenance": self.provenance,
            "rows": self.rows,
            "table": self.table,
            "left_out": [f"{what}, {why}" for what, why in self.left_out.items()],
            "errors": self.errors,
            "bars": bars(self.rows),
        }
        write_atomic(self.path, json.dumps(result, indent=1).encode())


def take_up(path: Path, now: Mapping[str, Any], *, again: bool) -> tuple[list[Row], str]:
    """The rows of an earlier start that this one goes on with, and a line about them.

    Rows of another provenance, and with `again` any, stay in a file of their own beside it.
    """
    try:
        found = json.loads(path.read_text())
        before, rows = found["provenance"], list(found["rows"])
        names = ", ".join(f"{row['model']} {row['resolution']}" for row in rows)
        stamp = "".join(c for c in before["date"] if c.isalnum())
        for row in rows:
            key_of(row)
    except FileNotFoundError:
        return [], ""
    except (OSError, ValueError, KeyError, TypeError):
        aside = path.with_name(f"{path.stem}-unreadable.json")
        path.replace(aside)
        return [], f"{path} is not of this program: kept as {aside.name}"
    if not rows:
        return [], ""
    other = sorted(
        name for name in {*now, *before} - {*PASSING} if now.get(name) != before.get(name)
    )
    if not other and not again:
        return rows, f"goes on with {path}, which has {names} (--again measures all anew)"
    aside = path.with_name(f"{path.stem}-{stamp}.json")
    path.replace(aside)
    why = "--again" if not other else f"another {', '.join(other)}"
    return [], f"measures all anew ({why}): the rows before are kept in {aside.name}"


def bars(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The performance bars: `met` is None where no row says."""
    found = []
    for size in BAR_RESOLUTIONS:
        values = {
            row["model"]: min((r["median"] for r in row["ratios"].values()), default=None)
            for row in rows
            if row["resolution"] == size
        }
        found.append(_bar(f"the fastest peer's time / ours at {size}, at least 1", values, 1.0))
    over = {f"{row['model']} {row['resolution']}": row["compute_over_floor"] for row in rows}
    name = f"compute / memory floor, at most {MOST_OVER_FLOOR:g}"
    found.append(_bar(name, over, MOST_OVER_FLOOR, most=True))
    return found


def _bar(
    name: str, values: Mapping[str, float | None], limit: float, *, most: bool = False
) -> dict[str, Any]:
    known = [value for value in values.values() if value is not None]
    met = all(v <= limit if most else v >= limit for v in known) if known else None
    return {"bar": name, "met": met, "values": dict(values)}


def bar_line(bar: Mapping[str, Any]) -> str:
    """A bar in words; a row without a value had no peer."""
    word = {True: "met", False: "MISSED", None: "not measured"}[bar["met"]]
    values = ", ".join(
        f"{what} {'no peer ran' if value is None else f'{value:.2f}'}"
        for what, value in bar["values"].items()
    )
    return f"{bar['bar']}: {word}" + f" ({values})" * bool(values)
