import json
import lzma

import pytest

from deploy.report import content
from deploy.report.content import Content, Fields, NoResultError, read_content
from lut.errors import UserError


def read(tmp_path, name, data) -> Content:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_content(path, name)


LINES = '{"a": 1}\n{"a": 2}\n'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES),
        ("a.json", LINES),
        ("no suffix", LINES),
        ("a.jsonl.xz", lzma.compress(LINES.encode())),
        ("a.jsonl", LINES + '{"a": '),  # a crash cut the last one short
    ],
)
@pytest.mark.filterwarnings("ignore::lut.jsonl.TornLineWarning")
def test_lines(tmp_path, name, data):
    assert read(tmp_path, name, data).records == ({"a": 1}, {"a": 2})


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt"])
def test_one_object(tmp_path, name):
    assert read(tmp_path, name, '\n {\n "a": 1\n}\n').records == ({"a": 1},)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", b"\x89PNG"), ("a.txt", "{ not JSON"), ("a.json", "[1, 2]"), ("a.json", "1"),
        ("a", ""), ("a.xz", lzma.compress(b"{}")),
    ],
)  # fmt: skip
def test_no_result(tmp_path, name, data):
    with pytest.raises(NoResultError):
        read(tmp_path, name, data)


def test_a_file_larger_than_any_result(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "MOST_BYTES", 8)
    with pytest.raises(NoResultError, match="larger than"):
        read(tmp_path, "a.json", '{"a": 1234}')


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", "", "not JSON"),
        ("a.json", '{"a": ', "not JSON"),
        ("a.json", "\n{\n", "not JSON"),
        ("a.json", b"{\xff}", "not JSON"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.jsonl", '{"a": 1}\n{"a": \n{"a": 2}\n', "line 2: not JSON"),
        ("a.jsonl", '{"a": 1}\n3\n', "line 2: expected a JSON object"),
        ("a.jsonl.xz", lzma.compress(LINES.encode())[:-9], "damaged or cut short"),
        ("a.jsonl.xz", lzma.compress(b""), "it has no line"),
    ],
)
def test_damaged(tmp_path, name, data, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, name, data)


FIELDS = Fields(
    json.loads('{"n": 2, "f": 0.5, "neg": -1, "t": "x", "o": {"i": {"x": 1}}, "nan": NaN,'
               '"huge": 1' + "0" * 400 + ', "l": [{"x": 1}], "r": [[1, 2]], "none": null}'),
    "line 3: ",
)  # fmt: skip


def test_fields():
    assert (FIELDS.number("n"), FIELDS.positive("f"), FIELDS.whole("n")) == (2.0, 0.5, 2)
    assert (FIELDS.text("t"), FIELDS.text("none", "y")) == ("x", "y")
    assert FIELDS.inside("o").inside("i").numbers() == {"x": 1}
    assert [(name, inner.values) for name, inner in FIELDS.inside("o").named()] == [("i", {"x": 1})]
    assert [each.whole("x") for each in FIELDS.each("l")] == [1]
    assert FIELDS.rounds("r") == [[1, 2]]
    assert ("none" in FIELDS, "n" in FIELDS) == (False, True)
    assert FIELDS.optional("none").values == {}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda f: f.number("missing"), "line 3: 'missing' is missing"),
        (lambda f: f.number("t"), "line 3: 't' is 'x', not a number"),
        (lambda f: f.number("nan"), "'nan' is nan, not a number up"),
        (lambda f: f.number("huge"), "not a number"),
        (lambda f: f.positive("neg"), "'neg' is -1, not above 0"),
        (lambda f: f.whole("f"), "'f' is 0.5, not a whole number"),
        (lambda f: f.whole("neg"), "not a whole number"),
        (lambda f: Fields({"n": 1 << 60}).whole("n"), "not a whole number"),
        (lambda f: Fields({"n": 1e31}).number("n"), "not a number up to 1e30"),
        (lambda f: Fields({"n": 1e-31}).positive("n"), "not above 0"),
        (lambda f: f.text("n"), "'n' is 2, not a text"),
        (lambda f: f.inside("t"), "not an object"),
        (lambda f: f.inside("o").number("i"), "line 3: o: 'i' is"),
        (lambda f: list(f.each("r")), "line 3: r 1 is"),
        (lambda f: f.rounds("l"), "not samples"),
        (lambda f: Fields({"r": []}).rounds("r"), "not samples"),
        (lambda f: Fields({"r": [[0]]}).rounds("r"), "not samples"),
    ],
)
def test_what_is_wrong_is_named(ask, message):
    with pytest.raises(UserError, match=message):
        ask(FIELDS)
