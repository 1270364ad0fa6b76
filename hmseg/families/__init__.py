"""Peer networks: what people bring, one readable file for each family.

Each module with a `NETWORKS` table (name -> constructor) is a family; there is no other list. A
constructor takes the number of classes. In eval mode a network takes normalised images
(N, 3, H, W) and gives scores (N, num_classes, h, w) at its own stride, named in its docstring; in
training mode its `auxiliary` outputs too. Sizes are those of the images: a network is written for H
and W that its strides divide.

`hmseg.zoo.create_model` takes their names beside our own networks'.

The layers were written anew from descriptions of the published networks; no code was copied.
"""

import difflib
import pkgutil
import re
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from lut.errors import UserError

SIDES = 64
"""Every network takes images whose sides this divides; most take others too."""

if TYPE_CHECKING:
    from torch import nn

    Constructor = Callable[[int], nn.Module]


@cache
def _networks() -> "dict[str, Constructor]":
    """Every network by name; imports all families."""
    found: dict[str, Constructor] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        networks = getattr(import_module(f"{__name__}.{module}"), "NETWORKS", {})
        for name, constructor in networks.items():
            if name in found:
                raise UserError(f"network {name!r} is registered already")
            found[name] = constructor
    return found


def list_networks() -> list[str]:
    """The names that `create_network` takes, sorted."""
    return sorted(_networks())


def summary(name: str) -> str:
    """What a network is and who published it, from the head of its family's module."""
    made = _networks()[name]
    module = sys.modules[getattr(made, "func", made).__module__]
    text = " ".join((module.__doc__ or "").split())
    return re.sub(r'"[^"]*", ', "", text).partition(")")[0] + ")"


def create_network(name: str, num_classes: int = 19) -> "nn.Module":
    """A peer network with random weights, in training mode as torch makes it.

    Raises UserError with the nearest name for an unknown one.
    """
    networks = _networks()
    if name not in networks:
        near = difflib.get_close_matches(name, networks, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"unknown network {name!r}: {hint}there are {', '.join(sorted(networks))}")
    return networks[name](num_classes)
