import json

import pytest

from deploy.artifact_file import save_artifact
from lut.words import kernel_in_words
from tests.deploy.cli.conftest import files
from tests.deploy.report.samples import bench_json


def test_what_a_command_wrote_is_on_the_page(cli, tmp_path, small_artifact):
    save_artifact(small_artifact, tmp_path / "n.hmseg")
    written = cli("profile", "n.hmseg", "--repeat", "2", "--json").succeeded().out
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "profile.json").write_text(written)
    done = cli("report", "results", "-o", "out/page.html").succeeded()
    assert done.out == "out/page.html\n"
    page = (tmp_path / "out" / "page.html").read_text()
    found = json.loads(written)
    assert f"A frame takes {found['frame_ms']:.3f} ms" in page
    for kernel in found["kernels"]:
        assert f">{kernel['name']}<" in page
        assert kernel_in_words(kernel["spec"]) in page
        assert f'data-value="{kernel["median_ms"]!r}"' in page


def test_this_folder_and_its_own_page(cli, tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps(bench_json()))
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert "passed over, no results: a.png\n1 file of results\n" in cli("report").succeeded().err
    first = (tmp_path / "report.html").read_bytes()
    assert "passed over, no results: a.png, report.html\n" in cli("report").succeeded().err
    assert (tmp_path / "report.html").read_bytes() != first  # it names what it passed over
    assert files(tmp_path) == ["a.png", "bench.json", "report.html"]


def test_many_files_that_are_passed_over_are_counted(cli, tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps(bench_json()))
    for number in range(13):
        (tmp_path / f"{number:02}.txt").write_text("x")
    done = cli("report", "-o", "r.html").succeeded()
    assert "08.txt, 09.txt and 3 more\n" in done.err
    assert (tmp_path / "r.html").read_text().count(".txt</li>") == 13


def test_a_damaged_file_is_named_and_the_page_has_the_others(cli, tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps(bench_json()))
    (tmp_path / "cut.json").write_text('{"latency": ')
    done = cli("report")
    assert (done.code, done.out) == (1, "report.html\n")
    assert "damaged: cut.json: not JSON" in done.err
    assert done.error == "error: 1 damaged file; report.html has the others"
    assert "tiny-hmseg" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ({}, 2, "results is empty: there is nothing to report"),
        ({"a.txt": "x"}, 2, "results holds no results; write some there"),
        ({"a.json": "{"}, 1, "results holds no result that can be read, and 1 damaged file"),
    ],
)
def test_nothing_to_show(cli, tmp_path, content, code, message):
    (tmp_path / "results").mkdir()
    for name, text in content.items():
        (tmp_path / "results" / name).write_text(text)
    done = cli("report", "results")
    assert (done.code, done.out) == (code, "")
    assert message in done.error
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["missing"], "missing: no such folder"), (["-o", "."], "it is a folder; name a file")],
)
def test_bad_input(cli, arguments, message):
    done = cli("report", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.error
