"""A page as Markdown: a table, its remarks, its footnotes."""

from collections.abc import Sequence

from deploy.paper.page import Page


def to_markdown(page: Page, where: str = "", picture: str = "") -> str:
    """The page's text; `where` says what it was measured on, `picture` is a file beside it."""
    parts = [f"## {page.view.title}"]
    if where:
        parts.append(where)
    parts.append("\n".join(_table(page.columns, page.rows)))
    if picture:
        parts.append(f"![{page.view.title}]({picture})")
    parts += page.remarks
    if page.findings:
        parts.append(" ".join(["**What holds here, and what does not.**", *page.findings]))
    if page.checks:
        parts.append(" ".join(["**To look at.**", *(f"{check}." for check in page.checks)]))
    if page.notes:
        parts.append("\n".join(f"[^{mark}]: {text}" for mark, text in page.notes.items()))
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(columns), "|" + "---|" * len(columns), *map(line, rows)]
