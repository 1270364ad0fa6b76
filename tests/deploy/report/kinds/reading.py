"""A kind's sections from given objects."""

import json
from typing import Any

from deploy.report.content import Content
from deploy.report.kind import Kind


def result(kind: Kind[Any], *records: dict[str, Any], name: str = "a.json") -> Any:
    """What the kind reads from a file with these objects."""
    content = Content(name, tuple(json.loads(json.dumps(records))))
    assert kind.recognises(content)
    return kind.read(content)


def section(kind: Kind[Any], *records: dict[str, Any], name: str = "a.json") -> str:
    """What it draws of it alone."""
    return kind.draw([result(kind, *records, name=name)])
