"""Reads damaged files in a process of its own, which may take so much memory and no more.

    python -m tests.fuzz.worker KIND FIRST STEP END

reads the files FIRST, FIRST + STEP, ... before END. Says on stdout which file it is at, and what
came of it, a line of JSON each.
"""

import json
import os
import re
import resource
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from tests.fuzz.kinds import KINDS

LIMIT_BYTES = 1 << 30


def read(name: str, path: Path) -> str | None:
    """What escapes when a file is read: a traceback; None where it is taken, or refused in one
    line."""
    from lut.errors import HmsegError

    try:
        KINDS[name].read(path)
    except HmsegError as error:
        return None if str(error).strip() else "an error without a word"
    except BaseException:
        return traceback.format_exc()
    return None


def peak() -> int:
    """The most bytes that this process has held in memory. Not by getrusage: on Linux that counts
    what the process held that started this one, before exec."""
    (line,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    return int(line) << 10


def main(arguments: list[str]) -> None:
    """See above."""
    name, (first, step, end) = arguments[0], map(int, arguments[1:])
    answer = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    warnings.simplefilter("ignore")
    kind = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged{kind.suffix}"
        for number in range(first, end, step):
            path.write_bytes(kind.file(number))
            answer.write(json.dumps({"begun": number}) + "\n")
            escaped = read(name, path)
            answer.write(json.dumps({"read": number, "escaped": escaped, "bytes": peak()}) + "\n")
    answer.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
