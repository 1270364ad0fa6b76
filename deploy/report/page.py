"""The page: one HTML file that fetches nothing, with its own styles and script in it."""

from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from deploy.report.folder import Folder
from deploy.report.kind import Kind, Result
from deploy.report.markup import Markup, tag
from deploy.report.table import Cell, table


def page_of(folder: Folder, title: str) -> str:
    """The page of a folder with at least one result."""
    style, script = _own("page.css"), _own("page.js")
    # The browser holds to it, too: nothing is fetched, and no other script than ours runs.
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", style),
    )
    found = folder.found
    links = [tag("a", f"{kind.title} ", tag("b", str(len(results))), href=f"#{_anchor(kind)}")
             for kind, results in found]  # fmt: skip
    body = tag(
        "body",
        tag(
            "header",
            tag("h1", title),
            tag("button", "light or dark", type="button", id="theme"),
            tag("nav", *links, tag("a", "Files", href="#files")),
        ),
        tag("main", *(_section(kind, results) for kind, results in found), _files(folder)),
        tag("div", id="tip", role="status", hidden=True),
        tag("script", script),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _section(kind: Kind[Any], results: list[Result]) -> Markup:
    return tag("section", tag("h2", kind.title), kind.draw(results), id=_anchor(kind))


def _anchor(kind: Kind[Any]) -> str:
    return kind.title.lower().replace(" ", "-")


def _files(folder: Folder) -> Markup:
    """Every file that has figures on the page, and those that have none."""
    rows: list[list[Cell]] = [
        [
            source.file,
            kind.title,
            source.what,
            source.device,
            source.date_text,
            source.versions_text,
        ]
        for kind, results in folder.found
        for source in (result.source for result in results)
    ]
    columns = ["file", "kind", "what", "device", "date", "versions"]
    return tag(
        "section",
        tag("h2", "Files"),
        table(columns, rows),
        _named("Damaged, and not on this page", (f"{k}: {v}" for k, v in folder.damaged.items())),
        _named("Passed over: not results that a page is made of", folder.passed_over),
        id="files",
    )


def _named(title: str, lines: Iterable[str]) -> Markup | None:
    items = [tag("li", line) for line in lines]
    if not items:
        return None
    return tag("details", tag("summary", f"{title} ({len(items)})"), tag("ul", *items))


@cache
def _own(name: str) -> Markup:
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
