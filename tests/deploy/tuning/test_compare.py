"""Two builds in turn, on devices that are made up."""

from dataclasses import dataclass, field

from deploy.measure.device import OneDevice
from deploy.measure.interleave import Protocol
from deploy.tuning.compare import compare_artifacts


@dataclass
class Devices(OneDevice):
    """An artifact is how long its frames take, by round."""

    opened: list = field(default_factory=list)
    blocks: list = field(default_factory=list)

    def open(self, artifact):
        self.opened.append(artifact)
        return Session(self, artifact)


class Session:
    def __init__(self, devices, frames):
        self.devices, self.frames, self.left = devices, frames, iter(frames)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def block(self, protocol):
        self.devices.blocks.append(self.frames)
        return [next(self.left)] * protocol.repeat


def test_the_firsts_time_over_the_seconds_round_by_round():
    first, second, devices = (20, 30, 40), (10, 10, 10), Devices()
    ratio = compare_artifacts(first, second, Protocol(repeat=2, rounds=3), devices)
    assert (ratio.median, ratio.low, ratio.high, ratio.rounds) == (3, 2, 4, 3)
    assert devices.opened == [first, second]
    assert devices.blocks == [first, second, second, first, first, second]
