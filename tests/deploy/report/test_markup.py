import pytest

from deploy.report.markup import Markup, join, tag


def test_what_is_no_markup_is_escaped():
    assert tag("p", "<b>", tag("b", "a & b"), None) == "<p>&lt;b&gt;<b>a &amp; b</b></p>"
    assert isinstance(tag("p"), Markup)
    assert join("<", Markup("<i>")) == "&lt;<i>"


def test_attributes():
    assert tag("a", class_="x", data_tip="\"'<", href="#a", hidden=True, title=None, id=False) == (
        '<a class="x" data-tip="&quot;&#x27;&lt;" href="#a" hidden></a>'
    )
    assert tag("line", x1=1.04, x2=3.0, y=2) == '<line x1="1" x2="3" y="2"></line>'
    assert tag("meta", name="x") == '<meta name="x">'


@pytest.mark.parametrize("odd", ["\ud800", "a\udcffb"])
def test_halves_of_letters_are_written_out(odd):
    text = tag("p", odd, title=odd)
    assert "\\ud" in text
    text.encode()
