"""HTML and SVG as text, in which whatever comes from a file is escaped."""

from html import escape
from typing import TypeAlias

_VOID = frozenset({"meta", "input"})


class Markup(str):
    """Text that is markup already. Only `tag`, `join` and the page's own files make it."""

    __slots__ = ()


Child: TypeAlias = str | None
Value: TypeAlias = str | float | bool | None


def tag(name: str, /, *children: Child, **attributes: Value) -> Markup:
    """An element. Children that are no `Markup`, and all attributes, are escaped; None is nothing.

    An attribute's trailing underscore goes, the others are hyphens: ``class_``, ``data_tip``. One
    that is None or False is left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        text = key.rstrip("_").replace("_", "-")
        words.append(text if value is True else f'{text}="{_escaped(_text(value))}"')
    opened = f"<{' '.join(words)}>"
    return Markup(opened if name in _VOID else f"{opened}{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children one behind the other, escaped where they are no markup."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else _escaped(child)
            for child in children
            if child is not None
        )
    )


def _text(value: str | float) -> str:
    # A tenth of a pixel is enough for a picture; other numbers come as text.
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    # Names of files and JSON may hold halves of surrogate pairs, which no file can.
    return escape(text.encode("utf-8", "backslashreplace").decode())
