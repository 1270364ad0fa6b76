"""Pages of records that were never measured: cells, footnotes, Markdown, pictures."""

import re
from dataclasses import replace

import pytest
from PIL import Image

from deploy.paper import cells
from deploy.paper.jobs import Job
from deploy.paper.markdown import to_markdown
from deploy.paper.networks import absent
from deploy.paper.pages import make_page
from deploy.paper.records import Found
from deploy.paper.run import jobs_of
from deploy.paper.views import choose_views
from deploy.resolution import parse_resolution
from tests.deploy.paper.fakes import record, setting

SIZE = "64x128"
SIZE_360 = parse_resolution("360x640")
NO_OPENVINO = "openvino is not installed"


def page_of(name, rows, *records):
    (view,) = choose_views([name], rows, parse_resolution(SIZE))
    found = Found(records)
    return make_page(view, found, found)


def row_of(page, number=0):
    """Cells by column; the first of a name that comes twice."""
    pairs = zip(reversed(page.columns), reversed(page.rows[number]), strict=True)
    return dict(pairs)


@pytest.fixture(scope="module")
def table():
    return page_of(
        "table1", ["bisenet", "cas", "tiny-mrms", "hmseg"],
        record("bisenetv1-x39", absent={"OpenVINO": NO_OPENVINO},
               hmseg=[[10.0, 20.0, 30.0], [11.0, 21.0, 31.0]],
               onnxruntime=[[30.0, 40.0, 50.0], [40.0, 42.0, 44.0]]),
        record("tiny-mrms", failed="out of memory"),
    )  # fmt: skip


def test_a_measured_row(table):
    row = row_of(table)
    assert row["ms"] == "20.5 [20.0..21.0]"  # all calls; the range of the rounds' medians
    assert row["FPS"] == "48.8 [47.6..50.0]"
    assert row["onnxruntime ms"] == "41.0 [40.0..42.0]"
    assert row["onnxruntime / hmseg"] == "2.00 [2.00..2.00]"
    assert (row["GMACs"], row["Mparams"]) == ("0.11", "1.54")
    assert (row["printed FPS"], row["printed ms"]) == ("105.8", "9.5")
    assert row["mIoU %"] == "68.4 (print)"


def test_what_is_wrong_in_the_print_has_a_footnote(table):
    cells_ = table.rows[0]
    (wrong,) = [cell for cell in cells_ if "~~" in cell]
    mark = re.fullmatch(r"~~5\.8~~\[\^(table1-\d)\]", wrong)[1]
    assert table.notes[mark].startswith("should be 1.54: 5.8 are MiB")
    assert "Source: counted by this project from the layers of ycszen/TorchSeg" in table.notes[mark]
    assert "the Xception39 variant" in table.notes["table1-1"]  # numbered as they are read
    assert cells_[0] == "BiSeNet[^table1-1]"


def test_rows_without_times_stay_and_say_why(table):
    """Not measurable by anyone, failed, not in this version."""
    reasons = []
    for number in (1, 2, 3):
        mark = re.fullmatch(r"-\[\^(table1-\d)\]", row_of(table, number)["ms"])[1]
        reasons.append(table.notes[mark])
    assert "nobody can measure it" in reasons[0]
    missing = absent("hmseg") or "not measured yet"  # it waits for a search at full width
    assert reasons[1:] == ["failed: out of memory", missing]
    assert absent("hmsegg") == "this version has no network 'hmsegg'"
    assert row_of(table, 2)["GMACs"] == "0.02"  # counted all the same


def test_markdown(table):
    text = to_markdown(table, "Measured on Chip 1.", "table1.png")
    head, where, rows, picture, *rest = text.split("\n\n")
    assert (head, where) == ("## Table 1: Cityscapes", "Measured on Chip 1.")
    lines = rows.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 4
    assert picture == "![Table 1: Cityscapes](table1.png)"
    assert any(f"OpenVINO is not timed (bisenetv1-x39): {NO_OPENVINO}" in part for part in rest)
    used = set(re.findall(r"\[\^([\w-]+)\](?!:)", text))
    defined = re.findall(r"(?m)^\[\^([\w-]+)\]: \S", text)
    assert used == set(defined)
    assert len(defined) == len(used)
    assert not to_markdown(page_of("figure1", ["mrms"])).count("[^")


