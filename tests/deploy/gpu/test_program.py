"""What an artifact for a GPU holds, and which of its code a GPU gets."""

import numpy as np
import pytest

from deploy.gpu.program import GpuProgram, choose_code, result_of
from lut.errors import UserError
from tests.deploy.gpu.test_plan import PLAN
from tests.deploy.test_metadata import METADATA


def program(**code):
    return GpuProgram(PLAN, b"\0" * 256, **code)


def test_members():
    whole = program(cubins={"sm_61": b"a"}, ptx={"compute_90": b"b"})
    assert GpuProgram.from_members(whole.members()) == whole
    with pytest.raises(UserError, match="not the files"):
        GpuProgram.from_members(whole.members() | {"gpu/../../etc": b""})
    with pytest.raises(UserError, match="constants"):
        GpuProgram.from_members(whole.members() | {"gpu/constants.bin": b""})


PTX = b".visible .entry k(\n\t.param .u64 k_param_0,\n\t.param .u64 k_param_1\n)\n{ ret; }"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (PTX.replace(b",\n\t.param .u64 k_param_1", b""), "'k' has 1 parameters, it is given 2"),
        (PTX.replace(b"_1\n", b"_1,\n\t.param .u64 k_param_2\n"), "'k' has 3 .* given 2"),
        (PTX.replace(b"entry k(", b"entry other("), "no kernel 'k'"),
    ],
)
def test_launches_with_other_arguments_than_the_code_has_are_refused(code, message):
    assert GpuProgram.from_members(program(ptx={"compute_90": PTX}).members())
    with pytest.raises(UserError, match=f"launches is not sound .*{message}"):
        GpuProgram.from_members(program(ptx={"compute_90": code}).members())
    opencl = "__kernel void k(__global float* a) { }"
    with pytest.raises(UserError, match="'k' has 1 parameters"):
        GpuProgram.from_members(program(opencl=opencl).members())


def test_ends_of_other_sizes_than_the_metadata_says():
    with pytest.raises(UserError, match="takes or gives 64 bytes"):
        program().check_ends(METADATA)


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        (61, "sm_61"), (80, "sm_80"), (86, "sm_86"), (89, "sm_86"), (90, "compute_86"),
        (120, "compute_86"),
        # Boards (Jetson): no other machine code than their own, and theirs on nothing else.
        (72, "sm_72"), (87, "compute_86"),
    ],
)  # fmt: skip
def test_code_of_the_gpus_own_generation_or_ptx(capability, name):
    cubins = {arch: arch.encode() for arch in ("sm_61", "sm_72", "sm_80", "sm_86")}
    assert choose_code(program(cubins=cubins, ptx={"compute_86": b""}), capability)[0] == name


@pytest.mark.parametrize("capability", [52, 60, 62, 75])
def test_no_code_for_the_gpu(capability):
    cubins = {"sm_61": b"", "sm_80": b""}
    with pytest.raises(UserError, match=f"no code for this GPU, sm_{capability} .it has sm_61"):
        choose_code(program(cubins=cubins, ptx={"compute_80": b""}), capability)


def test_what_an_entry_has_written():
    """METADATA's network gives 19 classes at 64x96."""
    labels = np.arange(64 * 96).astype(np.uint8)
    np.testing.assert_array_equal(result_of(labels, "main", METADATA), labels.reshape(64, 96))
    scores = np.arange(19 * 64 * 96, dtype=np.float32)
    found = result_of(scores.view(np.uint8), "logits", METADATA)
    np.testing.assert_array_equal(found, scores.reshape(19, 64, 96))
