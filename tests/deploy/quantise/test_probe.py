"""What maps hold, against onnxruntime's own outputs."""

import numpy as np
import pytest

from deploy.graph.ends import with_logits_output
from deploy.graph.export import read_metadata
from deploy.graph.reference import OnnxSession, with_outputs
from deploy.quantise import probe
from deploy.quantise.countdown import Countdown
from deploy.quantise.frames import open_frames
from tests.deploy.graphs import deployable, segmenter
from tests.deploy.quantise.test_frames import folder_of


def test_maps_are_seen_whole_and_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "SAMPLE", 3 * 300)
    model = deployable(segmenter(stride=2), tmp_path)
    frames = open_frames(folder_of(tmp_path / "f", 3), read_metadata(model), 100)
    shown, told = [], []
    seen = probe.see_maps(
        with_logits_output(model), ["features", "activated"], frames, threads=1,
        on_frame=lambda index, outputs: shown.append((index, [o.shape for o in outputs])),
        progress=told.append,
    )  # fmt: skip
    assert shown == [(i, [(64, 64), (5, 64, 64)]) for i in range(3)]
    session = OnnxSession(with_outputs(model, ["features", "activated"]))
    for place, name in enumerate(("features", "activated")):
        maps = np.stack([session.run(frames.given(i))[place] for i in range(3)])
        assert seen[name].low == pytest.approx(maps.min(), rel=1e-5, abs=1e-6)
        assert seen[name].high == pytest.approx(maps.max(), rel=1e-5)
        assert 3 * 100 <= len(seen[name].sample) <= 3 * 300
        assert np.isclose(seen[name].sample[:, None], maps.ravel(), atol=1e-5).any(axis=1).all()
        assert seen[name].sample.std() == pytest.approx(maps.std(), rel=0.25)
    assert told[-1] == "calibrating: 3 of 3"


@pytest.mark.parametrize(
    "shape", [(1, 3, 512, 512), (1, 2048, 4, 4), (1, 5000, 16), (1, 2, 8, 30, 30), (1, 7, 1, 9)]
)
def test_steps(shape):
    steps = probe._steps(shape, 1000)
    left = np.prod([-(-(n - s // 2) // s) for n, s in zip(shape, steps, strict=True)])
    assert min(250, np.prod(shape)) <= left <= 1100
    assert all(1 <= step <= n for step, n in zip(steps, shape, strict=True))


def test_the_time_left():
    told, now = [], [0.0]
    left = Countdown("working", 4, told.append, clock=lambda: now[0])
    for done, at in ((1, 0.1), (2, 5.0), (3, 5.1), (4, 5.2)):
        now[0] = at
        left.done(done)
    assert told == ["working: 2 of 4, 5 s left", "working: 4 of 4"]
