"""Which tables there are, and that what stands in them of the print hangs together."""

import pytest

from deploy.paper.networks import absent, count
from deploy.paper.run import jobs_of
from deploy.paper.views import ALL, VIEWS, choose_views
from deploy.resolution import parse_resolution
from hmseg import network_file
from lut.errors import UserError

# What no version of this project has a network for, and what waits for a search at full width.
MISSING = {"hmseg"}
ROWS = [(view, row) for view in VIEWS.values() for row in view.rows]


def test_the_papers_tables_and_figures():
    tables, figures = [f"table{n}" for n in range(1, 7)], ["figure1", "figure2", "figure6"]
    assert list(VIEWS) == tables + figures
    assert len(VIEWS["table1"].rows) == 14
    for view in VIEWS.values():
        assert len({row.key for row in view.rows}) == len(view.rows)


@pytest.mark.parametrize(("view", "row"), ROWS, ids=lambda v: getattr(v, "name", None) or v.key)
def test_a_row_is_measured_or_says_why_not(view, row):
    assert all(parse_resolution(size) for size in row.sizes)
    if row.network is None:
        assert row.missing
        assert not view.jobs(row)
    elif row.network not in MISSING:
        assert not absent(row.network)
    cells = vars(row.printed).values()
    assert all(float(cell) > 0 for cell in cells if cell)
    if row.printed.fps and row.printed.ms:  # as the paper made its latencies
        assert float(row.printed.ms) == pytest.approx(1000 / float(row.printed.fps), abs=0.06)


CORRECTED = [
    pytest.param(row, note, id=f"{view.name}-{row.key}-{note.about}")
    for view, row in ROWS
    for note in row.notes
    if note.corrected and view.name in ("table1", "table3")
]


@pytest.mark.parametrize(("row", "note"), CORRECTED)
def test_a_corrected_figure_is_what_is_counted(row, note):
    """To its last digit; and it has a source."""
    view = next(view for view in VIEWS.values() if row in view.rows)
    macs, parameters = count(view.jobs(row)[0])
    found = {"gmacs": macs / 1e9, "mparams": parameters / 1e6}[note.about]
    digits = len(note.corrected.partition(".")[2])
    assert note.source
    assert abs(found - float(note.corrected)) <= 0.51 * 10**-digits


def test_a_printed_count_that_is_not_what_is_counted_has_a_note():
    """All but the last digit printed, or 3%."""
    for view, row in ROWS:
        if row.network is None or absent(row.network) or row.stands_in or view.kind != "table":
            continue
        macs, parameters = count(view.jobs(row)[0])
        for about, found in (("gmacs", macs / 1e9), ("mparams", parameters / 1e6)):
            printed = getattr(row.printed, about)
            last_digit = 10 ** -len(printed.partition(".")[2])
            if printed and abs(float(printed) - found) > max(last_digit, 0.03 * found):
                assert {note.about for note in row.notes} & {about, "network"}, (row.key, about)


def test_choosing():
    names = ["figure1", "table2", "figure1"]
    assert [view.name for view in choose_views(names)] == ["table2", "figure1"]
    assert [view.name for view in choose_views([ALL])] == list(VIEWS)
    (view,) = choose_views(["table1"], ["cas", "icnet"], parse_resolution("64x128"))
    assert [(row.key, row.sizes) for row in view.rows] == [
        ("icnet", ("64x128",)), ("cas", ("64x128",)),
    ]  # fmt: skip
    assert view.remarks[-1] == "All at 64x128: the print is at the paper's own sizes."
    assert [view.name for view in choose_views(["table1", "table3"], ["ce2p"])] == ["table3"]


def test_what_is_chosen_wrongly():
    with pytest.raises(UserError, match=r"unknown table or figure 'tabel1': did you mean table1\?"):
        choose_views(["tabel1"])
    with pytest.raises(UserError, match=r"unknown row 'bisnet': did you mean bisenet\?"):
        choose_views(["table1"], ["bisnet"])
    with pytest.raises(UserError, match="unknown row 'ce2p': there are segnet, icnet"):
        choose_views(["table1"], ["ce2p"])  # of another table
    with pytest.raises(UserError, match="name what to make: table1"):
        choose_views([])


def test_jobs():
    """Each once: what two views need is measured once, with a profile where one needs it."""
    views = choose_views(["table1", "table5", "figure2"], ["mrms", "cas"])
    jobs = jobs_of(views)
    assert [(str(job), job.profiled) for job in jobs] == [
        ("mrms 768x1536", True), ("mrms 384x768", True),
    ]  # fmt: skip
    assert jobs_of(choose_views(["figure1"])) == []
    assert all(
        row.network.startswith(network_file.PREFIX) for row in VIEWS["table6"].rows
    )  # fmt: skip
