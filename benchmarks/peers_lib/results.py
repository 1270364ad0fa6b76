"""The results file: JSON Lines, one whole configuration a line, the last one of a key counts."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers_lib.job import Config
from lut.errors import UserError

Record = dict[str, Any]


def default_path(cpu: str) -> Path:
    """``benchmarks/results/peers-<cpu>.jsonl``."""
    slug = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    return Path(__file__).parents[1] / "results" / f"peers-{slug}.jsonl"


def read_records(path: Path) -> list[Record]:
    """Every record of a file, none where there is no file.

    A last line without its end was torn by a kill: it is dropped with a warning. Raises UserError
    for any other line that is not a record.
    """
    if not path.exists():
        return []
    text = path.read_text()
    lines = text.split("\n")
    torn = lines.pop()
    if torn:
        print(f"{path}: the last line is torn and is dropped", file=sys.stderr)
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            Config(**record["config"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: line {number} is not a record ({error})") from error
        records.append(record)
    return records


def append_record(path: Path, record: Record) -> None:
    """Add one record and sync it; a torn last line is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def latest(records: list[Record]) -> dict[Config, Record]:
    """The last record of each configuration."""
    return {Config(**record["config"]): record for record in records}


def is_done(record: Record | None, wanted: Record) -> bool:
    """Whether a record answers the same question: same compiler, peers and protocol."""
    return record is not None and all(
        record.get(key) == wanted[key] for key in ("deploy", "requested", "protocol")
    )
