"""Two builds of one network, timed in turn."""

from functools import partial

from deploy.artifact import Artifact
from deploy.measure.interleave import Protocol, interleave
from deploy.measure.statistics import Ratio, ratio_of_rounds
from deploy.runtime import open_artifact


def compare_artifacts(
    first: Artifact, second: Artifact, protocol: Protocol, *, threads: int
) -> Ratio:
    """First's time over second's on the golden image: above 1 the second is faster."""
    image = first.golden_input
    networks = {
        name: open_artifact(artifact, name, threads=threads)
        for name, artifact in (("first", first), ("second", second))
    }
    sides = {name: partial(network, image) for name, network in networks.items()}
    samples = interleave(sides, protocol)
    return ratio_of_rounds(samples["first"], samples["second"])
