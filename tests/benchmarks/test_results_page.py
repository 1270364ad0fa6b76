"""docs/results.md is what the files in benchmarks/results/ say, with where it comes from."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import paper_page, paper_verify, results_page
from benchmarks.results_lib import latency, search
from benchmarks.results_lib.store import FOLDER, ROOT, Store, for_each, kept
from benchmarks.results_lib.table import FIELDS, Source, Table, bar, markdown, ratio, text
from lut.errors import UserError

DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# What a comparison is given, not what it measured.
INPUTS = {f"compare-search/best-random-{seed}.json" for seed in range(3)} | {"machine-code.json"}
MEASURED = {
    "command": "python -m benchmarks.x", "machine": "Box, one core", "versions": {"torch": "2"},
    "date": "2026-11-22T10:00:00+00:00",
}  # fmt: skip


@pytest.fixture(scope="module")
def written():
    """The store after the page was made, and the page."""
    store = Store()
    return store, results_page.page(store)


@pytest.fixture
def folder(tmp_path):
    """A folder of results with one machine and nothing measured."""
    write(tmp_path, "machines.json", {
        "Box": {"chip": "Chip 1", "about": "a box", "versions": {"torch": "2"}},
        "Box 2": {"chip": "Chip 2", "about": "another", "versions": {"torch": "3"}},
    })  # fmt: skip
    write(tmp_path, "sources.json", {})
    return tmp_path


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def one_table(**changes):
    table = {"name": "x", "title": "X", "columns": ["a"], "rows": [["1"]], "sources": [MEASURED]}
    return {"tables": [{k: v for k, v in (table | changes).items() if v is not None}]}


def blocks(page: str) -> list[list[str]]:
    """Each table's lines and the paragraph or list behind it."""
    found = []
    for part in re.split(r"(?m)^(?=\|.*\n\|---)", page)[1:]:
        rows, _, behind = part.partition("\n\n")
        found.append([rows, behind.partition("\n\n")[0]])
    return found


def test_the_committed_page_is_what_the_script_writes(written):
    assert (ROOT / "docs" / "results.md").read_text() == written[1]


def test_every_table_names_command_machine_versions_and_date(written):
    store, page = written
    found = blocks(page)
    assert len(found) > 20
    machines = "|".join(map(re.escape, store.machines))
    line = rf"`.+`; ({machines})\b.*; .+; \d{{4}}-\d\d-\d\d$"
    for rows, behind in found:
        one = re.match(rf"Measured by {line}", behind)
        first, *others = behind.splitlines()
        several = first == "Measured by" and others and all(
            re.match(rf"- .+: {line}", other) for other in others
        )  # fmt: skip
        assert one or several, f"{rows}\n{behind}"


def test_every_result_file_has_a_table(written):
    store, _ = written
    files = {path for kind in ("*.json", "*.jsonl") for path in FOLDER.rglob(kind)}
    # docs/paper.md shows these
    of_the_paper = {*FOLDER.glob(paper_page.RECORDS), paper_verify.RESULTS}
    left = {str(path.relative_to(FOLDER)) for path in files - store.read - of_the_paper}
    assert left == INPUTS


def test_the_page_shows_what_a_file_holds(written):
    _, page = written
    card = json.loads((ROOT / "hmseg" / "weights" / "tiny-mrms-camvid.json").read_text())
    assert f"| tiny-mrms | {card['validation']['miou_percent']:.2f} |" in page
    check = json.loads((FOLDER / "lut-check-width1.0.json").read_text())
    assert check["kendall_tau"] < latency.BAR_TAU
    assert f"{check['kendall_tau']:.3f}: **missed**" in page
    gpu = json.loads((FOLDER / "gpu-nvidia-h100-80gb-hbm3.json").read_text())
    assert all(ratio(r) in page for row in gpu["rows"] for r in row["ratios"].values())


