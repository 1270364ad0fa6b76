"""What to compile for a device, from what it says it is."""

from deploy import host
from deploy.cpu.targets import X86_64_LEVELS
from deploy.devices.describe import Description
from deploy.targets import resolve_target
from lut.errors import UserError


def fitting_target(device: Description) -> str:
    """The word of --target for it. Raises UserError for an architecture that nothing is compiled
    for."""
    if device.architecture == "aarch64":
        return "arm"
    if device.architecture != "x86_64":
        raise UserError(
            f"it is {device.architecture}; this version compiles for x86_64 and aarch64"
        )
    flags = frozenset(device.flags)
    fitting = [
        level
        for level in X86_64_LEVELS
        if not host.missing_features(resolve_target(level).features, flags)
    ]
    return fitting[-1] if fitting else X86_64_LEVELS[0]
