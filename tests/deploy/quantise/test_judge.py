"""Figures against numpy."""

import numpy as np
import pytest
from PIL import Image

from deploy.graph.ends import with_logits_output
from deploy.graph.export import read_metadata
from deploy.graph.reference import OnnxSession
from deploy.quantise.frames import open_frames
from deploy.quantise.judge import Judge
from hmseg.train.confusion import Confusion
from tests.deploy.graphs import deployable, segmenter
from tests.hmseg.data.folders import make_camvid


@pytest.mark.parametrize("output", ["labels", "logits"])
def test_figures(tmp_path, output):
    """Another network takes the place of that in 8 bits."""
    model, other = (
        deployable(segmenter(stride=2, classes=11, seed=seed), tmp_path, output=output)
        for seed in (0, 1)
    )
    folder = make_camvid(tmp_path / "d", train=2) / "train"
    frames = open_frames(folder, read_metadata(model), 100)
    judge = Judge(frames, threads=1)
    session, others = (OnnxSession(with_logits_output(m)) for m in (model, other))
    equal, clear_equal, offs, scores = [], [], [], []
    confusions = Confusion(11), Confusion(11)
    for index in range(2):
        outputs = session.run(frames.given(index))
        judge.show(index, outputs)
        logits, theirs = outputs[-1], others.run(frames.given(index))[-1]
        two = np.sort(logits, axis=0)[-2:]
        clear = two[1] - two[0] > 2 / 255 * (logits.max() - logits.min())
        same = logits.argmax(0) == theirs.argmax(0)
        equal.append(same.mean())
        clear_equal += list(same[clear])
        offs.append(theirs - logits)
        scores.append(logits)
        for confusion, found in zip(confusions, (logits, theirs), strict=True):
            labels = Image.fromarray(found.argmax(0).astype(np.uint8))
            nearest = labels.resize((96, 72), Image.Resampling.NEAREST)
            confusion.add(frames.truth(index), np.asarray(nearest))
    figures = judge.figures(other, [0, 1])
    assert figures.frames == 2
    assert figures.equal == pytest.approx(np.mean(equal))
    assert figures.equal_clear == pytest.approx(np.mean(clear_equal))
    error = np.sqrt(np.mean(np.square(offs, dtype=np.float64))) / np.std(scores, dtype=np.float64)
    assert figures.score_error == pytest.approx(error, rel=1e-4)
    assert figures.miou == pytest.approx(confusions[1].miou)
    own = judge.float_figures([0, 1])
    assert (own.equal, own.score_error) == (1, 0)
    assert own.miou == pytest.approx(confusions[0].miou)
    again = judge.figures(model, [0, 1])
    assert again.equal == 1
    assert again.score_error < 1e-5
