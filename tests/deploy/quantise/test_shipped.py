"""Released weights by the scales that ship with them: whose these have to be."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from deploy.graph.export import read_metadata
from deploy.graph.reference import OnnxSession
from deploy.graph.source import ReleasedWeights, Source
from deploy.grid import Grid
from deploy.images import to_channels
from deploy.quantise.frames import Frames
from deploy.quantise.places import find_places
from deploy.quantise.request import is_quantised
from deploy.quantise.run import quantise
from deploy.quantise.shipped import keys_of, with_shipped
from deploy.quantise.shipped_file import ShippedScales, has_scales, read_scales
from deploy.quantise.wiring import Wiring
from deploy.street import draw_street
from lut.errors import UserError, WorkError

WEIGHTS = ReleasedWeights("small", "sand", "0" * 64)


@pytest.fixture(scope="module")
def scales(small_graph: onnx.ModelProto) -> ShippedScales:
    metadata = read_metadata(small_graph)
    street = to_channels(draw_street(metadata.resolution), metadata.channels)
    found = quantise(small_graph, Frames.of_image(street, metadata)).report
    keys = keys_of(find_places(Wiring(small_graph.graph)))
    assert "image" in keys.values()
    maps = {key: found.maps[name].grid for name, key in keys.items()}
    return ShippedScales(*WEIGHTS, "64x64", 1, (), maps, {"date": "2026-11-30"})


@pytest.fixture
def source(small_graph: onnx.ModelProto) -> Source:
    return Source(small_graph, None, "trained on sand", released=WEIGHTS)


def test_they_are_used(source: Source, scales: ShippedScales, tmp_path: Path) -> None:
    assert not has_scales("small", tmp_path)
    scales.save(tmp_path)
    assert has_scales("small", tmp_path)
    assert read_scales("small", "sand", tmp_path) == scales
    found, said = with_shipped(source, 1, folder=tmp_path)
    assert "the scales that ship with its sand weights (1 frames of 64x64)" in said
    assert found.quantised is not None
    assert is_quantised(found.compiled)
    assert not is_quantised(found.graph)
    image = draw_street(source.metadata.resolution)
    labels = [OnnxSession(graph).run(image)[0] for graph in (found.graph, found.compiled)]
    assert (labels[0] != labels[1]).mean() < 0.02


def test_only_for_exactly_these_weights_and_this_graph(
    source: Source, scales: ShippedScales, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no scales ship for small's sand weights"):
        with_shipped(source, 1, folder=tmp_path)
    replace(scales, weights="1" * 64).save(tmp_path)
    with pytest.raises(UserError, match="are of other weights than its sand ones"):
        with_shipped(source, 1, folder=tmp_path)
    replace(scales, maps=dict(list(scales.maps.items())[1:])).save(tmp_path)
    with pytest.raises(UserError, match="are of another graph"):
        with_shipped(source, 1, folder=tmp_path)
    (tmp_path / "small-sand.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        with_shipped(source, 1, folder=tmp_path)


def test_what_changes_labels_is_refused(
    source: Source, scales: ShippedScales, tmp_path: Path
) -> None:
    coarse = {name: Grid(50 * grid.scale, grid.zero) for name, grid in scales.maps.items()}
    replace(scales, maps=coarse).save(tmp_path)
    with pytest.raises(WorkError, match=r"where they are no tie, where 99% have to be; find some"):
        with_shipped(source, 1, folder=tmp_path)
