"""The page: what is in it, and what a browser makes of it."""

import json
from html.parser import HTMLParser

import pytest

from deploy.report.folder import Folder, read_folder
from deploy.report.kinds import KINDS
from deploy.report.page import _own, page_of
from tests.conditions import CHROMIUM
from tests.deploy.report.browser import look
from tests.deploy.report.samples import (
    FILES,
    PROFILE,
    bench_json,
    paper_json,
    profile_json,
    write_samples,
)

HOSTILE = "</script><script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=2>\ud800"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Folder:
    return read_folder(write_samples(tmp_path_factory.mktemp("results")))


@pytest.fixture(scope="module")
def page(folder) -> str:
    return page_of(folder, "Results in a folder")


class Parts(HTMLParser):
    """The elements of a page with their attributes, and its text by element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, str] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        self.text[self._open] = self.text.get(self._open, "") + data


def require_ours_alone(page: str) -> None:
    """Fail where a page holds a script that is not ours, or anything that would be fetched."""
    parts = Parts(page)
    names = [name for name, _ in parts.elements]
    assert names.count("script") == names.count("style") == 1
    assert parts.text["script"] == _own("page.js")
    assert parts.text["style"] == _own("page.css")
    assert not {"img", "link", "iframe", "object", "embed", "base", "form"} & set(names)
    for name, attributes in parts.elements:
        assert not {"src", "style", "xlink:href"} & attributes.keys(), name
        assert not [key for key in attributes if key.startswith("on")], attributes
        assert attributes.get("href", "#").startswith("#")
    for text in (parts.text["script"], parts.text["style"]):
        assert "url(" not in text
        assert "http" not in text
        assert "@import" not in text


def test_everything_is_in_the_page(page):
    require_ours_alone(page)
    assert not page.count("<script src")
    page.encode()


def test_every_kind_and_every_file_is_there(folder, page):
    assert [kind.title for kind, _ in folder.found] == [kind.title for kind in KINDS]
    assert not folder.damaged
    assert not folder.passed_over
    for kind in KINDS:
        assert f"<h2>{kind.title}</h2>" in page
    for file in FILES:
        # Beside its figures, and in the list of files.
        assert page.count(f">{file}<") >= 2, file


def test_it_is_the_same_each_time(folder, page):
    assert page_of(read_folder(folder.path), "Results in a folder") == page


def test_figures_are_those_of_the_files(folder, page):
    lines = (folder.path / "trained" / "log.jsonl").read_text().splitlines()
    best = max(json.loads(line).get("miou", 0) for line in lines)
    for figure in (
        "1.100", "3.300", "3.00 [3.00..3.00]", "TensorRT is not timed: there is no GPU",
        "inverted residual 16→96→16, 3x3, 64x128", "A frame takes 2.000 ms",
        "368 of 368 entries", "30 networks: mean error 2.58%", f"{best:.2%}", "0.4 0.6",
        "Results in a folder", "3.50 [3.50..3.50]",
    ):  # fmt: skip
        assert figure in page, figure


def hostile_folder(path):
    """Names and texts that would run a script, in every kind of file that has free texts."""

    def hostile(value):
        return HOSTILE if isinstance(value, str) else value

    write_samples(path)
    bench = bench_json(PROFILE)
    bench |= {"model": HOSTILE, "absent": {HOSTILE: HOSTILE}, "notes": {HOSTILE: HOSTILE},
              "includes": HOSTILE, "machine": {"machine": HOSTILE, "emulated": True}}  # fmt: skip
    for part in ("latency", "ratios", "samples_ns", "memory"):
        bench[part][HOSTILE] = bench[part]["onnxruntime"]
    bench["profile"]["kernels"][0] |= {"name": HOSTILE, "template": HOSTILE, "spec": HOSTILE}
    (path / "bench.json").write_text(json.dumps(bench))
    profile = profile_json()
    for kernel in profile["kernels"]:
        kernel |= {key: hostile(value) for key, value in kernel.items()}
    (path / "profile.json").write_text(json.dumps(profile))
    check = json.loads((path / "check.json").read_text())
    check["table"] = check["rows"][0]["network"] = HOSTILE
    (path / "check.json").write_text(json.dumps(check))
    first, *_ = (path / "peers.jsonl").read_text().splitlines()
    peers = json.loads(first)
    peers["config"] |= {"model": HOSTILE, "resolution": HOSTILE, "job": HOSTILE}
    peers["sides"][HOSTILE] = peers["sides"]["onnxruntime"] | {"versions": {HOSTILE: HOSTILE}}
    peers |= {"skipped": {HOSTILE: HOSTILE}, "date": HOSTILE, "machine": {"cpu": HOSTILE}}
    failed = {key: peers[key] for key in ("date", "machine")}
    failed |= {"failed": HOSTILE, "config": peers["config"] | {"threads": 7}}
    (path / "peers.jsonl").write_text(f"{json.dumps(peers)}\n{json.dumps(failed)}\n")
    paper = paper_json()
    paper |= {"network": HOSTILE, "resolution": HOSTILE, "date": HOSTILE}
    paper["setting"]["provenance"] |= {"cpu": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    paper["result"]["samples_ns"][HOSTILE] = paper["result"]["samples_ns"]["onnxruntime"]
    paper["result"]["absent"] = {HOSTILE: HOSTILE}
    (path / "paper.jsonl").write_text(json.dumps(paper) + "\n")
    trained = {"step": 1, "miou": 0.5, "iou": {HOSTILE: 0.5}, "time": HOSTILE}
    (path / "trained" / "log.jsonl").write_text(f"{json.dumps(trained)}\n")
    found = json.loads((path / "search" / "genotype.json").read_text())
    found["search"]["estimate"]["unit"] = found["search"]["date"] = HOSTILE
    (path / "search" / "genotype.json").write_text(json.dumps(found))
    odd = path / '<img src=x onerror="window.hacked=3">'
    odd.mkdir()
    (odd / "a'b&.json").write_text(json.dumps(bench))
    (odd / "<script>.json").write_text('{"latency": ')
    (odd / b"\xff.json".decode(errors="surrogateescape")).write_text("{}")
    return read_folder(path)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory) -> str:
    found = hostile_folder(tmp_path_factory.mktemp("hostile"))
    assert list(found.damaged) == ['<img src=x onerror="window.hacked=3">/<script>.json']
    assert sum(len(results) for _, results in found.found) == len(FILES) + 1
    return page_of(found, HOSTILE)


def test_names_in_files_are_text(hostile_page):
    require_ours_alone(hostile_page)
    hostile_page.encode()
    assert hostile_page.count("window.hacked=1") > 30


# In a browser

LOOK = r"""
const found = {hacked: window.hacked ?? null};
const color = () => window.getComputedStyle(document.body).backgroundColor;
found.background = color();
for (const details of document.querySelectorAll("details")) details.open = true;
found.sections = Array.from(document.querySelectorAll("section h2"), (h) => h.textContent);
found.figures = 0; found.empty = [];
for (const figure of document.querySelectorAll("figure")) {
  found.figures++;
  const box = figure.querySelector("svg[role]").getBoundingClientRect();
  const marks = figure.querySelectorAll("[data-tip]");
  const drawn = Array.from(marks).filter((m) => m.getBoundingClientRect().width > 0);
  if (box.width < 200 || box.height < 40 || !drawn.length)
    found.empty.push(figure.querySelector("figcaption").textContent);
}
found.unsorted = []; found.sorted = 0;
for (const table of document.querySelectorAll("table"))
  for (const [index, head] of Array.from(table.tHead.rows[0].cells).entries())
    for (const way of ["ascending", "descending"]) {
      head.querySelector("button").click();
      const values = Array.from(table.tBodies[0].rows, (row) => row.cells[index].dataset.value)
        .filter((value) => value !== undefined).map(Number);
      const right = values.every((value, at) => !at || (way === "ascending"
        ? values[at - 1] <= value : values[at - 1] >= value));
      if (!right || head.getAttribute("aria-sort") !== way) found.unsorted.push(head.textContent);
      found.sorted += values.length > 1;
    }
