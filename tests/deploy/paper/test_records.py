import json
from dataclasses import replace

import pytest

from deploy.paper.jobs import Job, describe_protocol, protocol_of
from deploy.paper.records import FILE, Found, Record, Records
from deploy.resolution import Resolution
from lut.errors import UserError
from tests.deploy.paper.fakes import record, setting

SIZE = Resolution(64, 128)


def test_a_line_says_all_of_itself(tmp_path):
    made = record("enet", hmseg=[[1.0, 2.0]], absent={"OpenVINO": "it is not installed"})
    records = Records(tmp_path / FILE)
    records.append(made)
    line = json.loads((tmp_path / FILE).read_text())
    assert (line["kind"], line["network"], line["resolution"]) == ("paper", "enet", "64x128")
    assert line["setting"]["provenance"]["cpu"] == "Chip 1"
    assert Records(tmp_path / FILE).all == [made]
    assert made.absent == {"OpenVINO": "it is not installed"}
    assert record("enet", failed="no").absent == record("enet", failed="no").samples == {}


def test_the_newest_of_a_job_counts(tmp_path):
    records = Records(tmp_path / FILE)
    old, new = (record("enet", hmseg=[[ms]]) for ms in (1.0, 2.0))
    for each in (old, new, record("enet", failed="out of memory"), record("unet", failed="no")):
        records.append(each)
    assert records.newest(Job("enet", SIZE, 19)) == new  # what failed later takes nothing away
    assert records.newest(Job("unet", SIZE, 19)).failed == "no"
    assert records.newest(Job("unet", SIZE, 19), failed=False) is None
    assert records.newest(Job("enet", SIZE, 11)) is None
    assert records.newest(Job("enet", Resolution(64, 64), 19)) is None
    profiled = record("enet", profiled=True, hmseg=[[3.0]])
    assert records.newest(profiled.job) is None
    records.append(profiled)
    assert records.newest(profiled.job) == records.newest(Job("enet", SIZE, 19)) == profiled


def test_settings_differ_by_all_but_the_date():
    own = setting()
    assert own == setting(date="2027-01-01T00:00:00+00:00")
    for changes in ({"cpu": "Chip 2"}, {"versions": {"torch": "3"}}, {"protocol": "others"}):
        assert own != setting(**changes)
    assert own != replace(own, threads=1)
    records = [record("enet", hmseg=[[1.0]], on=on) for on in (own, setting("Chip 2"))]
    found = Found(records)
    assert found.settings() == [own, setting("Chip 2")]
    assert found.of(own).all == records[:1]
    again = [*records, replace(records[0], date="2026-12-01T10:00:00+00:00")]
    assert Found(again).settings() == [setting("Chip 2"), own]  # the newest stands last
    assert str(own) == "Chip 1, 2 threads"
    assert own.machine == "Chip 1, 2 threads, cpu"
    assert replace(own, place="adb:A").machine == "Chip 1, 2 threads, cpu, adb:A"
    assert str(replace(own, threads=1)) == "Chip 1, 1 thread"
    assert str(replace(own, threads=0)) == "Chip 1"


def test_a_torn_last_line_is_dropped(tmp_path):
    records = Records(tmp_path / FILE)
    records.append(record("enet", hmseg=[[1.0]]))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"kind": "pa')
    with pytest.warns(UserWarning, match="cut short"):
        found = Records(tmp_path / FILE)
    assert len(found.all) == 1
    found.append(record("unet", hmseg=[[1.0]]))
    assert len(Records(tmp_path / FILE).all) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "bench"}, "a line of the kind 'bench', not 'paper'"),
        ({"version": 2}, "a newer program"),
        ({"macs": None}, "the field 'macs' is missing"),
        ({"setting": {}}, "the field 'place' is missing"),
        ({"resolution": "large"}, "HEIGHTxWIDTH"),
        ({"classes": "many"}, "the field 'classes' is 'many', not int"),
        ({"result": {}}, "the result has no samples of hmseg"),
        ({"result": {"samples_ns": {"hmseg": [[1]], "TVM": []}}}, "the samples of 'TVM' are no"),
        ({"result": {"samples_ns": {"hmseg": [["fast"]]}}}, "the samples of 'hmseg' are no"),
        ({"result": {"samples_ns": {}, "absent": [1]}}, "the absent peers are"),
        (
            {"result": {"samples_ns": {}, "left_to_tvm": {"a": "much"}}},
            "what is left to TVM has no",
        ),
        ({"result": {"samples_ns": {}}, "profiled": True}, "the profile is missing"),
    ],
)
def test_what_is_no_record_of_ours(tmp_path, change, message):
    line = record("enet", hmseg=[[1.0]]).to_json() | change
    line = {name: value for name, value in line.items() if value is not None or name == "result"}
    (tmp_path / FILE).write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=rf"paper\.jsonl, line 1: .*{message}"):
        Records(tmp_path / FILE)


def test_protocols():
    """Blocks of a second or two; the same for the same job everywhere."""
    small, large = protocol_of(10**9, 4), protocol_of(150 * 10**9, 4)
    assert (small.repeat, small.warmup, small.rounds) == (20, 3, 4)
    assert (large.repeat, large.warmup, large.rounds) == (3, 1, 4)
    assert protocol_of(0, 1).repeat == 20
    assert describe_protocol(4).startswith("4 rounds")
    assert Record.from_json(record("enet", hmseg=[[1.0]]).to_json()).job == Job("enet", SIZE, 19)
