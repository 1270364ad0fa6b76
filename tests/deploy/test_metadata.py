import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.metadata import Metadata
from deploy.resolution import Resolution
from hmseg.data.classes import CITYSCAPES, ClassSet, binary_classes, generic_classes
from hmseg.data.normalise import MEAN, STD
from lut.errors import UserError

METADATA = Metadata("tiny-mrms", CITYSCAPES, Resolution(64, 96), "labels", MEAN, STD, "MIT", "0.1")
LATER = {"input", "channels", "scores", "threshold"}  # of the fields, older files lack
colours = st.tuples(*[st.integers(0, 255)] * 3)
class_sets = st.lists(st.tuples(st.text(), colours), max_size=9).map(
    lambda entries: ClassSet("own", tuple(n for n, _ in entries), tuple(c for _, c in entries))
)
triples = st.none() | st.tuples(*[st.floats(allow_nan=False)] * 3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.text(), class_sets, st.sampled_from(["labels", "logits"]), triples, triples)
def test_round_trip(model, classes, output, mean, std):
    metadata = replace(METADATA, model=model, classes=classes, output=output, mean=mean, std=std)
    strings = metadata.to_strings()
    assert all(isinstance(value, str) for value in strings.values())
    assert Metadata.from_strings(strings) == metadata


@pytest.mark.parametrize("field", sorted(METADATA.to_strings().keys() - LATER))
def test_a_missing_field_is_named(field: str):
    strings = METADATA.to_strings()
    del strings[field]
    with pytest.raises(UserError, match=field):
        Metadata.from_strings(strings)


@given(st.sampled_from(list(METADATA.to_strings())), json_values, st.booleans())
def test_any_value_in_a_field_is_taken_or_a_user_error(field, value, as_text):
    strings = METADATA.to_strings() | {field: json.dumps(value) if as_text else value}
    try:
        metadata = Metadata.from_strings(strings)
    except UserError:
        return
    assert Metadata.from_strings(metadata.to_strings()) == metadata or "NaN" in str(strings)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("output", "scores", "unknown output"),
        ("input", "video", "unknown input"),
        ("resolution", "64", "HEIGHTxWIDTH"),
        ("names", '["one"]', "1 names, 19 colours"),
        ("palette", "[[0, 0, 256]]", "malformed"),
        ("palette", "[[1e400, 0, 0]]", "malformed"),
        ("names", "[" * 100_000, "malformed"),
        ("mean", "[1, 2]", "malformed"),
        ("channels", "2", "malformed"),
        ("channels", "4", "malformed"),  # mean has three numbers
        ("scores", "1", "malformed"),  # there are 19 classes
        ("threshold", "0.5", "malformed"),  # an arg max has none
        ("threshold", "NaN", "malformed"),
        ("output", "masks", "needs a threshold"),
        ("model", 5, "must be texts"),
    ],
)
def test_malformed_fields(field, value, message):
    with pytest.raises(UserError, match=message):
        Metadata.from_strings(METADATA.to_strings() | {field: value})


def test_files_from_before_there_was_a_choice_take_an_rgb_image():
    strings = {k: v for k, v in METADATA.to_strings().items() if k not in LATER}
    assert Metadata.from_strings(strings) == METADATA


MASKS = replace(METADATA, output="masks", threshold=0.25)
BINARY = replace(METADATA, classes=binary_classes(), scores=1, threshold=0.25)
MANY = replace(METADATA, classes=generic_classes(300))


@pytest.mark.parametrize(
    ("metadata", "dtype", "shape"),
    [
        (METADATA, np.uint8, (64, 96)),
        (BINARY, np.uint8, (64, 96)),
        (MANY, np.uint16, (64, 96)),
        (MASKS, np.uint8, (19, 64, 96)),
    ],
)
def test_what_is_found_in_scores(metadata, dtype, shape):
    scores = np.random.default_rng(0).normal(size=(metadata.num_scores, 64, 96))
    found = metadata.found_in(scores.astype(np.float32))
    assert (found.dtype, found.shape) == (dtype, shape)
    assert (metadata.output_dtype, metadata.output_shape) == (dtype, shape)
    expected = scores.argmax(0) if metadata.threshold is None else scores > 0.25
    np.testing.assert_array_equal(found, expected[0] if metadata.scores else expected)
    logits = replace(metadata, output="logits")
    assert (logits.output_dtype, logits.output_shape) == (np.float32, scores.shape)
    np.testing.assert_array_equal(logits.found_in(scores.astype(np.float32)), found)
    for each in (metadata, logits):
        assert Metadata.from_strings(each.to_strings()) == each


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_channels(channels):
    values = tuple(0.1 * (i + 1) for i in range(channels))
    metadata = replace(METADATA, channels=channels, mean=values, std=values)
    assert Metadata.from_strings(metadata.to_strings()) == metadata
    assert metadata.input_shape == (64, 96, channels)
    tensor = replace(metadata, input="tensor")
    image = np.random.default_rng(0).integers(0, 256, metadata.input_shape, dtype=np.uint8)
    found = tensor.network_input(image)
    assert found.shape == tensor.input_shape == (channels, 64, 96)
    np.testing.assert_allclose(
        found, ((image / 255 - values) / values).transpose(2, 0, 1), atol=1e-5
    )


def test_a_tensor_needs_mean_and_std():
    strings = replace(METADATA, input="tensor").to_strings()
    assert Metadata.from_strings(strings).input == "tensor"
    with pytest.raises(UserError, match="needs mean and std"):
        Metadata.from_strings(strings | {"mean": "null"})


def test_what_the_network_takes():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    assert METADATA.network_input(image) is image
    tensor = replace(METADATA, input="tensor", mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    found = tensor.network_input(image)
    assert (found.dtype, found.shape) == (tensor.input_dtype, tensor.input_shape)
    assert found.flags.c_contiguous
    expected = (image.astype(np.float64) / 255 - (0.1, 0.5, 0.9)) / (0.2, 0.3, 0.4)
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), atol=1e-5)


@given(st.text(max_size=300))
def test_a_file_name_stays_in_its_folder(model: str):
    name = replace(METADATA, model=model).file_name
    assert "/" not in name
    assert "\0" not in name
    assert name[0] != "."
    assert name.endswith("-64x96")
    assert len(name.encode()) <= 240  # bytes; file systems take 255


def test_file_names_of_the_zoo_are_plain():
    assert METADATA.file_name == "tiny-mrms-64x96"
    assert replace(METADATA, model="../../etc/passwd").file_name == "etc_passwd-64x96"
