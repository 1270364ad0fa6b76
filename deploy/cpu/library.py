"""What an artifact for a CPU holds, a shared library, and which machines can run it. No TVM."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from deploy import host
from deploy.metadata import Metadata
from deploy.target import Target
from lut.errors import UserError

PREFIX = "hmseg"  # of the names of its functions
_MEMBER = "lib.so"
_MOST_DEFLATED, _WORTH = 4 << 20, 0.75  # bytes; of which so many are left


@dataclass(frozen=True)
class Library:
    """A network's machine code (`deploy.artifact.Code`)."""

    data: bytes

    @property
    def compressed(self) -> bool:
        """Where it is worth it: loading waits some 3 ms for each MiB, and weights of 32 bits get
        hardly smaller."""
        if len(self.data) > _MOST_DEFLATED:
            return False
        return len(zlib.compress(self.data)) <= _WORTH * len(self.data)

    def members(self) -> dict[str, bytes]:
        """Files of the artifact by name."""
        return {_MEMBER: self.data}

    @staticmethod
    def is_member(name: str) -> bool:
        """Whether an artifact's file is this code's."""
        return name == _MEMBER

    @staticmethod
    def from_members(members: Mapping[str, bytes]) -> "Library":
        """The inverse of `members`."""
        return Library(members[_MEMBER])

    def check_ends(self, _metadata: Metadata) -> None:
        """Nothing: a library's sizes cannot be read without loading it."""


def check_machine(target: Target, name: str) -> None:
    """Raise UserError unless this machine can run what was compiled for `target`."""
    check_target(target, name, host.architecture(), host.cpu_flags())


def check_target(
    target: Target, name: str, architecture: str, flags: frozenset[str], device: str = ""
) -> None:
    """Raise UserError unless a machine of this architecture and these CPU flags can run it.

    `device` is what errors call the machine; by default it is this one.
    """
    here = "" if device else "; compile with --target cpu here"
    if target.architecture != architecture:
        raise UserError(
            f"{name}: compiled for {target.architecture}, {device or 'this machine'} is "
            f"{architecture}{here}"
        )
    missing = host.missing_features(target.features, flags)
    if missing:
        raise UserError(
            f"{name}: compiled for {target.machine}, {device or 'this CPU'} lacks "
            f"{', '.join(missing)}{here and here + ' or with --target x86-64-v3'}"
        )
