import errno
import hashlib
import lzma
import os
import threading

import pytest

from lut.errors import UserError
from lut.jsonl import (
    append_record,
    content_digest,
    hold_records,
    read_records,
    rewrite_records,
    stored,
)


def test_records_read_back_in_order(tmp_path):
    path = tmp_path / "folder" / "r.jsonl"
    assert read_records(path) == []
    append_record(path, {"a": 1})
    append_record(path, {"b": [1.5]})
    assert read_records(path) == [{"a": 1}, {"b": [1.5]}]
    rewrite_records(path, [{"c": 1}])
    assert read_records(path) == [{"c": 1}]


@pytest.mark.parametrize("torn", ['{"a": 2', "x" * 9000])
def test_appending_drops_a_line_that_was_cut_short(tmp_path, torn):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n' + torn)
    with pytest.warns(UserWarning, match="cut short"):
        assert read_records(path) == [{"a": 1}]
    append_record(path, {"a": 3})
    assert read_records(path) == [{"a": 1}, {"a": 3}]
    path.write_text(torn)
    append_record(path, {"a": 4})
    assert read_records(path) == [{"a": 4}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ("[1]", "line 1: expected a JSON object"),
    ],
    ids=["cut", "deep", "list"],
)
def test_damage_elsewhere_names_its_line(tmp_path, line, message):
    path = tmp_path / "r.jsonl"
    path.write_text(line + '\n{"a": 1}\n')
    with pytest.raises(UserError, match=message):
        read_records(path)


def test_what_is_appended_while_a_file_is_rewritten_is_in_the_new_one(tmp_path):
    path = tmp_path / "r.jsonl"
    append_record(path, {"a": 1})
    other = threading.Thread(target=append_record, args=(path, {"b": 2}))
    with hold_records(path):
        other.start()
        other.join(0.2)
        assert other.is_alive()  # it waits
        rewrite_records(path, [{"a": 3}])
    other.join()
    assert read_records(path) == [{"a": 3}, {"b": 2}]
    with pytest.raises(UserError, match=r"none.jsonl: cannot be read"), hold_records(
        tmp_path / "none.jsonl"
    ):  # fmt: skip
        pass


def test_an_unwritable_place(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        append_record(tmp_path, {"a": 1})


def test_a_disk_that_fills_up_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    append_record(path, {"a": 1})
    write, left = os.write, [3]

    def until_full(handle, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(handle, data[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr("os.write", until_full)
    with pytest.raises(UserError, match=r"r.jsonl: No space left.*; .* free the disk"):
        append_record(path, {"a": 2})
    assert path.read_text() == '{"a": 1}\n'


def test_a_packed_file_is_read_where_its_name_without_the_ending_is(tmp_path):
    path, packed = tmp_path / "r.jsonl", tmp_path / "r.jsonl.xz"
    records = [{"a": n} for n in range(1000)]
    rewrite_records(packed, records)
    assert packed.read_bytes().startswith(b"\xfd7zXZ\0")
    assert stored(path) == packed
    assert read_records(path) == read_records(packed) == records
    rewrite_records(path, records[:1])
    assert stored(path) == path  # what can grow goes first
    assert read_records(path) == records[:1]


def test_the_digest_is_of_what_is_in_it(tmp_path):
    path, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.xz"
    for each in (path, packed):
        rewrite_records(each, [{"a": 1}])
    assert content_digest(path) == content_digest(packed) == content_digest(tmp_path / "b.jsonl")
    assert content_digest(path) == hashlib.sha256(b'{"a": 1}\n').hexdigest()
    with pytest.raises(UserError, match="no such file"):
        content_digest(tmp_path / "none")


@pytest.mark.parametrize("damage", [lambda d: d[:-9], lambda d: b"x" + d, lambda d: b""])
def test_a_packed_file_that_is_damaged(tmp_path, damage):
    packed = tmp_path / "r.jsonl.xz"
    rewrite_records(packed, [{"a": 1}])
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(UserError, match="damaged or cut short"):
        read_records(packed)


def test_a_packed_file_that_would_take_all_memory(tmp_path):
    packed = tmp_path / "r.jsonl.xz"
    packed.write_bytes(lzma.compress(bytes(40 << 20), preset=0))
    with pytest.raises(UserError, match=r"its \d+ bytes would become more than"):
        read_records(packed)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    packed.write_bytes(lzma.compress(b"{}\n", filters=filters))
    with pytest.raises(UserError, match="damaged or cut short"):
        read_records(packed)


def test_a_packed_file_with_something_behind_it(tmp_path):
    packed = tmp_path / "r.jsonl.xz"
    packed.write_bytes(lzma.compress(b"{}\n") * 2)
    with pytest.raises(UserError, match="does not end where its content does"):
        read_records(packed)
