"""The commands behind what would help, and that there is one behind each."""

import inspect
import shlex
from dataclasses import is_dataclass, replace
from pathlib import Path

import pytest

import hmseg.mend
from deploy.cli.advice import advice, build_command, explain
from deploy.cli.hmseg import app as hmseg_app
from deploy.cli.hmseg_deploy import app as deploy_app
from hmseg.mend import NameTable, Resume, Train
from lut.errors import UserError
from lut.table import Identity, Measure, Merge, Retime
from lut.table_file import CarryOver
from tests.lut.tables import IDENTITY

MENDS = [
    Measure(None, "my tables/t.jsonl"),
    Measure(IDENTITY, "t.jsonl"),
    Merge(("a.jsonl", "my b.jsonl")),
    Retime("my table.jsonl"),
    CarryOver("my old.jsonl"),
    NameTable(),
    Resume("search", Path("found")),
    Resume("train", Path("run")),
    Train("mrms", "camvid"),
]
COMMANDS = {
    "hmseg": {command.name for command in hmseg_app.registered_commands},
    "hmseg-deploy": {command.name for command in deploy_app.registered_commands}
    | {group.name for group in deploy_app.registered_groups},
}


def test_every_kind_of_help_is_here():
    kinds = {kind for _, kind in inspect.getmembers(hmseg.mend, is_dataclass)} | {
        CarryOver,
        Measure,
        Merge,
        Retime,
    }
    assert {type(mend) for mend in MENDS} == kinds


@pytest.mark.parametrize("mend", MENDS)
def test_the_command_of_each_is_there(mend: object):
    words = shlex.split(advice(mend))
    program = next(word for word in words if word in COMMANDS)
    assert words[words.index(program) + 1] in COMMANDS[program]
    assert explain(UserError("it is missing", mend=mend)) == f"it is missing: {advice(mend)}"


def test_a_name_with_a_space_stays_one_word():
    assert shlex.split(advice(Measure(None, "my tables/t.jsonl")))[-1] == "my tables/t.jsonl"
    assert shlex.split(advice(MENDS[2]))[3:6] == ["--force", "a.jsonl", "my b.jsonl"]


def test_an_error_without_help_is_its_message():
    assert explain(UserError("it is missing")) == "it is missing"


def test_help_of_an_unknown_kind_is_a_mistake_of_ours():
    with pytest.raises(TypeError, match="no command is known for 'pray'"):
        advice("pray")


def test_a_target_that_was_given_as_json():
    identity = replace(IDENTITY, target_name="json", target='{"kind":"llvm","mcpu":"a b"}')
    words = shlex.split(build_command(identity, "my tables/t.jsonl"), comments=False)
    assert words[words.index("--target") + 1] == identity.target
    assert words[words.index("-o") + 1] == "my tables/t.jsonl"
    assert "--rpc-key" in words


def test_a_gpu_has_no_threads_and_may_have_a_precision():
    key = '{"kind":"cuda"}'
    identity = Identity(key, "cuda", 0, "64x128", 0.5, 19, IDENTITY.resize_rule)
    assert build_command(identity, "t.jsonl") == (
        "hmseg-deploy lut build --target cuda --resolution 64x128 --width 0.5 -o t.jsonl"
    )
    half = replace(identity, target='{"kind":"cuda","precision":"fp16"}')
    assert build_command(half, "t.jsonl").endswith(" --width 0.5 --precision fp16 -o t.jsonl")
