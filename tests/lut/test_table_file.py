import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lut.errors import UserError, WorkError
from lut.table import Merge, Table
from lut.table_file import CarryOver, add_retiming, load_table, open_table, save_table
from tests.lut.tables import IDENTITY, KEY, PROVENANCE, again, table, visit


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "t.jsonl"
    save_table(table(visit("a"), visit("b"), name=str(path)), path)
    return path


def test_round_trip(path):
    assert load_table(path) == table(visit("a"), visit("b"), name=str(path))


def test_a_torn_last_line_is_dropped_and_written_over(path):
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "visit", "netw')
    with pytest.warns(UserWarning, match="cut short"):
        assert len(load_table(path).visits) == 2
    with (
        pytest.warns(UserWarning, match="cut short"),
        open_table(path, IDENTITY, PROVENANCE) as writer,
    ):
        writer.append(visit("c"))
    assert [v.network for v in load_table(path).visits] == ["a", "b", "c"]


def _header(path, **changes):
    first, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(first) | changes) + "\n" + rest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 4}, "newer than this program's 3"),
        ({"format_version": 1}, "from before operations had a text of their own; carry it over"),
        ({"format_version": 0}, "format version is 0"),
        ({"format_version": "1"}, "format version is '1'"),
        ({"unit": "ms"}, "unit is 'ms'; latencies are in microseconds"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"kind": "other"}, "not a latency table"),
        ({"threads": "2"}, "'threads' is '2', not int"),
        ({"width": float("nan")}, "'width' is nan, not float"),
    ],
)
def test_a_wrong_header_is_refused(path, changes, message):
    _header(path, **changes)
    with pytest.raises(UserError, match=rf"t.jsonl, line 1: .*{message}"):
        load_table(path)


def test_a_table_of_an_earlier_version_can_be_carried_over(path):
    _header(path, format_version=1)
    with pytest.raises(UserError) as caught:
        load_table(path)
    assert caught.value.mend == CarryOver(str(path))


def test_damage_names_its_line(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3].replace("10.0", "NaN"), ""]))
    with pytest.raises(UserError, match=r"line 4: .*sample nan"):
        load_table(path)
    path.write_text("\n".join([lines[0], *lines[2:], ""]))
    with pytest.raises(UserError, match=r"line 2: a record of kind 'visit' has no place"):
        load_table(path)
    path.write_text("")
    with pytest.raises(UserError, match="not a latency table: it has no line"):
        load_table(path)
    path.unlink()
    with pytest.raises(UserError, match="no such table"):
        load_table(path)


def test_going_on_needs_the_same_identity_and_provenance(path):
    later = replace(PROVENANCE, date="tomorrow")
    with open_table(path, IDENTITY, later) as writer:
        assert len(writer.table.visits) == 2
        writer.append(visit("c"))
        assert len(writer.table.visits) == 3
    assert len(load_table(path).runs) == 1
    with (
        pytest.raises(UserError, match=r"for something else: threads 4 and 2"),
        open_table(path, replace(IDENTITY, threads=4), PROVENANCE),
    ):
        pass
    with (
        pytest.raises(UserError, match=r"another cpu and schedules.*join the two") as caught,
        open_table(path, IDENTITY, replace(PROVENANCE, cpu="B", schedules="x")),
    ):
        pass
    assert caught.value.mend == Merge((str(path), "OTHER.jsonl"))


@pytest.mark.filterwarnings("ignore:.*cut short")
def test_a_file_that_is_no_table_is_left_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    for text in ("a thesis without a line's end", "line\n", '{"kind": "list"}\n'):
        path.write_text(text)
        with (
            pytest.raises(UserError, match=r"not a latency table|not JSON"),
            open_table(path, IDENTITY, PROVENANCE),
        ):
            pass
        assert path.read_text() == text
    path.write_text("")
    with open_table(path, IDENTITY, PROVENANCE) as writer:
        assert writer.table.visits == []
    with (
        pytest.raises(UserError, match=r"cannot be read|folder"),
        open_table(tmp_path, IDENTITY, PROVENANCE),
    ):
        pass
    with pytest.raises(UserError, match="cannot be read"):
        load_table(tmp_path)


def test_a_table_without_measurements_is_begun_anew(path):
    for nothing in (Table(IDENTITY, (), ""), table()):
        save_table(nothing, path)
        other = replace(IDENTITY, threads=4)
        with open_table(path, other, replace(PROVENANCE, cpu="B")) as writer:
            assert writer.table.identity == other
        found = load_table(path)
        assert (found.identity, found.runs[0][0].cpu) == (other, "B")


def test_a_measurement_that_cannot_be_read_back_is_not_kept(path):
    before = path.read_bytes()
    with (
        pytest.raises(WorkError, match=r"of c is of no use .*the sample 0.0.*clock"),
        open_table(path, IDENTITY, PROVENANCE) as writer,
    ):
        writer.append(visit("c", {KEY: 0.0}))
    assert path.read_bytes() == before


def test_a_link_is_no_second_table(path, tmp_path):
    link = tmp_path / "latest.jsonl"
    link.symlink_to(path)
    with (
        open_table(path, IDENTITY, PROVENANCE),
        pytest.raises(UserError, match="another process is building"),
        open_table(link, IDENTITY, PROVENANCE),
    ):
        pass


