from dataclasses import replace

import pytest

from deploy.artifact import NoCode
from deploy.cpu.loaded import LoadedLibrary
from deploy.loaders import load_code
from deploy.runtime import open_artifact
from lut.errors import UserError


def test_a_library(small_artifact):
    assert isinstance(load_code(small_artifact, "n", 2), LoadedLibrary)


def test_code_that_nothing_loads(small_artifact):
    """Such as a draft's; tests/deploy/gpu/test_network.py loads programs for GPUs."""
    with pytest.raises(UserError, match="n: there is nothing here that loads NoCode"):
        open_artifact(replace(small_artifact, code=NoCode()), "n")
