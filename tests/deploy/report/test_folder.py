"""Folders of results: what is found, what is passed over, and what does not stop it."""

import json
import os
import subprocess
import sys

import pytest

from deploy.report.folder import read_folder
from deploy.report.kinds import KINDS
from deploy.report.page import page_of
from hmseg.data.files import PassedOverWarning
from lut.errors import UserError
from tests.deploy.report.samples import FILES, bench_json, write_samples
from tests.deploy.test_profile import PROFILE


def test_each_kind_is_known_by_its_content(tmp_path):
    for number, path in enumerate(write_samples(tmp_path / "named").rglob("*.json*")):
        # Under a name that says nothing. What a packed file holds, only its name says.
        suffix = "".join(path.suffixes[-2:]) if path.suffix == ".xz" else ""
        path.rename(tmp_path / f"{number}{suffix}")
    found = read_folder(tmp_path)
    assert [kind.title for kind, _ in found.found] == [kind.title for kind in KINDS]
    assert sum(len(results) for _, results in found.found) == len(FILES)
    assert not found.passed_over
    assert not found.damaged


def test_one_damaged_file_does_not_stop_the_others(tmp_path):
    (tmp_path / "good.json").write_text(json.dumps(bench_json()))
    (tmp_path / "cut.json").write_text(json.dumps(bench_json())[:-20])
    wrong = bench_json() | {"latency": {"hmseg": {"median_ms": "fast"}}}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    found = read_folder(tmp_path)
    assert list(found.damaged) == ["cut.json", "wrong.json"]
    assert found.damaged["cut.json"].startswith("not JSON")
    assert found.damaged["wrong.json"] == "latency: hmseg: 'n' is missing"
    page = page_of(found, "t")
    assert "<code>good.json</code>" in page
    assert "wrong.json: latency: hmseg: &#x27;n&#x27; is missing" in page


def test_what_is_no_result_is_passed_over(tmp_path):
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    (tmp_path / "deep" / "bench.json").write_text(json.dumps(bench_json()))
    for name in ("deep/.hidden/bench.json", ".bench.json"):
        (tmp_path / name).write_text("{")
    (tmp_path / "notes.txt").write_text("{ what I did")
    (tmp_path / "other.json").write_text('{"latency": 3}')
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "missing")
    (tmp_path / "round").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    found = read_folder(tmp_path)
    assert found.passed_over == ["notes.txt", "other.json"]
    assert found.damaged == {"nowhere.json": "no such file"}
    ((_, (result,)),) = found.found
    assert result.source.file == "deep/bench.json"


def test_links_are_followed_and_what_is_hidden_is_counted(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "bench.json").write_text(json.dumps(bench_json()))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "results" / "._bench.json").write_text("{")
    with pytest.warns(PassedOverWarning, match="files passed over: 1 hidden"):
        found = read_folder(tmp_path / "results")
    ((_, (result,)),) = found.found
    assert result.source.file == "link/bench.json"


@pytest.mark.parametrize(
    ("name", "message"), [("missing", "no such folder"), ("empty", "empty is empty")]
)
def test_nothing_to_look_at(tmp_path, name, message):
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        read_folder(tmp_path / name)


def test_no_other_package_is_needed(tmp_path):
    """Neither torch nor TVM, nor what draws pictures elsewhere."""
    write_samples(tmp_path)
    (tmp_path / "profiled.json").write_text(json.dumps(bench_json(PROFILE)))
    code = (
        "import sys; from pathlib import Path; from deploy.report.folder import read_folder; "
        "from deploy.report.page import page_of; page_of(read_folder(Path(sys.argv[1])), 'x'); "
        "print(sorted({'torch', 'tvm', 'tvm_ffi', 'onnx', 'onnxruntime', 'matplotlib', 'PIL', "
        "'pandas', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
