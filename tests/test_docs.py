"""What the documents' Python examples name, and where their links lead, is there."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documents import anchors

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, text in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


def named(example: str) -> Iterator[object]:
    """What an example imports, and the attributes of it that it uses."""
    tree, found = ast.parse(example), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname or a.name: importlib.import_module(a.name) for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: imported(node.module, a.name) for a in node.names}
    yield from found.values()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name(name), attribute) if name in found:
                yield getattr(found[name], attribute)


def imported(package: str, name: str) -> object:
    module = importlib.import_module(package)
    return getattr(module, name, None) or importlib.import_module(f"{package}.{name}")


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_an_example_names_is_there(example):
    assert list(named(example))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert [link for link in links(page) if not leads_somewhere(page, link)] == []


def links(page: Path) -> list[str]:
    """Within the project, pictures too."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_what_leads_nowhere_is_seen():
    readme = ROOT / "README.md"
    assert len(links(readme)) > 10
    assert leads_somewhere(readme, "docs/results.md#code-for-gpus")
    assert not leads_somewhere(readme, "docs/results.md#code-for-gnus")
    assert not leads_somewhere(readme, "docs/no-such.md")


@pytest.mark.parametrize(
    "wrong",
    ["from lut.table import load_table", "import lut.no_such", "from lut import ops\nops.no_such"],
)
def test_what_is_not_there_is_seen(wrong):
    with pytest.raises((ImportError, AttributeError)):
        list(named(wrong))
