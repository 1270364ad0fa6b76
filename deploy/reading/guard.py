"""Reading a file in a process of its own, which may take so much memory and time and no more.

What a file says can make ONNX's and onnxruntime's libraries crash, or ask for any memory. Whatever
happens there, the program that asked goes on, with one line.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import IO

import onnx

from deploy.reading.file import check, complete, parse, size_on_disk
from deploy.reading.graph import Graph
from deploy.reading.normalise import normalise
from deploy.reading.text import plain
from deploy.resolution import Resolution
from lut.errors import UserError

try:
    import resource
except ImportError:  # a system without such limits
    resource = None  # type: ignore[assignment]

# Beside four times what the file takes: to take it apart, and to work on what is in it then.
_PARSING_BYTES, _SPARE_BYTES = 256 << 20, 640 << 20
_SECONDS, _BYTES_PER_SECOND = 12, 64 << 20  # of CPU time
_LONGEST_WAIT = 20  # times as long may pass until then, on a busy machine
_START = "import sys; sys.path[:] = {path!r}; from deploy.reading.guard import main; main()"
_TOO_MUCH = "reading it takes more memory than a network of its size needs"
_TOO_LONG = "reading it takes more time than a network of its size needs"
_ANEW = "; it is damaged, or made to do so: export the network anew"


class EndedError(UserError):
    """Reading took too much, or ended its process."""


def read_apart(path: Path, resolution: Resolution | None) -> Graph:
    """The normal form of a file, made in a process of its own.

    Raises UserError for what cannot be read (as `deploy.reading.file.open_file` and
    `deploy.reading.normalise.normalise`), and EndedError where reading takes too much memory or
    time.
    """
    folders = [folder for folder in sys.path if folder]
    command = [sys.executable, "-P", "-c", _START.format(path=folders), str(path.absolute())]
    command += [str(side) for side in resolution or ()]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
            env=os.environ | one_thread,
        )  # fmt: skip
        timer = Timer(_SECONDS * _LONGEST_WAIT, process.kill)
        timer.start()
        try:
            assert process.stdout
            with process.stdout as answer:
                graph, message = pickle.load(answer)
        except (EOFError, pickle.UnpicklingError):
            graph, message = None, _why_it_ended(process.wait(), _last_line(stderr))
        finally:
            timer.cancel()
            process.kill()
            process.wait()
    if graph is None:
        raise (EndedError if message.endswith(_ANEW) else UserError)(message)
    assert isinstance(graph, Graph)
    return graph


def main() -> None:
    """What the process does: reads the file that its arguments name, and answers on stdout."""
    path, sides = Path(sys.argv[1]), [int(side) for side in sys.argv[2:]]
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the libraries print is no answer
    found: tuple[Graph | None, str]
    try:
        _limit(path)
        found = (read_here(path, Resolution(*sides) if sides else None, _limit), "")
    except UserError as error:
        found = (None, str(error))
    except MemoryError:
        found = (None, _TOO_MUCH + _ANEW)
    with answer:
        pickle.dump(found, answer, protocol=pickle.HIGHEST_PROTOCOL)
    os._exit(0)  # a library's clean-up can neither fail nor take time now


def read_here(
    path: Path, resolution: Resolution | None,
    bound: Callable[[Path, onnx.ModelProto], None] = lambda _path, _model: None,
) -> Graph:  # fmt: skip
    """The normal form of a file, made in this process, which `bound` allows what weights in other
    files need. Raises UserError."""
    try:
        model = parse(path)
        bound(path, model)
        file = complete(path, model, resolution)
        check(file.model)
        graph = normalise(file)
        file.session()
    except UnicodeDecodeError as error:  # protobuf looks at a text when it is asked for
        raise UserError("it has names that are no text; it is damaged: export it anew") from error
    return graph


def _limit(path: Path, model: onnx.ModelProto | None = None) -> None:
    """Bound what this process may take to read a file and, once that is parsed, its weights'."""
    size = size_on_disk(path, model) if path.is_file() else 0
    spare = _SPARE_BYTES if model else _PARSING_BYTES
    if resource is not None:
        seconds = _SECONDS + size // _BYTES_PER_SECOND
        for kind, limit in (
            (resource.RLIMIT_DATA, spare + 4 * size),
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            if hard == resource.RLIM_INFINITY or limit < hard:
                resource.setrlimit(kind, (limit, hard))


def _why_it_ended(code: int, last_line: str) -> str:
    """In words, for a process that gave no answer."""
    if -code in (signal.SIGXCPU, signal.SIGKILL):
        return _TOO_LONG + _ANEW
    if any(word in last_line for word in ("MemoryError", "bad_alloc", "length_error")):
        return _TOO_MUCH + _ANEW
    how = signal.Signals(-code).name if code < 0 else plain(last_line, 150)
    return f"reading it ends ONNX's libraries ({how}){_ANEW}"


def _last_line(stderr: IO[bytes]) -> str:
    stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, stderr.tell() - 2000))
    return stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
