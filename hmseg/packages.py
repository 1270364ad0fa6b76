"""Our three packages, found by name; where something else has taken a name, which file that is.

`lut` and `deploy` are words that others use too. A folder of that name beside a user's script comes
before ours, and Python would only say that it has no `runtime`. Imports none of them at its top.
"""

import importlib
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).parent.parent
_NEEDED = {"lut": ("lut",), "hmseg": ("lut",), "deploy": ("lut", "deploy")}


def own_module(name: str) -> ModuleType:
    """Import one of our modules by its full name. Raises UserError, with `hidden`'s line, where
    Python would import another."""
    if message := hidden(name):
        raise _user_error()(message)
    return importlib.import_module(name)


def hidden(name: str) -> str | None:
    """What stands in the way of importing one of our modules, in a line; None for nothing."""
    for package in _NEEDED[name.partition(".")[0]]:
        if (other := _other(package)) is not None:
            return (
                f"Python finds {other} under the name {package!r}, which hides a package of hmseg: "
                "rename it, or take the folder that it lies in off Python's path"
            )
    return None


def run_hmseg() -> None:
    """Entry point of the program of that name."""
    _run("deploy.cli.hmseg")


def run_hmseg_deploy() -> None:
    """Entry point of the other program."""
    _run("deploy.cli.hmseg_deploy")


def _run(name: str) -> None:
    if message := hidden(name):
        sys.exit(_refuse(message))
    importlib.import_module(name).main()


def _refuse(message: str) -> int:
    """As the programs themselves refuse, which cannot be imported."""
    print(f"error: {message}", file=sys.stderr)
    return 2


def _other(package: str) -> str | None:
    """The file or folder that Python takes for a package of ours, if it is not ours."""
    try:
        spec = find_spec(package)
    except ValueError:  # made by hand, without a file
        return str(sys.modules[package])
    if spec is None:
        return None  # neither is there: the import says so
    folders = list(spec.submodule_search_locations or ())
    found = folders[0] if folders else str(spec.origin)
    ours = _FOLDER / package  # all three are installed side by side
    return None if Path(found).resolve() == ours.resolve() else found


def _user_error() -> type[ValueError]:
    """`lut.errors.UserError`, read from its file where `lut` is what is hidden."""
    if _other("lut") is None:
        from lut.errors import UserError

        return UserError
    spec = spec_from_file_location("lut.errors", _FOLDER / "lut" / "errors.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    kind: type[ValueError] = module.UserError
    return kind
