"""Running a list of passes, told one by one, and the module after each for who wants to read it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import tvm

from lut.files import write_atomic

Pass: TypeAlias = tvm.transform.Pass
OnPass: TypeAlias = Callable[[str], None]


def run_passes(
    module: tvm.IRModule,
    passes: Sequence[Pass],
    on_pass: OnPass | None = None,
    dump: Path | None = None,
) -> tvm.IRModule:
    """A module after every pass, in order.

    `on_pass` is told the name of each pass before it runs, also of those that run inside one. In
    the folder `dump`, where there is one, ``00-import.py`` is the module before the first pass and
    ``NN-NAME.py`` the one after pass NN, in TVM's script, without the values of its constants.
    Raises UserError where they cannot be written.
    """
    _dump(module, dump, 0, "import")
    with tvm.transform.PassContext(instruments=[_Watch(on_pass)] if on_pass else []):
        for number, step in enumerate(passes, 1):
            module = step(module)
            _dump(module, dump, number, step.info.name)
    return module


def passes_before(name: str, passes: Sequence[Pass]) -> list[Pass]:
    """The first passes of a list, without the one of this name and all behind it. Raises ValueError
    where there is none."""
    names = [step.info.name for step in passes]
    return list(passes[: names.index(name)])


def _dump(module: tvm.IRModule, folder: Path | None, number: int, name: str) -> None:
    if folder is not None:
        text = module.script(show_meta=False)
        write_atomic(folder / f"{number:02}-{name.rpartition('.')[2]}.py", text + "\n")


@tvm.instrument.pass_instrument
class _Watch:
    """Reports the names of the passes as they start."""

    def __init__(self, on_pass: OnPass) -> None:
        self.on_pass = on_pass

    def run_before_pass(self, _module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
        self.on_pass(info.name)
