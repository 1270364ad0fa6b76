"""What hides a package of ours is named in one line, by the library and by the programs."""

import subprocess
import sys
import tomllib
from importlib import import_module

import pytest

from hmseg.packages import hidden, own_module
from lut.errors import UserError
from tests.conftest import ROOT

# Of a user: the script lies beside what hides ours, which its folder puts first.
SCRIPT = """
import hmseg

try:
    hmseg.load
except ValueError as error:
    print(type(error).__module__, type(error).__name__, error)
try:
    print(len(hmseg.list_models()) > 1)
except ValueError as error:
    print(type(error).__name__)
"""
# As the file that pip writes for an entry point.
PROGRAM = "import sys; from hmseg.packages import {0}; sys.exit({0}())"


def start(*arguments, folder, path=()):
    """Python in a folder outside the checkout, with the checkout behind the other folders."""
    places = ":".join(map(str, [*path, ROOT]))
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True,
        check=False, env={"PYTHONPATH": places, "PATH": ""},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("deploy.py", "deploy.py"),
        ("deploy/__init__.py", "deploy"),
        ("lut.py", "lut.py"),
        ("lut/__init__.py", "lut"),
    ],
)
def test_what_lies_beside_a_users_script(tmp_path, file, found):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("HERE = True\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = start(tmp_path / "script.py", folder=tmp_path)
    assert done.stderr == ""
    name = found.removesuffix(".py")
    first, second = done.stdout.splitlines()
    assert first == (
        f"lut.errors UserError Python finds {tmp_path / found} under the name {name!r}, which "
        "hides a package of hmseg: rename it, or take the folder that it lies in off Python's path"
    )
    # What needs no package that is hidden goes on.
    assert second == ("True" if name == "deploy" else "UserError")


def test_a_folder_without_an_init_where_ours_comes_from_a_finder(tmp_path):
    """As an editable installation has it: such a folder comes first there."""
    (tmp_path / "deploy").mkdir()
    code = (
        "import hmseg, lut, sys\n"
        f"sys.path[:] = [{str(tmp_path)!r}] + [p for p in sys.path if p != {str(ROOT)!r}]\n"
        "hmseg.load"
    )
    done = start("-P", "-c", code, folder=tmp_path)
    assert f"UserError: Python finds {tmp_path / 'deploy'} under the name 'deploy'" in done.stderr


def test_what_was_imported_before(monkeypatch):
    monkeypatch.setitem(sys.modules, "deploy", type(sys)("deploy"))  # made by hand: no file
    with pytest.raises(UserError, match="Python finds <module 'deploy'> under the name 'deploy'"):
        own_module("deploy.runtime")
    assert hidden("hmseg.zoo") is None


def test_nothing_is_in_the_way():
    assert hidden("deploy.runtime") is None
    assert own_module("deploy.runtime") is import_module("deploy.runtime")


@pytest.mark.parametrize("entry", ["run_hmseg", "run_hmseg_deploy"])
def test_the_programs_say_it_too(tmp_path, entry):
    other = tmp_path / "other"
    other.mkdir()
    (other / "deploy.py").touch()
    done = start("-c", PROGRAM.format(entry), folder=tmp_path, path=[other])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: Python finds {other / 'deploy.py'} under the name")
    assert done.stderr.count("\n") == 1


def test_the_programs_that_are_installed_begin_here():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"hmseg", "hmseg-deploy"}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))
