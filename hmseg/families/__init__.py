"""Peer networks: what people bring, one readable file for each family.

Each module with a `NETWORKS` table (name -> constructor) is a family; there is no other list. A
constructor takes the number of classes. In eval mode a network takes normalised images
(N, 3, H, W) and gives scores (N, num_classes, h, w) at its own stride, named in its docstring; in
training mode its `auxiliary` outputs too. Sizes are those of the images: a network is written for H
and W that its strides divide.

`hmseg.zoo.create_model` takes their names beside our own networks'.

The layers were written anew from descriptions of the published networks; no code was copied.
"""

import ast
import difflib
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lut.errors import UserError

SIDES = 64
"""Every network takes images whose sides this divides; most take others too."""

if TYPE_CHECKING:
    from torch import nn

    Constructor = Callable[[int], nn.Module]


@cache
def _modules() -> dict[str, str]:
    """The module of every network, by name. The tables' keys are read, not run: names are looked
    up where torch is not imported."""
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for name in _names_in(ast.parse(path.read_text())):
            if name in found:
                raise UserError(f"network {name!r} is registered already")
            found[name] = path.stem
    return found


def _names_in(module: ast.Module) -> list[str]:
    for statement in module.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
            if [target.id for target in targets if isinstance(target, ast.Name)] == ["NETWORKS"]:
                assert isinstance(statement.value, ast.Dict), "a table of names is a literal"
                return [ast.literal_eval(key) for key in statement.value.keys if key is not None]
    return []


def _constructor(name: str) -> "Constructor":
    networks: dict[str, Constructor] = import_module(f"{__name__}.{_modules()[name]}").NETWORKS
    return networks[name]


def list_networks() -> list[str]:
    """The names that `create_network` takes, sorted."""
    return sorted(_modules())


def summary(name: str) -> str:
    """What a network is and who published it, from the head of its family's module."""
    module = import_module(f"{__name__}.{_modules()[name]}")
    text = " ".join((module.__doc__ or "").split())
    return re.sub(r'"[^"]*", ', "", text).partition(")")[0] + ")"


def create_network(name: str, num_classes: int = 19) -> "nn.Module":
    """A peer network with random weights, in training mode as torch makes it.

    Raises UserError with the nearest name for an unknown one.
    """
    names = list_networks()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"unknown network {name!r}: {hint}there are {', '.join(names)}")
    return _constructor(name)(num_classes)
