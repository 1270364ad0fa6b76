"""The model zoo: networks by name, our own and the peers of `hmseg.families`; other networks of the
search space by their genotype.

Torch is imported by `create_model` alone: a wrong name is refused without it.
"""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hmseg import network_file
from hmseg.families import create_network, list_networks
from hmseg.mend import Resume
from hmseg.mrms_config import Head, MRMSConfig, check_num_classes
from lut.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ZooEntry:
    """One name of our own."""

    config: MRMSConfig
    summary: str


_ENTRIES: dict[str, ZooEntry] = {}


def register(name: str, config: MRMSConfig, summary: str) -> None:
    """Add a network; raises UserError if the name is taken."""
    if name in _ENTRIES:
        raise UserError(f"model {name!r} is registered already")
    _ENTRIES[name] = ZooEntry(config, summary)


def list_models() -> list[str]:
    """Every name that `create_model` takes: our own networks, then the peers."""
    return [*list_own(), *list_networks()]


def list_own() -> list[str]:
    """The names of our own networks, which are of the search space."""
    return list(_ENTRIES)


def is_peer(name: str) -> bool:
    """Whether a name is that of another network than ours."""
    return name not in _ENTRIES and name in list_networks()


def entry(name: str) -> ZooEntry:
    """The entry behind a name of our own; raises UserError with the nearest name for an unknown
    one, and for a peer's."""
    if name in _ENTRIES:
        return _ENTRIES[name]
    if is_peer(name):
        raise UserError(f"{name} is not of our search space: choose one of {', '.join(_ENTRIES)}")
    near = difflib.get_close_matches(name, list_models(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(list_models())}"
    raise UserError(f"unknown model {name!r}: {hint}")


def network_config(model: str, num_classes: int | None = None) -> MRMSConfig:
    """The configuration of a zoo name of our own, of a genotype's file (.json, as a search writes
    it), or of a network in one line (`hmseg.network_file`).

    Without `num_classes` a file's own number of classes counts, else the 19 of Cityscapes. Raises
    UserError for an unknown name, for a peer's, and for a file that is no genotype.
    """
    if model in _ENTRIES:
        config = _ENTRIES[model].config
    elif model.endswith(".json"):
        genotype, width, classes = network_file.read_network(Path(model))
        config = MRMSConfig(genotype, width)
        num_classes = num_classes if num_classes is not None else classes
    elif model.startswith(network_file.PREFIX):
        config = MRMSConfig(*network_file.parse_line(model))
    else:
        config = entry(model).config  # names what is near
    return config if num_classes is None else replace(config, num_classes=num_classes)


def lasting_name(model: str) -> str:
    """What `network_config` takes and that means the same when no file is there: a file's network
    as one line, anything else as it is."""
    if model in _ENTRIES or not model.endswith(".json"):
        return model
    genotype, width, _ = network_file.read_network(Path(model))
    return network_file.to_line(genotype, width)


def create_model(
    name: str, *, num_classes: int | None = None, pretrained: str | None = None
) -> "nn.Module":
    """Build a network, an `MRMS` by the names of `network_config`, or a peer by its own, in
    training mode: `MRMS.forward` and `hmseg.families.auxiliary` say what it then gives. In eval
    mode a peer gives its scores at its own stride.

    Without `pretrained` it is randomly initialised and `num_classes` defaults to the 19 of
    Cityscapes. `pretrained` names the data set whose released weights to load, e.g. "camvid";
    they fix the number of classes. Raises UserError for an unknown name, where there are no such
    weights, and where they have another number of classes than asked for.
    """
    config = None if is_peer(name) else network_config(name, num_classes)
    from hmseg.mrms import MRMS
    from hmseg.pretrained import load_released

    released = None if pretrained is None else load_released(name, pretrained)
    if released is not None:
        if num_classes not in (None, released.num_classes):
            raise UserError(
                f"the {pretrained!r} weights of {name} have {released.num_classes} classes, not "
                f"{num_classes}; leave num_classes out, or use pretrained=None"
            )
        num_classes = released.num_classes
    if config is None:
        num_classes = MRMSConfig.num_classes if num_classes is None else num_classes
        check_num_classes(num_classes)
        model = create_network(name, num_classes)
    else:
        model = MRMS(replace(config, num_classes=num_classes or config.num_classes))
    if released is not None:
        model.load_state_dict(released.tensors)
    return model


def register_found(folder: Path) -> None:
    """Add the networks that a search found: NAME.json, as it writes them.

    Raises UserError for a name that does not end in hmseg and for a network without a measurement:
    only what the search found under a measured budget is called so.
    """
    for path in sorted(folder.glob("*.json")):
        if not path.stem.endswith("hmseg"):
            raise UserError(f"{path}: the names of found networks end in hmseg")
        genotype, width, _ = network_file.read_network(path)
        search = network_file.read_search(path)
        if "measured" not in search:
            raise UserError(
                f"{path}: not measured; finish the search", mend=Resume("search", path.parent)
            )
        budget = search["config"]["budget"]
        register(path.stem, MRMSConfig(genotype, width), f"found by the search within {budget}")


_WIDTHS: tuple[tuple[str, float, str], ...] = (
    ("", 1.0, ""),
    ("tiny-", 0.5, " at half width"),
)
_TABLE_4: tuple[tuple[str, Head, str], ...] = (
    ("a", "concat", "Table 4 (a): concatenation, no LCF, no LGE"),
    ("b", "concat-lge", "Table 4 (b): (a) with LGE"),
    ("c", "lcf", "Table 4 (c): LCF without LGE"),
)
for _prefix, _width, _note in _WIDTHS:
    register(f"{_prefix}mrms", MRMSConfig(width=_width), f"the paper's hand-made network{_note}")
for _prefix, _width, _note in _WIDTHS:
    for _row, _head, _summary in _TABLE_4:
        register(
            f"{_prefix}mrms-{_row}", MRMSConfig(width=_width, head=_head), f"{_summary}{_note}"
        )
register_found(Path(__file__).parent / "genotypes")