def test_accuracy_of_released_weights_goes_before_the_print():
    page = page_of("table2", ["tiny-mrms", "bisenet"])
    assert row_of(page, 0)["mIoU %"] == "65.6 (print)"
    cell = row_of(page, 1)["mIoU %"]
    mark = re.fullmatch(r"68\.4\[\^(table2-\d)\]", cell)[1]
    assert page.notes[mark].startswith("measured: released weights of camvid")
    assert {note for note in page.notes.values()} >= {"not measured yet"}
    assert page.draw is None


def test_devices_stand_side_by_side():
    phone = replace(setting("Phone", emulated=True), target_name="arm", threads=4)
    page = page_of(
        "table5", ["tiny-mrms", "mrms"],
        record("tiny-mrms", hmseg=[[2.0]], onnxruntime=[[4.0]]),
        record("tiny-mrms", hmseg=[[3.0]], on=setting(versions={"torch": "3"})),  # newer
        record("tiny-mrms", hmseg=[[8.0]], on=phone),
        record("enet", hmseg=[[8.0]], on=setting("Elsewhere")),
    )  # fmt: skip
    assert page.columns == [
        "network", "input", "Chip 1, 2 threads, cpu: ms", "FPS",
        "Phone, 4 threads, arm (EMULATED: means nothing): ms", "FPS",
    ]  # fmt: skip
    assert page.rows[1][2:] == ["3.00 [3.00..3.00]", "333 [333..333]", "8.00 [8.00..8.00]",
                                "125 [125..125]"]  # fmt: skip
    assert page.rows[0][2].startswith("-[^table5")
    empty = page_of("table5", ["mrms"])
    assert empty.rows == [["MRMS[^table5-1]", SIZE]]


def test_equal_latency():
    (view,) = choose_views(["table6"], ["hand", "d+r"], parse_resolution(SIZE))
    networks = [row.network for row in view.rows]
    page = page_of(
        "table6", ["hand", "d+r"],
        *(record(n, hmseg=[[ms]]) for n, ms in zip(networks, (2.0, 2.1), strict=True)),
    )  # fmt: skip
    assert page.columns[:5] == ["network", "input", "GMACs", "Mparams", "mIoU %"]
    assert re.match(r"19\.6\[\^", page.rows[0][4])
    assert page.findings == ["The slowest takes 5.0% longer than the fastest."]


def test_stages_and_sizes():
    profile = {"frame_ms": 5.0, "kernels": [
        {"spec": "stem cout=16 height=64 width=128", "median_ms": 1.0},
        {"spec": "labels_end classes=19 height=32 width=64 out_height=64 out_width=128",
         "median_ms": 3.0},
    ]}  # fmt: skip
    page = page_of(
        "figure2", ["mrms", "tiny-mrms"],
        record("mrms", profiled=True, hmseg=[[5.0]], profile=profile),
    )  # fmt: skip
    assert page.columns == ["network", "input", "frame, ms", "1/2, ms", "behind the stages, ms"]
    assert page.rows[0] == ["MRMS", SIZE, "5.00", "1.00", "3.00"]
    assert page.rows[1][2].startswith("-[^figure2")
    assert "Of the frame: MRMS, 64x128: 25% down to 1/8, 75% behind the stages." in page.findings
    (view,) = choose_views(["figure6"], ["mrms"])
    found = Found([
        record("mrms", size, hmseg=[[ms]], onnxruntime=[[2 * ms]])
        for size, ms in (("384x640", 10.0), ("768x1280", 40.0))
    ])  # fmt: skip
    page = make_page(view, found, found)
    assert page.columns[2:] == [
        "360x640", "384x640", "512x1024", "768x1280", "1024x1024", "768x1536", "1088x1920",
        "1024x2048",
    ]  # fmt: skip
    assert page.rows[0][1::2][:3] == ["hmseg", "100 [100..100]", "25.0 [25.0..25.0]"]
    assert page.rows[1][1::2][:3] == ["onnxruntime", "50.0 [50.0..50.0]", "12.5 [12.5..12.5]"]
    assert page.rows[1][2] == "-"
    assert page.findings == ["A frame takes longer: MRMS 4.0 times for 4.0 times the pixels."]