const tip = document.getElementById("tip");
found.tips = [];
for (const selector of ["circle.mark", ".bar", ".cell"]) {
  const mark = document.querySelector(`figure svg ${selector}`);
  mark.scrollIntoView();
  const box = mark.getBoundingClientRect();
  const at = {clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true};
  mark.closest("svg").dispatchEvent(new window.PointerEvent("pointerleave", at));
  const before = tip.hidden;
  mark.dispatchEvent(new window.PointerEvent("pointermove", at));
  found.tips.push([before, tip.hidden, tip.textContent === mark.dataset.tip && tip.textContent]);
}
document.getElementById("theme").click();
found.other = color();
document.getElementById("theme").click();
found.again = color();
found.too_wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
return found;
"""
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 23, 26)"


@CHROMIUM.mark
def test_in_a_browser(page, tmp_path):
    seen = look(page, tmp_path, LOOK)
    assert "error" not in seen.found, seen.found
    assert (seen.console, seen.fetched) == ([], [])
    assert seen.found["sections"] == [*(kind.title for kind in KINDS), "Files"]
    assert seen.found["figures"] == page.count("<figure") > 10
    assert seen.found["empty"] == seen.found["unsorted"] == []
    assert seen.found["sorted"] > 50
    assert all(before and not hidden and text for before, hidden, text in seen.found["tips"])
    colours = [seen.found[key] for key in ("background", "other", "again")]
    assert colours == [LIGHT, DARK, LIGHT]
    assert seen.found["too_wide"] == 0


@CHROMIUM.mark
def test_on_a_phone_in_the_dark_with_hostile_names(hostile_page, tmp_path):
    seen = look(hostile_page, tmp_path, LOOK, dark=True, width=360)
    assert "error" not in seen.found, seen.found
    assert (seen.console, seen.fetched, seen.found["hacked"]) == ([], [], None)
    assert seen.found["empty"] == seen.found["unsorted"] == []
    colours = [seen.found[key] for key in ("background", "other", "again")]
    assert colours == [DARK, LIGHT, DARK]
    assert seen.found["too_wide"] == 0


@CHROMIUM.mark
def test_the_browser_sees_what_is_wrong(tmp_path):
    wrong = """<!doctype html><img src="/picture.png"><img src="http://elsewhere.example/x.png">
        <script>window.hacked = 1; throw new Error("of the page")</script>"""
    seen = look(wrong, tmp_path, "return {hacked: window.hacked}")
    assert seen.found == {"hacked": 1}
    assert sorted(seen.fetched) == ["/picture.png", "http://elsewhere.example/x.png"]
    assert any("of the page" in line for line in seen.console)
