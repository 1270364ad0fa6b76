"""hmseg-deploy upgrade."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.console import print_line, say
from lut.errors import UserError, WorkError
from lut.jsonl import read_records, stored
from lut.table_file import FORMAT


def upgrade(
    files: Annotated[
        list[Path], typer.Argument(help="Latency tables and files of tuning records.")
    ],
) -> None:
    """Carry tables and records of earlier versions over.

    Latency tables and tuning records, to this version. Each file is rewritten in place, whole or
    not at all; what was measured stays as it is. One broken file of several does not stop the
    others.
    """
    failed = 0
    for path in files:
        try:
            count = _carry_over(path)
        except UserError as error:
            if len(files) == 1:
                raise
            failed += 1
            say(f"failed: {error}")
            continue
        done = "is of this version already" if count is None else f"carried over: {count} records"
        print_line(f"{path}: {done}")
    if failed:
        raise WorkError(f"{failed} of {len(files)} files failed")


def _carry_over(path: Path) -> int | None:
    found = stored(path)
    if found is None:
        raise UserError(f"{path}: no such file")
    # One that is packed is rewritten so.
    if any(record.get("kind") == FORMAT for record in read_records(found)[:1]):
        from lut.upgrade import upgrade_table

        return upgrade_table(found)
    from deploy.tuning.upgrade import upgrade_tuning

    return upgrade_tuning(found)
