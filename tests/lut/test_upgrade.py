"""Tables of format version 1; the keys are what the program of that version printed."""

import json

import pytest

from lut.errors import UserError
from lut.ops import (
    Classifier,
    Context,
    Depthwise,
    GlobalPool,
    InvertedResidual,
    Labels,
    LocalGlobal,
    Pointwise,
    Resize,
    Stem,
    StemBlock,
    StemPair,
)
from lut.table_file import load_table, open_table, save_table
from lut.upgrade import operation_of, upgrade_table
from tests.lut.tables import IDENTITY, KEY, OTHER, PROVENANCE, table, visit

KEYS = {
    "stem 3-0-16 k3 s2 d1 256x512": Stem(16, 256, 512),
    "stem_block 3-16-8 k5 s2 d1 256x512": StemBlock(16, 8, 256, 512, kernel=5),
    "stem_pair 8-48-16 k5 s4 d1 256x512 behind 16 k7": StemPair(
        StemBlock(16, 8, 256, 512, kernel=7), InvertedResidual(8, 48, 16, 128, 256, 5, 2)
    ),
    "stem_pair 16-96-24 k3 s4 d1 200x330 behind 32 k3": StemPair(
        StemBlock(32, 16, 200, 330), InvertedResidual(16, 96, 24, 100, 165, 3, 2)
    ),
    "inverted_residual 16-96-16 k3 s1 d1 64x128": KEY,
    "inverted_residual 8-8-16 k7 s2 d1 25x50": InvertedResidual(
        8, 8, 16, 25, 50, kernel=7, stride=2, expand=False
    ),
    "inverted_residual 80-80-80 k5 s1 d4 6x12": InvertedResidual(
        80, 80, 80, 6, 12, kernel=5, dilation=4, expand=False, residual=True
    ),
    "inverted_residual 80-480-160 k7 s1 d4 4x10": InvertedResidual(
        80, 480, 160, 4, 10, kernel=7, dilation=4
    ),
    "classifier 128-128-19 k3 s1 d1 32x64": Classifier(128, 19, 32, 64),
    "resize 16-0-16 k0 s1 d1 32x64 16x32": OTHER,
    "resize 96-0-96 k0 s1 d1 3x3 1x1": Resize(96, 3, 3, 1, 1),
    "context 160-0-256 k1 s1 d1 11x22": Context(160, 256, 11, 22),
    "context 320-0-256 k1 s1 d1 1x1": Context(320, 256, 1, 1),
    "upsample_add 48-0-256 k1 s1 d1 19x38 7x15": Pointwise(
        48, 256, 19, 38, add="low", low_height=7, low_width=15
    ),
    "depthwise 16-0-16 k3 s1 d1 32x64": Depthwise(16, 32, 64),
    "gate 16-0-256 k1 s1 d1 32x64": GlobalPool(16, 256, 32, 64, "sigmoid"),
    "local_global 16-256-128 k1 s1 d1 32x64 19x38": LocalGlobal(16, 256, 128, 32, 64, 19, 38),
    "labels 19-0-0 k0 s1 d1 32x64 256x512": Labels(19, 32, 64, 256, 512),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_an_operation(key):
    assert operation_of(key) == KEYS[key]


@pytest.mark.parametrize(
    "key",
    [
        "", "stem", "conv 1-2-3 k3 s1 d1 4x4", str(KEY), "stem 3-0-16 k3 s2 d1 256x512 ",
        "stem 3-0-16 k3 s2 d1 256x512\n", "stem 3-0-16 k3 s2 d1 256xx512",
        "stem 4-0-16 k3 s2 d1 256x512", "stem 3-1-16 k3 s2 d1 256x512",
        "stem 3-0-16 k5 s2 d1 256x512", "stem 3-0-16 k3 s1 d1 256x512",
        "stem 3-0-16 k3 s2 d1 256x512 4x4", "stem 3-0-16 k3 s2 d1 256x512 behind 8 k3",
        "stem 3-0-0 k3 s2 d1 256x512", "stem 3-0-16 k3 s2 d1 0x512",
        "stem_block 3-16-8 k5 s3 d1 256x512", "stem_block 3-16-8 k5 s1 d1 256x512",
        "stem_block 3-0-8 k5 s2 d1 256x512",
        "stem_pair 8-48-16 k5 s4 d1 256x512", "stem_pair 8-48-16 k5 s4 d1 256x512 behind 0 k7",
        "stem_pair 8-48-16 k5 s3 d1 256x512 behind 16 k7",
        "stem_pair 8-8-16 k5 s4 d1 256x512 behind 16 k7",
        "inverted_residual 16-96-16 k3 s0 d1 64x128", "inverted_residual 16-0-16 k3 s1 d1 64x128",
        "inverted_residual 16-96-16 k3 s1 d1 64x128 8x8",
        "classifier 128-64-19 k3 s1 d1 32x64", "classifier 128-128-19 k5 s1 d1 32x64",
        "resize 16-0-16 k0 s1 d1 32x64", "resize 16-0-8 k0 s1 d1 32x64 16x32",
        "resize 16-0-16 k0 s1 d1 32x64 0x0", "depthwise 16-0-8 k3 s1 d1 32x64",
        "upsample_add 48-0-256 k1 s1 d1 19x38", "local_global 16-256-128 k1 s1 d1 32x64",
        "labels 19-0-19 k0 s1 d1 32x64 256x512", f"stem 3-0-{'9' * 5000} k3 s2 d1 256x512",
    ],
    ids=lambda key: key[:60],
)  # fmt: skip
def test_anything_else_is_no_key(key):
    with pytest.raises(UserError, match="is no key of a latency table of version 1") as e:
        operation_of(key)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 300


def as_version_1(path):
    """Rewrite a table as the program of that version wrote it."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["format_version"] = 1
    keys = {str(op): key for key, op in KEYS.items()}
    for line in lines[2:]:
        line["entries"] = {keys[text]: samples for text, samples in line["entries"].items()}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def wanted(tmp_path):
    """A table of all kinds; its file is of version 1."""
    path = tmp_path / "t.jsonl"
    entries = {op: 10.0 + n / 7 for n, op in enumerate(KEYS.values())}
    made = table(visit("a", entries), visit("b", role="calibration"), name=str(path))
    save_table(made, path)
    as_version_1(path)
    return made


def test_a_table_is_carried_over_once(wanted, tmp_path):
    path = tmp_path / "t.jsonl"
    with pytest.raises(UserError, match=r"line 1: from before operations had a text .*carry it"):
        load_table(path)
    with (
        pytest.raises(UserError, match="from before operations had a text"),
        open_table(path, IDENTITY, PROVENANCE),
    ):
        pass
    assert upgrade_table(path) == 2
    assert load_table(path) == wanted
    after = path.read_bytes()
    assert upgrade_table(path) is None
    assert path.read_bytes() == after
    save_table(load_table(path), path)
    assert path.read_bytes() == after  # as this version writes it


def test_a_table_without_measurements_is_carried_over(tmp_path):
    path = tmp_path / "t.jsonl"
    save_table(table(), path)
    as_version_1(path)
    assert upgrade_table(path) == 0
    assert load_table(path).visits == []
    assert upgrade_table(path) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"gate 16-', '"door 16-', r"line 3: 'door 16-0-256 .* is no key of a latency table"),
        ('"gate 16-', '"gate 0-', r"line 3: 'gate 0-0-256 .* is no key of a latency table"),
        ('"role": "calibration"', '"role": "x"', "line 4: the role is 'x'"),
        ('"entries": {', '"entries": [], "x": {', "line 3: unknown field 'x'"),
        ('"format_version": 1', '"format_version": 4', "line 1: .*newer than this program"),
        ('"format_version": 1', '"format_version": true', "line 1: the format version is True"),
        ('"format_version": 1', '"format_version": "1"', "line 1: the format version is '1'"),
        ('"hmseg-latency-table"', '"x"', "line 1: not a latency table of hmseg"),
        ('"threads": 2', '"threads": 2.5', "line 1: .*'threads' is 2.5, not int"),
        ('"kind": "provenance"', '"kind": "visit"', "line 2: "),
    ],
)
def test_anything_else_is_left_as_it_is(wanted, tmp_path, old, new, message):
    path = tmp_path / "t.jsonl"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    before = path.read_bytes()
    with pytest.raises(UserError, match=message) as e:
        upgrade_table(path)
    assert str(e.value).startswith(f"{path}, line ")
    assert path.read_bytes() == before


def test_a_line_that_was_cut_short_is_dropped(wanted, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(path.read_text() + '{"kind": "visit", "netw')
    with pytest.warns(UserWarning, match="cut short"):
        assert upgrade_table(path) == 2
    assert load_table(path) == wanted


def test_not_under_a_builder(tmp_path):
    path = tmp_path / "t.jsonl"
    with (
        open_table(path, IDENTITY, PROVENANCE),
        pytest.raises(UserError, match="another process is building"),
    ):
        upgrade_table(path)
    path.write_text("")
    with pytest.raises(UserError, match="it has no line"):
        upgrade_table(path)
