"""Released weights in 8 bits by the scales that ship with them, so that int8 of these asks for no
frames.

Scales are of one resolution and used at any: what they do at another is looked at on a drawn
street.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.quantise.shipped_file import CALIBRATE, FOLDER, read_scales
from lut.errors import UserError, WorkError

if TYPE_CHECKING:
    from deploy.graph.source import Source
    from deploy.quantise.places import Places

IMAGE = "image"


def keys_of(places: "Places") -> dict[str, str]:
    """What maps are called in the file: the image's, whose name depends on the end, `IMAGE`, all
    others as in the graph."""
    return {name: IMAGE if name in places.of_image else name for name in places.maps}


def with_shipped(
    source: "Source",
    threads: int,
    progress: Callable[[str], None] = lambda _: None,
    folder: Path = FOLDER,
) -> "tuple[Source, str]":
    """A source with released weights in 8 bits by the scales that ship with these, and what that
    does, in words. Raises UserError where there are no scales of exactly these weights and this
    graph, WorkError where labels of a drawn street are too often not float32's."""
    from deploy.graph.ends import with_logits_output
    from deploy.graph.reference import OnnxSession
    from deploy.images import to_channels
    from deploy.quantise.frames import Frames
    from deploy.quantise.gate import LEAST_EQUAL
    from deploy.quantise.judge import Judge
    from deploy.quantise.pairs import with_pairs
    from deploy.quantise.places import find_places
    from deploy.quantise.wiring import Wiring
    from deploy.street import draw_street

    assert source.released is not None
    model, data, digest = source.released
    scales = read_scales(model, data, folder)
    if scales.weights != digest:
        raise UserError(
            f"the scales that ship for {model} are of other weights than its {data} ones; "
            f"install hmseg again, or {CALIBRATE}"
        )
    places = find_places(Wiring(source.graph.graph), scales.kept)
    keys = keys_of(places)
    if set(keys.values()) != set(scales.maps):
        raise UserError(
            f"the scales that ship for {model} are of another graph than is exported here (by "
            f"another version of torch?); {CALIBRATE}"
        )
    grids = {name: scales.maps[key] for name, key in keys.items()}
    graph = with_pairs(source.graph, places, grids)
    progress("comparing with fp32 on a drawn street")
    metadata = source.metadata
    street = to_channels(draw_street(metadata.resolution), metadata.channels)
    frames = Frames.of_image(street, metadata)
    judge = Judge(frames, threads)
    reference = OnnxSession(with_logits_output(source.graph), threads=threads)
    judge.show(0, reference.run(frames.given(0)))
    figures = judge.figures(graph, [0])
    said = (
        f"int8 by the scales that ship with its {data} weights ({scales.frames} frames of "
        f"{scales.resolution}); of a drawn street {figures.equal:.2%} of the labels are equal to "
        f"fp32's, {figures.equal_clear:.2%} where they are no tie"
    )
    if figures.equal_clear < LEAST_EQUAL:
        raise WorkError(
            f"{model} at {metadata.resolution}: {said}, where {LEAST_EQUAL:.0%} have to be; "
            f"{CALIBRATE}"
        )
    return replace(source, quantised=graph), said
