"""Two builds of one network, timed in turn on one machine."""

from deploy.artifact import Artifact
from deploy.measure.device import Device, Devices, Session
from deploy.measure.interleave import Protocol, interleave_blocks
from deploy.measure.statistics import Ratio, ratio_of_rounds


def compare_artifacts(
    first: Artifact, second: Artifact, protocol: Protocol, devices: Devices
) -> Ratio:
    """First's time over second's on the golden image: above 1 the second is faster."""
    ratios: list[Ratio] = []

    def compare(device: Device, reference: Session, item: Artifact) -> Ratio:
        with device.open(item) as session:
            sides = {"first": reference.block, "second": session.block}
            samples = interleave_blocks(sides, protocol)
        return ratio_of_rounds(samples["first"], samples["second"])

    devices.spread([second], compare, lambda _, ratio: ratios.append(ratio), reference=first)
    return ratios[0]
