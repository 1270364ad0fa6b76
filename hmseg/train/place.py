"""On what a run computed, kept with its weights: a GPU and a CPU do not round alike, nor do
versions of torch."""

import platform

import torch

Place = dict[str, str]
UNKNOWN: Place = {"device": "unknown", "torch": "unknown"}  # of checkpoints that did not say it yet


def place_of(device: torch.device) -> Place:
    """The GPU's name, or the CPU's architecture, and torch's version."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "torch": torch.__version__}
    return {"device": f"{device.type} ({platform.machine()})", "torch": torch.__version__}


def add_place(places: tuple[Place, ...], place: Place) -> tuple[Place, ...]:
    """The places of a run that now goes on at `place`."""
    return places if places and places[-1] == place else (*places, place)
