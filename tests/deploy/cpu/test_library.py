"""Which machines can run a library."""

from dataclasses import replace
from pathlib import Path

import pytest

from deploy import host
from deploy.artifact import Artifact
from deploy.artifact_file import save_artifact
from deploy.cpu.library import Library, check_machine, check_target
from deploy.runtime import load
from deploy.target import Target
from lut.errors import UserError

TARGET = Target("json", {"kind": "llvm", "mcpu": "x"}, host.architecture(), ())


def test_members():
    library = Library(b"code")
    assert Library.from_members(library.members()) == library
    assert [name for name in (*library.members(), "gpu/plan.json") if Library.is_member(name)] == [
        "lib.so"
    ]


def test_this_machine_runs_what_was_built_for_it(artifact):
    check_machine(artifact.target, "a")


def test_another_architecture(artifact: Artifact, tmp_path: Path):
    other = replace(artifact, target=replace(artifact.target, architecture="aarch64"))
    save_artifact(other, tmp_path / "a.hmseg")
    with pytest.raises(UserError, match=r"compiled for aarch64, this machine is x86_64; compile"):
        load(tmp_path / "a.hmseg")


def test_a_feature_this_cpu_lacks(artifact: Artifact, tmp_path: Path):
    target = replace(artifact.target, features=("avx2", "made-up-feature", "other"))
    save_artifact(replace(artifact, target=target), tmp_path / "a.hmseg")
    with pytest.raises(UserError, match=r"this CPU lacks made-up-feature, other; compile"):
        load(tmp_path / "a.hmseg")


def test_flags_of_another_machine(monkeypatch):
    monkeypatch.setattr(host, "cpu_flags", lambda: frozenset({"avx2", "pni"}))
    check_machine(replace(TARGET, features=("sse3", "avx2")), "a")
    with pytest.raises(UserError, match=r"lacks avx512f"):
        check_machine(replace(TARGET, features=("avx2", "avx512f")), "a")


def test_a_device():
    """It is named, and nobody is told to compile for this machine."""
    target = replace(TARGET, architecture="aarch64", features=("neon", "dotprod"))
    check_target(target, "a", "aarch64", frozenset({"asimd", "asimddp"}), "the device x")
    for architecture, flags, message in (
        ("x86_64", frozenset(), "a: compiled for aarch64, the device x is x86_64"),
        ("aarch64", frozenset({"asimd"}), "a: compiled for x, the device x lacks dotprod"),
    ):
        with pytest.raises(UserError) as caught:
            check_target(target, "a", architecture, flags, "the device x")
        assert str(caught.value) == message
