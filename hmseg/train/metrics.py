"""Networks over a whole split: what `hmseg.train.confusion` counts."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hmseg.data.batches import Source, normalise_on
from hmseg.data.dataset import Array
from hmseg.families import SIDES
from hmseg.families.blocks import resize
from hmseg.mrms import MIN_SIDE, MultiResolution
from hmseg.train.confusion import Confusion
from hmseg.train.distributed import ALONE, World
from lut.errors import UserError

Predictor = Callable[[Array], NDArray[np.integer]]
"""uint8 image (H, W, C) -> class labels (H, W)."""


def torch_predictor(model: nn.Module) -> Predictor:
    """Labels of one uint8 image by the network: those of its largest `torch_scores`."""
    scores = torch_scores(model)
    return lambda image: scores(image).argmax(0).cpu().numpy()


def torch_scores(model: nn.Module) -> Callable[[Array], Tensor]:
    """Class scores (K, H, W) of one uint8 image (H, W, C) by the network in eval mode, on its
    device, in its precision, resized to the image as the deployed network's are."""
    like = next(model.parameters())
    is_ours = isinstance(model, MultiResolution)

    def score(image: Array) -> Tensor:
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                pixels = torch.tensor(image).permute(2, 0, 1)[None]
                batch = normalise_on(like.device, pixels, torch.float32)
                height, width = image.shape[:2]
                # A person cut out of a photograph (LIP) may be smaller than a network's least side,
                # and another network than ours needs sides that its strides divide.
                sides = [
                    max(MIN_SIDE, s) if is_ours else -(-s // SIDES) * SIDES for s in image.shape[:2]
                ]
                missing = sides[1] - width, sides[0] - height
                batch = F.pad(batch, (0, missing[0], 0, missing[1]), mode="replicate")
                scores: Tensor = resize(model(batch.to(like)), (sides[0], sides[1]))
        finally:
            model.train(training)
        return scores[0, :, :height, :width]

    return score


def evaluate(
    predict: Predictor, source: Source, classes: int, world: World = ALONE,
    on_broken: Callable[[UserError], None] | None = None,
) -> Confusion:  # fmt: skip
    """Run `predict` over a whole split, one image at a time, at the images' own size.

    The processes of `world` share the images out and all get the sum. An image that cannot be read
    or is not taken ends it, or goes to `on_broken`, and the others count.
    """
    confusion = Confusion(classes)
    for index in range(world.rank, len(source), world.size):
        try:
            image, labels = source.load(index)
            found = predict(image)
        except UserError as error:
            if on_broken is None:
                raise
            on_broken(error)
            continue
        confusion.add(labels, found)
    confusion.matrix = world.sum(torch.from_numpy(confusion.matrix)).numpy()
    return confusion
