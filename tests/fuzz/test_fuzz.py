"""A few damaged files of every kind; `python -m tests.fuzz` reads as many as one likes."""

import json
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz.__main__ import fuzz
from tests.fuzz.kinds import KINDS
from tests.fuzz.mutations import damage_bytes, damage_json, json_text
from tests.fuzz.worker import read

CORPUS = Path(__file__).parent / "corpus"
FEW = 12  # of each kind here
MOST_BYTES = 1 << 30


@pytest.mark.parametrize("name", KINDS)
def test_whole_files_are_taken(name, tmp_path):
    """Else damage would be refused for another reason."""
    kind = KINDS[name]
    for number, content in enumerate(kind.seeds()):
        path = tmp_path / str(number) / f"whole{kind.suffix}"
        path.parent.mkdir()
        path.write_bytes(content)
        kind.read(path)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: path.name)
def test_what_escaped_once(path, tmp_path):
    kind = KINDS[path.parent.name]
    copy = tmp_path / f"damaged{kind.suffix}"
    copy.write_bytes(path.read_bytes())
    assert read(path.parent.name, copy) is None


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_one_line_each(name):
    """In a process of its own, with so much memory."""
    outcomes = list(fuzz(name, range(FEW)))
    assert [outcome.number for outcome in outcomes] == list(range(FEW))
    assert [outcome.escaped for outcome in outcomes if outcome.escaped] == []
    assert 0 < max(outcome.bytes for outcome in outcomes) < MOST_BYTES


def test_the_same_number_is_the_same_file():
    for kind in KINDS.values():
        assert kind.file(3) == kind.file(3)
    assert len({KINDS["image"].file(number) for number in range(20)}) > 15


def test_what_escapes_is_seen(monkeypatch, tmp_path):
    path = tmp_path / "file"
    kind = KINDS["network"]

    def fail(_: Path) -> None:
        raise KeyError("x")

    monkeypatch.setitem(KINDS, "network", type(kind)(kind.suffix, kind.seeds, kind.damage, fail))
    assert "KeyError" in (read("network", path) or "")


def worker(monkeypatch, text):
    """Another program in place of the one that reads: its FIRST and END are the files'."""
    head = "import os, signal, sys, time\nfirst, end = int(sys.argv[2]), int(sys.argv[4])\n"
    head += "def say(**what): print(__import__('json').dumps(what), flush=True)\n"
    monkeypatch.setattr(command, "_WORKER", (sys.executable, "-c", head + text))


@pytest.mark.parametrize("text", ["os.kill(os.getpid(), signal.SIGKILL)", "pass", "sys.exit('x')"])
def test_a_worker_that_ends_before_its_first_file_is_an_error(monkeypatch, text):
    worker(monkeypatch, text)
    with pytest.raises(RuntimeError, match="the worker for image ended"):
        list(fuzz("image", range(3)))


def test_much_on_stderr_stops_no_worker(monkeypatch):
    worker(
        monkeypatch,
        "for n in range(first, end):\n"
        "    say(begun=n); sys.stderr.write('x' * 200_000); say(read=n, escaped=None, bytes=1)",
    )
    assert [outcome.number for outcome in fuzz("image", range(3))] == [0, 1, 2]


def test_a_file_that_waits_or_ends_its_process_is_left_behind(monkeypatch):
    monkeypatch.setattr(command, "_SILENT_S", 1.0)
    worker(
        monkeypatch,
        "for n in range(first, end):\n"
        "    say(begun=n)\n"
        "    if n == 1: time.sleep(100)\n"
        "    if n == 2: os.abort()\n"
        "    say(read=n, escaped=None, bytes=1)",
    )
    found = {outcome.number: outcome.escaped for outcome in fuzz("image", range(4))}
    assert found[0] is found[3] is None
    assert "says nothing for 1 s" in found[1]
    assert "the process ended (-6)" in found[2]


def test_mutations():
    rng = Random(0)
    value = {"a": [1, {"b": 2}], "c": "text"}
    changed = {json_text(damage_json(value, rng)) for _ in range(200)}
    assert len(changed) > 60
    assert any(text.count(b"[") > 50_000 for text in changed)
    assert json.dumps(value) == json.dumps({"a": [1, {"b": 2}], "c": "text"})
    assert len({damage_bytes(bytes(100), rng) for _ in range(100)}) > 50
