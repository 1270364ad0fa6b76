"""`import hmseg` is enough, and imports what it hands on when that is used."""

import subprocess
import sys

import pytest

import hmseg
from deploy.compile import compile_model
from deploy.runtime import load
from hmseg import zoo
from lut import errors


def test_what_it_hands_on():
    handed = {name: getattr(hmseg, name) for name in hmseg.__all__}
    assert handed == {
        "HmsegError": errors.HmsegError,
        "UserError": errors.UserError,
        "WorkError": errors.WorkError,
        "compile": compile_model,
        "create_model": zoo.create_model,
        "list_models": zoo.list_models,
        "load": load,
    }
    assert set(hmseg.__all__) <= set(dir(hmseg))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("hmseg.load", "numpy"),
        ("hmseg.list_models(); hmseg.UserError", ""),
        ("hmseg.compile", "numpy"),
    ],
)
def test_only_what_is_used_is_imported(code, expected):
    heavy = {"torch", "tvm", "tvm_ffi", "onnx", "onnxruntime", "numpy", "PIL", "typer", "rich"}
    text = f"import sys, hmseg; {code}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
