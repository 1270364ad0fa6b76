"""How the programs speak: data on stdout, progress and prose on stderr, one line per error."""

import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer

from lut.errors import HmsegError, HmsegWarning
from lut.files import NO_HOME

SILENT_S = 10.0  # without a line, where there is no terminal to see the spinner on
_INTERRUPTED = 130
_PYTHONS_FORMAT = warnings.formatwarning


def run_program(app: typer.Typer) -> None:
    """Run a program and exit (see `run_main`). It is called by its name however it was started:
    help, and the variable by which a shell asks for completions, have it."""
    run_main(
        lambda: app(sys.argv[1:] or ["--help"], prog_name=app.info.name, standalone_mode=False)
    )


def add_version(app: typer.Typer) -> None:
    """Give a program the option --version."""

    def show(asked: bool) -> None:
        if asked:
            from importlib.metadata import version  # late: it reads the installed packages

            print(f"{app.info.name} {version('hmseg')}")
            raise typer.Exit

    @app.callback()
    def program(
        version: Annotated[
            bool,
            typer.Option("--version", help="Show the version.", is_eager=True, callback=show),
        ] = False,
    ) -> None:
        del version


def run_main(main: Callable[[], object]) -> None:
    """Run a program's main function, here or a script's, and exit: 0 done, 1 failed, 2 the user's
    mistake, 130 interrupted; another number is what it returns."""
    warnings.formatwarning = _format_warning
    _mend_streams()
    # Pillow's, of pictures that are read all the same.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if home := os.environ.get("HMSEG_HOME"):
        os.environ.setdefault("XDG_CACHE_HOME", home)  # TVM asks for a home when it is imported
    try:
        code = main()
        sys.stdout.flush()  # here, where a full disk can still be reported
    except HmsegError as error:
        from deploy.cli.advice import explain

        _fail(explain(error), error.exit_code)
    except typer.TyperException as error:
        _fail(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        _discard_stdout()
        sys.exit(0)  # the reader of our stdout has left (head, less): not an error of ours
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        _discard_stdout()
        sys.exit(0)  # the same, but typer saw it first and makes it an exit with 1
    except OSError as error:
        _discard_stdout()
        _fail(f"cannot write the output: {error.strerror or error}", 2)
    except RuntimeError as error:
        if "home directory" not in str(error):  # Path.home(), when TVM is imported
            raise
        _fail(NO_HOME, 2)
    except MemoryError:
        _fail("out of memory; choose a smaller resolution", 2)
    if code == _INTERRUPTED:  # typer swallows the KeyboardInterrupt of a command
        _fail("interrupted", _INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def say(text: str) -> None:
    """Prose for a person, on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """A text, which may hold names from any file, without what a terminal would obey or cannot
    show: that is written as escapes. Line breaks stay."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def print_line(text: str) -> None:
    """Data on stdout as it is made: the work goes on where its reader has left."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _discard_stdout()


def print_json(data: object) -> None:
    """Data for a program, on stdout."""
    print(json.dumps(data, indent=1))


class Step:
    """One long step: a spinner on a terminal, a line with its seconds when it ends."""

    def __init__(self, title: str, update: Callable[[str], None]) -> None:
        self.title, self._update = title, update
        self.result = ""  # appended to the closing line
        self._start = self._told = time.perf_counter()

    def at(self, detail: str) -> None:
        """Show what the step is doing now."""
        self._update(f"{self.title}: {detail}")

    def tell(self, detail: str) -> None:
        """`at`, and a line of its own where there is no terminal: for steps of minutes."""
        self.at(detail)
        self._told = time.perf_counter()
        if not sys.stderr.isatty():
            say(f"{self._told - self._start:7.0f} s  {detail}")

    def tell_at_times(self, detail: str) -> None:
        """`at`, and `tell` where it was silent for a while: for steps that may take minutes, and
        say much."""
        late = time.perf_counter() - self._told >= SILENT_S
        (self.tell if late else self.at)(detail)


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Show progress of a block on stderr."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    start = time.perf_counter()
    with console.status(printable(title)) as status:
        current = Step(title, lambda detail: status.update(printable(detail)))
        yield current
    seconds = time.perf_counter() - start
    ending = f"  {current.result}" if current.result else ""
    line = printable(f"{title:<42}{seconds:6.1f} s{ending}")
    console.print(line, soft_wrap=True, markup=False)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout; the first column is text, the others are right-aligned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=printable(title), title_justify="left", title_style="", box=None, pad_edge=False,
        padding=(0, 2, 0, 0),
    )  # fmt: skip
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    # Piped, a table is as wide as it is: wrapping or cutting would lose data.
    width = None if sys.stdout.isatty() else 400
    Console(highlight=False, width=width, markup=False).print(table)


def _mend_streams() -> None:
    """Streams that can be written to. A name that the terminal has no letters for, or that is no
    text, is shown in escapes; what goes to a stdout that is closed fails when it is flushed, as on
    a full disk."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # else the next file that is opened would take its place
            held = os.open(os.devnull, os.O_RDONLY if name != "stderr" else os.O_WRONLY)
            if held != number:
                os.dup2(held, number)
                os.close(held)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        sys.stderr = _Prose(
            sys.stderr.buffer, sys.stderr.encoding, "backslashreplace", line_buffering=True
        )


class _Prose(io.TextIOWrapper):
    """A stderr that no work stops for, where its disk is full or its reader has left."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def _discard_stdout() -> None:
    """Keep Python from flushing into a closed or full stdout once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    line: str | None = None,
) -> str:  # fmt: skip
    """Warnings of ours are prose; the place in the source is of use for others only."""
    if issubclass(category, HmsegWarning):
        return f"warning: {message}\n"
    return _PYTHONS_FORMAT(message, category, filename, lineno, line)


def _fail(message: str, code: int) -> None:
    say("error: " + " ".join(message.split()))
    sys.exit(code)
