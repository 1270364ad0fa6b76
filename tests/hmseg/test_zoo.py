import subprocess
import sys

import pytest

import hmseg
from hmseg import zoo
from hmseg.mrms import MRMSConfig
from lut.errors import UserError


def test_names():
    assert {"mrms", "tiny-mrms", "mrms-a", "mrms-b", "mrms-c"} <= set(hmseg.list_models())


def test_unknown_name_says_the_nearest():
    with pytest.raises(UserError, match="did you mean tiny-mrms"):
        hmseg.create_model("tinymrms")


def test_a_name_is_registered_once():
    with pytest.raises(UserError, match="registered"):
        zoo.register("mrms", MRMSConfig(), "again")


def test_weights_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="imagenet"):
        hmseg.create_model("tiny-mrms", pretrained="imagenet")


def test_importing_hmseg_does_not_import_torch():
    code = "import sys, hmseg; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_attribute():
    with pytest.raises(AttributeError):
        _ = hmseg.nothing
