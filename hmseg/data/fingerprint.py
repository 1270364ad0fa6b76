"""What a run has learned from, so that it goes on with the same: the frames' names and contents."""

import hashlib
from typing import Any

from hmseg.data.dataset import SegmentationData
from lut.errors import UserError
from lut.files import read_file

Fingerprint = dict[str, str]
"""A digest of each frame's image and mask by the frame's name, in the order of the split."""


def fingerprint(data: SegmentationData) -> Fingerprint:
    """Of a split: reads every file. Raises UserError for one that cannot be read."""
    found: Fingerprint = {}
    for frame in data.frames:
        digest = hashlib.sha256(read_file(frame.image))
        if frame.mask is not None:
            digest.update(read_file(frame.mask))
        # Frames in several folders may be called the same.
        name = frame.name if frame.name not in found else f"{frame.name} {len(found)}"
        found[name] = digest.hexdigest()[:16]
    return found


def parse_fingerprints(value: Any) -> dict[str, Fingerprint]:  # noqa: ANN401 - any JSON value
    """Those of the splits, from a checkpoint; raises UserError for anything else."""
    splits = value.values() if isinstance(value, dict) else [None]
    for split in splits:
        if not isinstance(split, dict) or not all(isinstance(text, str) for text in split.values()):
            raise UserError(f"the data's digests are {value!r:.40}, not texts by frame")
    found: dict[str, Fingerprint] = value
    return found


def check_same(before: dict[str, Fingerprint], now: dict[str, Fingerprint], what: str) -> None:
    """Raise UserError, saying in what they differ, where the splits are no longer those that `what`
    began with. A checkpoint from before they were kept has none, and is taken."""
    if before and before.keys() != now.keys():
        raise UserError(
            f"{what}: it began with the splits {', '.join(before)}, these are {', '.join(now)}; "
            "give it its own data, or begin anew in another folder"
        )
    for split in sorted(before):
        if list(before[split].items()) != list(now[split].items()):
            difference = _difference(before[split], now[split])
            raise UserError(
                f"{what}: the {split} split is not the one that it began with: {difference}; give "
                "it its own data, or begin anew in another folder"
            )


def _difference(before: Fingerprint, now: Fingerprint) -> str:
    if len(before) != len(now):
        return f"it had {len(before)} frames, there are {len(now)}"
    if gone := [name for name in before if name not in now]:
        return f"{gone[0]} is gone"
    if changed := [name for name in before if before[name] != now[name]]:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{changed[0]}{more} changed"
    return "its frames are in another order"
