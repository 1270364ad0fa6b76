"""The command for real on one tiny network, stopped, killed and told wrong things."""

import json
import os
import shutil
import signal
import subprocess
from collections import namedtuple
from importlib.util import find_spec

import pytest
from PIL import Image

from deploy.cli.hmseg_deploy import main
from deploy.paper import measure
from lut.files import lock_folder
from tests.deploy.cli.conftest import PROGRAM, run_here

# DFANet takes sides of a multiple of 64: it fails, and the table goes on.
SIZE, ROWS = "64x96", "dfanet,cas,tiny-mrms"
TINY = ("--resolution", SIZE, "--rounds", "1")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder of a table in which one network fails: its file as the first run left it, which
    was killed when the second network's turn had come, and what the second run said."""
    folder = tmp_path_factory.mktemp("paper") / "out"
    arguments = ("paper", "table1", "--rows", ROWS, *TINY, "-o", folder)
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True, env={**os.environ, "TVM_NUM_THREADS": "2"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "2 of 2, tiny-mrms 64x96: begins" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    left = (folder / "paper.jsonl").read_text()
    with (folder / "paper.jsonl").open("a") as file:
        file.write('{"kind": "paper", "torn')  # as it would be, had the kill met a write
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TVM_NUM_THREADS", "2")
        return folder, left, run_here(main, "hmseg-deploy", *arguments)


def lines(folder):
    return (folder / "paper.jsonl").read_text().splitlines()


def test_a_network_that_fails_is_named_and_the_table_goes_on(measured):
    folder, _, done = measured
    assert done.code == 1
    assert "1 networks failed, the first: dfanet-b 64x96: it does not take this" in done.error
    text = (folder / "table1.md").read_text()
    assert done.out.rstrip("\n") == text.rstrip("\n")
    dfanet, cas, tiny = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert dfanet.startswith("| DFANet")
    assert "67.1 (print)" in dfanet
    assert cas.startswith("| CAS | - | 64x96 | - | 12.0 |")
    assert "| 0.62 | 0.6[^" in tiny
    assert "]: failed: it does not take this size" in text
    with Image.open(folder / "table1.png") as picture:
        assert picture.format == "PNG"


def test_the_records_say_all_of_themselves(measured):
    _, failed, done = map(json.loads, lines(measured[0]))
    assert failed["network"] == "dfanet-b"
    assert failed["result"] is None
    assert (done["kind"], done["network"], done["resolution"]) == ("paper", "tiny-mrms", SIZE)
    assert done["parameters"] == 621_827
    result = done["result"]
    assert result["parity"]["checked"] is True
    sides = {"hmseg", "onnxruntime"} | ({"OpenVINO"} if find_spec("openvino") else set())
    assert set(result["samples_ns"]) == sides
    assert all(
        len(rounds) == 1 and len(rounds[0]) == 20 for rounds in result["samples_ns"].values()
    )
    assert set(result["absent"]) == {"OpenVINO"} - sides
    assert set(done["setting"]["provenance"]["versions"]) >= {"hmseg", "torch", "onnxruntime"}


def test_progress_says_what_is_next(measured):
    err = measured[2].err
    assert "1 of 2, dfanet-b 64x96: begins\n" in err
    assert "2 of 2, tiny-mrms 64x96: begins, about" in err


def test_what_is_measured_is_not_measured_again(measured, cli, tmp_path):
    """What failed is tried again; --json; another view takes what this one measured."""
    shutil.copytree(measured[0], tmp_path / "out")
    before = lines(tmp_path / "out")
    done = cli("paper", "table1", "table5", "--rows", ROWS, *TINY, "-o", "out", "--json")
    assert done.code == 1
    assert lines(tmp_path / "out")[:3] == before
    (again,) = map(json.loads, lines(tmp_path / "out")[3:])
    assert (again["network"], bool(again["failed"])) == ("dfanet-b", True)
    data = json.loads(done.out)
    assert [page["name"] for page in data["pages"]] == ["table1", "table5"]
    assert len(data["failed"]) == 1
    (tiny,) = [row for row in data["pages"][1]["rows"] if row[0].startswith("TinyMRMS")]
    assert float(tiny[2].split()[0]) > 0


def test_killed_and_resumed(measured):
    """Nothing that was written is lost or changed, and no line is torn."""
    folder, left, _ = measured
    assert left.count("\n") == 1
    assert json.loads(left)["network"] == "dfanet-b"
    text = (folder / "paper.jsonl").read_text()
    assert text.startswith(left)
    networks = [json.loads(line)["network"] for line in lines(folder)]
    assert networks == ["dfanet-b", "dfanet-b", "tiny-mrms"]  # what failed is tried again


def test_figures_of_counts_alone_measure_nothing(cli, tmp_path):
    done = cli("paper", "figure1", "--rows", "bisenet", "-o", "out").succeeded()
    assert "| BiSeNet Xception39 | 768x1536 | 0.93 | 14.69 | 94% | 0.30 | 1.24 | 81% |" in done.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "figure1.md", "figure1.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table7"], "unknown table or figure 'table7'"),
        (["table1", "--rows", "u-net"], "unknown row 'u-net'"),
        (["table1", "--rows", "icnet,,cas"], "write names with commas"),
        (["table1", "-r", "big"], "HEIGHTxWIDTH"),
        (["table1", "--device", "telnet:box"], "telnet:box"),
        (["table1", "--target", "pdp11"], "pdp11"),
        (["table1", "-o", "a-file"], "cannot write"),
    ],
)
def test_bad_input(cli, tmp_path, arguments, message):
    (tmp_path / "a-file").write_text("")
    done = cli("paper", *arguments)
    assert done.code == 2
    assert message in done.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-file"]


def test_a_folder_that_another_process_uses(cli, tmp_path):
    with lock_folder(tmp_path / "paper"):
        done = cli("paper", "figure1")
    assert done.code == 2
    assert "another process is at work in paper" in done.error


def test_no_room_on_the_disk(cli, tmp_path, monkeypatch):
    """It ends: no other network would do better; nothing is recorded as failed."""
    usage = namedtuple("usage", "total used free")(1, 1, 1_000_000)
    monkeypatch.setattr(measure.shutil, "disk_usage", lambda _: usage)
    done = cli("paper", "table1", "--rows", "tiny-mrms", *TINY)
    assert done.code == 2
    assert "has 1 MB free, a network of this size needs" in done.error
    assert not (tmp_path / "paper" / "paper.jsonl").exists()
