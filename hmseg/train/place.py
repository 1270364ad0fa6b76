"""On what a run computed: kept with its weights, since no two kinds of device round alike."""

import platform

import torch

Place = dict[str, str]


def place_of(device: torch.device) -> Place:
    """The device's name and torch's version."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "torch": torch.__version__}
    return {"device": f"{device.type} ({platform.machine()})", "torch": torch.__version__}


def add_place(places: tuple[Place, ...], place: Place) -> tuple[Place, ...]:
    """The places of a run that now goes on at `place`."""
    return places if places and places[-1] == place else (*places, place)
