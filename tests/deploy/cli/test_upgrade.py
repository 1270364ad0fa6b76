"""hmseg-deploy upgrade: which file is what, and what is said of it."""

import json
import lzma

import pytest

from deploy.tuning.records import load_records
from lut.table_file import load_table, save_table
from tests.deploy.tuning.test_upgrade import BLOCK, PAIR, record, write
from tests.lut.tables import table, visit
from tests.lut.test_upgrade import as_version_1


@pytest.fixture
def files(tmp_path):
    """A table and records of earlier versions."""
    lut, tuning = tmp_path / "t.jsonl", tmp_path / "tuning" / "r.jsonl"
    save_table(table(visit("a"), visit("b")), lut)
    as_version_1(lut)
    tuning.parent.mkdir()
    write(tuning, record(BLOCK), record(PAIR), record("tvm:0123456789abcdef01234567"))
    return lut, tuning


def test_each_file_is_carried_over_once(cli, files):
    lut, tuning = files
    assert "from before operations had a text" in cli("lut", "show", lut).error
    done = cli("upgrade", *files).succeeded()
    assert done.out.splitlines() == [
        f"{lut}: carried over: 2 records", f"{tuning}: carried over: 2 records",
    ]  # fmt: skip
    assert [v.network for v in load_table(lut).visits] == ["a", "b"]
    assert len(load_records([tuning.parent])) == 3
    contents = [path.read_bytes() for path in files]
    done = cli("upgrade", *files).succeeded()
    assert done.out.splitlines() == [f"{path}: is of this version already" for path in files]
    assert [path.read_bytes() for path in files] == contents


def test_a_packed_table_stays_packed(cli, files):
    lut, _ = files
    packed = lut.with_name(f"{lut.name}.xz")
    packed.write_bytes(lzma.compress(lut.read_bytes()))
    lut.unlink()
    done = cli("upgrade", lut).succeeded()
    assert done.out == f"{lut}: carried over: 2 records\n"
    assert [v.network for v in load_table(packed).visits] == ["a", "b"]
    assert not lut.exists()
    assert "is of this version already" in cli("upgrade", packed).succeeded().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a latency table nor tuning records: it has no line"),
        (b"some notes\n", "line 1: not JSON"),
        (b"\x80\xff\x00\n", "line 1: not JSON"),
        (b"[1]\n", "line 1: expected a JSON object"),
        (b'{"format_version": 1, "ops": {}}\n', "line 1: of neither a latency table nor tuning"),
        (b'{"kind": "hmseg-latency-table", "format_version": 1}\n', "line 1: "),
    ],
)
def test_another_file_is_refused_in_one_line(cli, files, tmp_path, content, message):
    """What was named before it is carried over, and what comes behind it."""
    lut, tuning = files
    other = tmp_path / "other"
    other.write_bytes(content)
    done = cli("upgrade", lut, other, tuning)
    assert (done.code, done.error) == (1, "error: 1 of 3 files failed")
    assert f"failed: {other}" in done.err
    assert message in done.err
    assert other.read_bytes() == content
    assert len(load_records([tuning.parent])) == 3
    assert len(load_table(lut).visits) == 2


def test_no_such_file_and_no_file(cli, tmp_path):
    assert "missing.jsonl: no such file" in cli("upgrade", tmp_path / "missing.jsonl").error
    assert "cannot be read" in cli("upgrade", tmp_path).error
    assert cli("upgrade").code == 2
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_of_a_table_stays_as_it_was(cli, files):
    """Every figure and every other word."""
    lut, _ = files
    old = [json.loads(line) for line in lut.read_text().splitlines()]
    cli("upgrade", lut).succeeded()
    new = [json.loads(line) for line in lut.read_text().splitlines()]
    for before, after in zip(old[1:], new[1:], strict=True):
        entries = before.pop("entries", {}), after.pop("entries", {})
        assert before == after
        assert [*entries[0].values()] == [*entries[1].values()]
    assert old[0] | {"format_version": 2} == new[0]