def test_one_builder_at_a_time(path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\nfrom lut.table_file import open_table\n"
        "from tests.lut.tables import *\n"
        "with open_table(Path(sys.argv[1]), IDENTITY, PROVENANCE):\n"
        "    print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path), Path.cwd()], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        with (
            pytest.raises(UserError, match="another process is building"),
            open_table(path, IDENTITY, PROVENANCE),
        ):
            pass
        with pytest.raises(UserError, match="another process is building"):
            save_table(table(), path)
        other.kill()
    with open_table(path, IDENTITY, PROVENANCE):
        pass  # the dead builder's lock is gone


WRITE = (
    "import sys; sys.path.insert(0, sys.argv[2])\n"
    "from pathlib import Path\nfrom lut.table_file import open_table\n"
    "from tests.lut.tables import *\n"
    "with open_table(Path(sys.argv[1]), IDENTITY, PROVENANCE) as writer:\n"
    "    done = len(writer.table.visits)\n"
    "    for number in range(done, done + 100000):\n"
    "        writer.append(visit(str(number), rounds=200))\n"
)


@pytest.mark.filterwarnings("ignore:.*cut short")
def test_killed_at_random_moments_nothing_is_lost_or_doubled(tmp_path):
    path, rng = tmp_path / "t.jsonl", random.Random(4)
    before = 0
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", WRITE, str(path), Path.cwd()])
        deadline = time.monotonic() + 30
        size = path.stat().st_size if path.exists() else 0
        while time.monotonic() < deadline and not (path.exists() and path.stat().st_size > size):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        names = [v.network for v in load_table(path).visits]
        assert names == [str(n) for n in range(len(names))]
        assert len(names) >= before
        before = len(names)
    assert before > 10


def test_a_packed_table_is_read_and_cannot_grow(path, tmp_path):
    packed = tmp_path / "t.jsonl.xz"
    save_table(load_table(path), packed)
    path.unlink()
    assert load_table(path).runs == load_table(packed).runs
    for named in (path, packed):
        with (
            pytest.raises(UserError, match="is packed, and cannot grow; run: unxz"),
            open_table(named, IDENTITY, PROVENANCE),
        ):
            pass
    assert not path.exists()


class TestTimedAgain:
    def test_it_is_one_more_record_and_the_file_says_a_later_version(self, path):
        before = path.read_text().splitlines()
        found = add_retiming(path, again(visit("a", role="calibration")), path)
        after = path.read_text().splitlines()
        assert json.loads(before[0])["format_version"] == 2
        assert json.loads(after[0])["format_version"] == 3  # what does not know it must not read it
        assert after[1:-1] == before[1:]
        assert json.loads(after[-1])["kind"] == "retiming"
        assert load_table(path) == found
        add_retiming(path, again(visit("b", role="calibration")), path)
        assert [r.visits[0].network for r in load_table(path).retimings] == ["a", "b"]

    def test_a_build_goes_on_with_it(self, path):
        add_retiming(path, again(visit("a", role="calibration")), path)
        with open_table(path, IDENTITY, PROVENANCE) as writer:
            writer.append(visit("c"))
            assert len(writer.table.retimings) == 1
        found = load_table(path)
        assert [v.network for v in found.visits] == ["a", "b", "c"]
        assert len(found.retimings) == 1

    def test_a_packed_table_stays_as_it_is(self, path, tmp_path):
        packed, out = tmp_path / "p.jsonl.xz", tmp_path / "out.jsonl"
        save_table(load_table(path), packed)
        retiming = again(visit("a", role="calibration"))
        for named in (packed, packed.with_suffix("")):
            with pytest.raises(UserError, match="is packed, and cannot grow"):
                add_retiming(named, retiming, named)
        add_retiming(packed.with_suffix(""), retiming, out)
        assert load_table(out).retimings == (retiming,)
        assert not load_table(packed).retimings

    def test_what_could_not_be_read_back_is_not_kept(self, path):
        whole = path.read_bytes()
        with pytest.raises(WorkError, match=r"of no use and was not kept: .*the sample 0"):
            add_retiming(path, again(visit("a", whole=0.0, role="calibration")), path)
        assert path.read_bytes() == whole

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('"host": "h"', '"host": 1', "'host' is 1, not str"),
            ('"visits": [', '"visits": [], "x": [', "unknown field 'x'"),
            ('"role": "calibration"', '"role": "entries"', "has the role calibration"),
            ('"kind": "retiming"', '"kind": "other"', "kind 'other' has no place here"),
        ],
    )
    def test_damage_names_its_line(self, path, old, new, message):
        add_retiming(path, again(visit("a", role="calibration")), path)
        *lines, last = path.read_text().splitlines()
        assert old in last
        path.write_text("\n".join([*lines, last.replace(old, new), ""]))
        with pytest.raises(UserError, match=rf"t.jsonl, line 5: .*{message}"):
            load_table(path)

    def test_there_is_at_least_one_measurement(self, path):
        add_retiming(path, again(visit("a", role="calibration")), path)
        *lines, last = path.read_text().splitlines()
        path.write_text("\n".join([*lines, json.dumps(json.loads(last) | {"visits": []}), ""]))
        with pytest.raises(UserError, match=r"line 5: 'visits' are \[\], not a list"):
            load_table(path)
