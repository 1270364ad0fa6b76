"""Options that commands share, as dataclasses: a command takes a group as one parameter, and its
user sees the group's options one by one."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer is to see it: each parameter whose type is a dataclass is replaced by
    that dataclass's fields, which are options with defaults."""
    groups: dict[str, type] = {}
    seen: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind = parameter.annotation
        if not (isinstance(kind, type) and is_dataclass(kind)):
            seen.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
            continue
        groups[name] = kind
        seen += [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
            )
            for f in fields(kind)
        ]

    @wraps(command)
    def call(**values: Any) -> None:  # noqa: ANN401 - of options
        made = {
            name: kind(**{f.name: values.pop(f.name) for f in fields(kind)})
            for name, kind in groups.items()
        }
        command(**made, **values)

    call.__dict__["__signature__"] = inspect.Signature(seen)
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
    return call
