"""Which command helps: from the data in an error to what its user can type."""

import shlex

from hmseg.mend import NameTable, Resume, Train
from lut.errors import HmsegError
from lut.table import Identity, Measure, Merge, Retime
from lut.table_file import CarryOver


def explain(error: HmsegError) -> str:
    """An error's message, and behind it the command that helps where there is one."""
    return str(error) if error.mend is None else f"{error}: {advice(error.mend)}"


def advice(mend: object) -> str:
    """The command behind an error's `mend`; raises TypeError for one that is not known here."""
    match mend:
        case Measure(None, path):
            return f"hmseg-deploy lut build -o {shlex.quote(path)}"
        case Measure(Identity() as identity, path):
            return build_command(identity, path)
        case Merge(tables):
            return f"hmseg-deploy lut merge --force {shlex.join(tables)} -o MERGED.jsonl"
        case Retime(path):
            return f"hmseg-deploy lut calibrate {shlex.quote(path)} -o CALIBRATED.jsonl"
        case CarryOver(path):
            return f"hmseg-deploy upgrade {shlex.quote(path)}"
        case NameTable():
            return "--cost TABLE.jsonl names one, hmseg-deploy lut build makes one"
        case Resume(work):
            return f"hmseg {work} --resume, with the options that it was started with"
        case Train(model, data):
            return f"hmseg train --model {shlex.quote(model)} --dataset {data}"
    raise TypeError(f"no command is known for {mend!r}")


def build_command(identity: Identity, path: str) -> str:
    """The command that measures what a table lacks, on the machine that the table is of."""
    what = (
        f"hmseg-deploy lut build --target {shlex.quote(identity.target_text)} --resolution "
        f"{identity.resolution} --width {identity.width:g}"
    )
    place = f"-o {shlex.quote(path)}"
    if not identity.threads:
        precision = f" --precision {identity.precision}" if identity.precision else ""
        return f"{what}{precision} {place}"
    device = "(with --device or --rpc-key where it is a table of a device)"
    return f"{what} --threads {identity.threads} {place} {device}"