def test_a_size_that_a_network_does_not_take_is_no_failure_of_a_figure():
    (view,) = choose_views(["figure6"], ["dfanet"], SIZE_360)
    page = make_page(view, Found([]), Found([]))
    mark = re.fullmatch(r"-\[\^(figure6-1)\]", page.rows[0][2])[1]
    assert page.notes[mark].startswith("it does not take this size: ")
    assert jobs_of([view]) == []
    assert [str(job) for job in jobs_of(choose_views(["table1"], ["dfanet"], SIZE_360))] == [
        "dfanet-b 360x640"
    ]


def test_pictures(tmp_path, table):
    """Of each form one, and it shows something."""
    figure1 = page_of("figure1", ["bisenet", "mrms"])
    figure6 = make_page(
        choose_views(["figure6"], ["mrms"])[0],
        Found([record("mrms", "384x640", hmseg=[[10.0]])]), Found([]),
    )  # fmt: skip
    for page in (table, figure1, figure6):
        path = tmp_path / f"{page.view.name}.png"
        page.draw(path)
        with Image.open(path) as image:
            assert min(image.size) > 100
            assert len(image.convert("RGB").getcolors(1 << 20)) > 20
    assert (
        "The head counts for more than the backbone in 1 of 2: BiSeNet Xception39"
        in figure1.findings[-1]
    )


def test_a_network_that_has_changed_is_not_shown():
    page = page_of("table1", ["mrms"], record("mrms", hmseg=[[1.0]], counts=(10**9, 2 * 10**6)))
    mark = re.fullmatch(r"-\[\^(table1-\d)\]", row_of(page)["ms"])[1]
    assert page.notes[mark] == (
        "measured on 2026-11-30, when it had 1.00 GMACs and 2.00 M parameters: not measured since"
    )


def test_two_devices_of_one_kind_have_a_column_each():
    one, other = (replace(setting("Phone"), place=place) for place in ("adb:A", "adb:B"))
    page = page_of(
        "table5", ["mrms"],
        record("mrms", hmseg=[[2.0]], on=one), record("mrms", hmseg=[[4.0]], on=other),
    )  # fmt: skip
    assert page.columns[2::2] == [
        "Phone, 2 threads, cpu, adb:A: ms", "Phone, 2 threads, cpu, adb:B: ms",
    ]  # fmt: skip
    assert page.rows[0][2::2] == ["2.00 [2.00..2.00]", "4.00 [4.00..4.00]"]


def test_findings_and_checks_stand_below_the_table():
    page = page_of(
        "table2", ["tiny-mrms", "bisenet"],
        record("tiny-mrms", classes=11, hmseg=[[2.0]], onnxruntime=[[4.0]], left={}),
        record("bisenetv1-x39", classes=11, hmseg=[[4.0]], onnxruntime=[[2.0]], left={"a": 0.06}),
    )  # fmt: skip
    text = to_markdown(page)
    assert (
        "**What holds here, and what does not.** Fastest here, of 2: TinyMRMS (500 FPS), BiSeNet "
        "(250 FPS). hmseg is faster than onnxruntime in 1 of 2, by a factor of 0.50 to 2.00. Is "
        "TinyMRMS the fastest at its accuracy here? Yes: none of the 2 is faster, at whatever "
        "accuracy.\n" in text
    )
    assert (
        "**To look at.** Slower than onnxruntime (its time over hmseg's): BiSeNet 0.50 "
        "[0.50..0.50]. More than 5% of the frame left to TVM: BiSeNet (6%).\n" in text
    )
    assert page.to_json()["checks"] == page.checks


def test_cells():
    assert cells.milliseconds([[1e6, 2e6, 3e6]]) == "2.00 [2.00..2.00]"
    assert cells.giga(142.9e9) == "142.9"
    assert cells.giga(6.71e9) == "6.71"
    assert cells.median_ms(record("enet", failed="no")) is cells.per_s(None) is None
    assert Job("enet", parse_resolution(SIZE), 19) in {record("enet", hmseg=[[1.0]]).job}
