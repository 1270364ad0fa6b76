"""Both sides of a comparison on frames of a data set."""

from dataclasses import replace

import numpy as np
import pytest

from deploy.evaluate import open_side
from deploy.graph.export import read_metadata, save_onnx
from deploy.graph.reference import OnnxSession
from deploy.images import read_image
from deploy.resolution import Resolution
from hmseg.data.registry import open_dataset
from tests.deploy.graphs import deployable, segmenter, write
from tests.hmseg.data.folders import SIZE, make_camvid

OTHER = (0.5, 0.5, 0.5)


@pytest.mark.parametrize("exported", [False, True])
def test_a_file_beside_a_network_of_another_mean(tmp_path, exported):
    """It is computed with the network's, unless its own is inside."""
    data = open_dataset("camvid", make_camvid(tmp_path / "data", train=1, val=1), "val")
    model = segmenter(stride=2, size=Resolution(*SIZE), classes=11)
    usual = deployable(model, tmp_path)
    of_other = deployable(model, tmp_path, mean=OTHER, std=OTHER)
    path = write(model, tmp_path / "n.onnx")
    if exported:
        save_onnx(usual, path)
    like = replace(read_metadata(usual), mean=OTHER, std=OTHER)
    image = read_image(data.frames[0].image)
    expected = OnnxSession(usual if exported else of_other, threads=1).run(image)[0]
    assert not np.array_equal(*(OnnxSession(g, threads=1).run(image)[0] for g in (usual, of_other)))
    side = open_side(str(path), data, "camvid", 1, like)
    np.testing.assert_array_equal(side.predict(image), expected)