def test_check_tells_a_page_that_differs(tmp_path, capsys, written, monkeypatch):
    monkeypatch.setattr(results_page, "page", lambda _: written[1])
    page = tmp_path / "results.md"
    page.write_text(written[1].replace("1.69", "1.59", 1))
    assert results_page.main(["--check", "-o", str(page)]) == 1
    assert "run python -m benchmarks.results_page" in capsys.readouterr().err
    assert results_page.main(["-o", str(page)]) == 0
    assert results_page.main(["--check", "-o", str(page)]) == 0
    assert results_page.main(["--check", "-o", str(tmp_path / "none.md")]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("field", FIELDS)
def test_a_source_with_a_missing_field_is_an_error(folder, field):
    source = {name: value for name, value in MEASURED.items() if name != field}
    write(folder, "tables/x.json", one_table(sources=[source]))
    with pytest.raises(UserError, match=f"does not say its {field}"):
        Store(folder).tables()
    write(folder, "sources.json", {"run.json": source})
    with pytest.raises(UserError, match=rf"run\.json.*does not say its {field}"):
        Store(folder).source("run.json")


@pytest.mark.parametrize("field", ["name", "title", "columns", "rows", "sources"])
def test_a_table_with_a_missing_field_is_an_error(folder, field):
    write(folder, "tables/x.json", one_table(**{field: None}))
    with pytest.raises(UserError, match=f"lacks '{field}'"):
        Store(folder).tables()


def test_a_file_and_sources_json_make_a_source_together(folder):
    write(folder, "sources.json", {"a.json": {"command": "x", "versions": {"torch": "2"}}})
    found = Store(folder).source("a.json", date="2026-11-22", chip="Chip 1", of="rows")
    assert found.line() == "rows: `x`; Box; its versions; 2026-11-22"
    with pytest.raises(UserError, match="says command itself"):
        Store(folder).source("a.json", date="2026-11-22", chip="Chip 1", command="y")
    with pytest.raises(UserError, match="0 machines with the chip 'Chip 3'"):
        Store(folder).source("a.json", date="2026-11-22", chip="Chip 3")
    with pytest.raises(UserError, match="does not describe 'Boxes'"):
        Store(folder).source("a.json", date="2026-11-22", machine="Boxes")
    with pytest.raises(UserError, match="'soon' is no date"):
        Store(folder).source("a.json", date="soon", machine="Box")


def test_the_machine_with_the_longest_name_gives_the_versions(folder):
    source = Store(folder).source("a.json", **MEASURED | {"machine": "Box 2, one core"})
    assert source.usual == {"torch": "3"}


def test_a_machine_without_versions_is_an_error(folder):
    write(folder, "machines.json", {"Box": {"about": "a box"}})
    with pytest.raises(UserError, match="lacks 'versions'"):
        Store(folder)


def test_files_that_are_not_there_or_not_json_are_errors(folder):
    store = Store(folder)
    with pytest.raises(UserError, match="no such file"):
        store.json("none.json")
    with pytest.raises(UserError, match="no such file"):
        store.lines("none.jsonl")
    (folder / "torn.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        store.json("torn.json")


def test_a_tables_file_is_shown_as_it_is_written(folder):
    rows = '[["a", 0.990, {"median": 1.10, "low": 1.0, "high": 1.200}, 20000, null]]'
    content = json.dumps(one_table(columns=["a", "b", "c", "d", "e"], rows="ROWS"))
    (folder / "tables").mkdir()
    (folder / "tables" / "x.json").write_text(content.replace('"ROWS"', rows))
    (table,) = kept("x")(Store(folder))
    assert "| a | 0.990 | 1.10 [1.0..1.200] | 20,000 |  |" in markdown(table)
    with pytest.raises(UserError, match="has the table 'y'"):
        kept("y")(Store(folder))


def test_two_tables_of_one_name_are_an_error(folder):
    write(folder, "tables/x.json", one_table())
    write(folder, "tables/y.json", one_table())
    with pytest.raises(UserError, match="two tables of the name 'x'"):
        Store(folder).tables()


def test_a_table_that_no_topic_shows_is_an_error(folder, monkeypatch):
    write(folder, "tables/x.json", one_table())
    monkeypatch.setattr(results_page, "TOPICS", ())
    with pytest.raises(UserError, match=r"no topic .* shows the table 'x'"):
        results_page.page(Store(folder))
    topic = results_page.Topic("One", [kept("x")], ["2026-11-22-x.md"])
    monkeypatch.setattr(results_page, "TOPICS", (topic,))
    page = results_page.page(Store(folder))
    assert "## One\n\nThe story: [2026-11-22-x](log/2026-11-22-x.md).\n\n**X.**\n\n| a |" in page


def test_only_versions_that_differ_from_the_machines_are_named():
    usual = {"torch": "2.13.0", "numpy": "2.4.6"}

    def line(versions):
        return Source(("x",), "Box", versions, "2026-11-22", usual=usual).line()

    assert line({"torch": "2.13.0+cpu"}) == "`x`; Box; its versions; 2026-11-22"
    assert line({"torch": "2.13.0", "mnn": "3"}) == "`x`; Box; its versions and mnn 3; 2026-11-22"
    assert line({"torch": "2.12"}) == "`x`; Box; torch 2.12; 2026-11-22"


def test_what_is_no_table_is_an_error():
    source = Source(("x",), "Box", {"torch": "2"}, "2026-11-22")
    with pytest.raises(UserError, match="no rows or no source"):
        markdown(Table("T", ["a"], [], [source]))
    with pytest.raises(UserError, match="no rows or no source"):
        markdown(Table("T", ["a"], [["1"]], []))
    with pytest.raises(UserError, match="2 columns, a row 1"):
        markdown(Table("T", ["a", "b"], [["1"]], [source]))
    with pytest.raises(UserError, match="no cell"):
        text(0.1)  # which digits of it are meant?
    with pytest.raises(UserError, match="no cell"):
        text({"median": "1", "low": "1"})


def test_cells():
    assert text("a | b") == "a \\| b"
    assert text(True) == "yes"
    assert text(["1", "2"]) == "1 2"
    pair = {"median": "1", "low": "0", "high": "2"}
    assert text([pair, pair]) == "1 [0..2], 1 [0..2]"
    assert bar(True, "3.0") == "3.0: met"
    assert bar(False) == "**missed**"


def test_changes_of_a_genotype():
    before = (
        "s1 e1k3 | s2 e6k3 skip | s3 e6k3 | s4a e6k3 | s4b e6k3 | s5a e6k3 | s5b e6k3 | 0.5 0.5"
    )
    after = "s1 e1k3 | s2 e6k3 e1k7 | s3 e6k3 | s4a e6k3 | s4b skip | s5a e6k3 | s5b e6k3 | 0.5 0.6"
    assert search.changes(before, after) == "s2.1 e1k7, s4b.0 skip, low 0.6"
    assert search.changes(before, before) == ""


def anchors(path: Path) -> set[str]:
    """The anchors that a page's headings have."""
    lines = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    prose = re.sub(r"(?ms)^```.*?^```|`[^`\n]*`(?!\])", "", path.read_text())
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", prose):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_every_page_of_the_log_is_in_its_index_and_behind_a_topic():
    index = (ROOT / "docs" / "log" / "README.md").read_text()
    pages = {path.name for path in (ROOT / "docs" / "log").glob("2*.md")}
    assert set(re.findall(r"\((\d{4}-[\w.-]+\.md)\)", index)) == pages
    assert {name for topic in results_page.TOPICS for name in topic.log} == pages


def test_commands_that_differ_in_the_networks_alone_are_one():
    times = "python -m benchmarks.any_network"
    commands = [
        f"{times} --networks unet icnet --rounds 5 --cache c --output o.jsonl",
        f"{times} --networks segnet --rounds 5 --again",
        f"{times} --rounds 7",
    ]
    assert for_each(commands) == (f"{times} --networks NETWORK --rounds 5", f"{times} --rounds 7")
