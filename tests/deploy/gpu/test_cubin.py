"""A cubin's own header; what NVRTC really writes, tests/deploy/backends/test_cuda.py reads."""

import pytest

from lut.errors import UserError
from tests.deploy.gpu.cubin import EM_CUDA, read_cubin


@pytest.mark.parametrize(("version", "flags"), [(7, 0x5A055A), (8, 0x6005A04)])
def test_the_architecture_in_a_cubins_header(version, flags):
    """As NVRTC 12.9 and 13.0 write it for sm_90."""
    header = bytearray(64)
    header[:9] = b"\x7fELF\x02\x01\x01\0" + bytes([version])
    header[18:20] = EM_CUDA.to_bytes(2, "little")
    header[48:52] = flags.to_bytes(4, "little")
    assert read_cubin(bytes(header)).architecture == "sm_90"


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x02\x01" + b"\0" * 58, b"no ELF at all" * 9])
def test_no_cubin(data):
    with pytest.raises(UserError, match="not a cubin"):
        read_cubin(data)
