"""The versions that belong together; a wrong pair of apache-tvm and apache-tvm-ffi crashes in
tests/deploy/tuning/test_metaschedule.py."""

import tomllib
from importlib.metadata import version

from tests.conftest import ROOT


def test_the_pins_of_the_project_are_what_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = dict(d.split("==") for d in project["project"]["dependencies"] if "==" in d)
    assert set(pins) == {"torch", "apache-tvm", "apache-tvm-ffi"}
    for package, pinned in pins.items():
        assert version(package).partition("+")[0] == pinned
