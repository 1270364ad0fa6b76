"""docs/paper.md is what the committed records say."""

import re
from statistics import mean

import pytest

from benchmarks import paper_page
from benchmarks.results_lib.store import FOLDER
from deploy.paper.records import FILE, Records
from deploy.paper.run import jobs_of
from deploy.paper.views import VIEWS
from lut import jsonl
from tests.deploy.paper.fakes import record, setting


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Of two machines, one of them with other versions before."""
    path = tmp_path_factory.mktemp("records") / FILE
    made = Records(path)
    old = setting(versions={"torch": "1"})
    for on, ms in ((old, 9.0), (setting(), 10.0), (setting("Chip 2"), 20.0)):
        made.append(
            record("bisenetv1-x39", "768x1536", on=on, hmseg=[[ms]], onnxruntime=[[2 * ms]])
        )
    return path


def test_the_committed_page_is_what_the_script_writes():
    assert paper_page.main(["--check"]) == 0


def test_table_6s_miou_is_what_its_trainings_gave():
    """The mean over the seeds, each once."""
    trained: dict[str, dict[int, float]] = {}
    for line in jsonl.read_records(FOLDER / "compare-search" / "results.jsonl"):
        if line["kind"] in ("hand", "table6") and line["stage"] == "180x240:8:500":
            trained.setdefault(line["genotype"], {})[line["seed"]] = line["miou_percent"]
    for row in VIEWS["table6"].rows:
        assert row.network is not None
        seeds = trained[row.network.partition(" | ")[2]]
        assert row.miou == f"{mean(seeds.values()):.1f}"
        count = {2: "two", 3: "three"}[len(seeds)]
        assert str(row.notes[0]) == f"the mean over {count} seeds of the training."


def test_a_table_for_each_machine(records, tmp_path, capsys):
    page = tmp_path / "paper.md"
    none = ("--verified", str(tmp_path / "none.jsonl"))
    assert paper_page.main(["--records", str(records), *none, "-o", str(page)]) == 0
    text = page.read_text()
    tables = text.split("\n## ")
    assert [table.splitlines()[0] for table in tables[1:-2]] == [
        view.title for view in VIEWS.values() for _ in range(2 if view.name in
        ("table1", "figure6") else 1)
    ]  # fmt: skip
    assert tables[-2].startswith("How to make them\n")
    whole = len(jobs_of([VIEWS["table1"]]))
    assert (
        f"| `hmseg-deploy paper table1` | Chip 1, 2 threads, cpu | 64 s: 1 of {whole} networks and "
        "sizes, opened in 3 s, compiled and checked in 60 s, timed in 1 s |" in tables[-2]
    )
    assert "| `hmseg-deploy paper table1` | Chip 2, 2 threads, cpu | 64 s: " in tables[-2]
    assert "| `hmseg-deploy paper table3` | | not measured yet |" in tables[-2]
    assert "| `hmseg-deploy paper figure1` | | nothing: it is counted |" in tables[-2]
    first, second = tables[1:3]
    assert "Chip 1, 2 threads (this machine, cpu); torch 2; 2026-11-30; calls." in first
    assert "Chip 2" in second
    assert "| 10.0 [10.0..10.0] | 100 [100..100] |" in first
    assert "9.00" not in text  # of older versions on the same machine
    used, defined = (re.findall(form, text) for form in (
        r"\[\^([\w-]+)\](?!:)", r"(?m)^\[\^([\w-]+)\]: "))  # fmt: skip
    assert set(used) == set(defined)
    assert len(set(defined)) == len(defined)  # footnotes are those of one page
    for picture in re.findall(r"!\[[^]]*\]\(([\w.-]+)\)", text):
        assert (tmp_path / picture).stat().st_size > 1000
    assert paper_page.main(["--check", "--records", str(records), *none, "-o", str(page)]) == 0
    page.write_text(text.replace("10.0", "11.0", 1))
    assert paper_page.main(["--check", "--records", str(records), *none, "-o", str(page)]) == 1
    assert "run python -m benchmarks.paper_page" in capsys.readouterr().err
    records.with_name("other.jsonl").write_text("{}\n")
    assert paper_page.main(["--records", str(records.with_name("other.jsonl"))]) == 2
