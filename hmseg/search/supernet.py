"""The supernet: every candidate of every layer in one network, of which a path is computed."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from hmseg.blocks import InvertedResidual, downsample
from hmseg.genotype import Group
from hmseg.mrms import MRMS, MultiResolution, image_size, make_block
from hmseg.mrms_config import MRMSConfig
from hmseg.search.architecture import Path
from hmseg.search.shared import share_weights
from hmseg.search.space import LAYERS, SearchSpace, to_genotype


class Supernet(MultiResolution):
    """MRMS with all candidates side by side: `stages.GROUP.LAYER.OP` holds one operator's weights.

    Called with an image, as MRMS, and a path. Two paths share the weights of the operators that
    they have in common, the stem, and the head; with `shared`, a layer's operators are parts of its
    largest (`hmseg.search.shared`).
    """

    def __init__(self, config: MRMSConfig, space: SearchSpace, *, shared: bool = False) -> None:
        layers = dict(zip(LAYERS, space.layers, strict=True))

        def stage(_index: int, group: Group) -> nn.ModuleList:
            return nn.ModuleList(
                nn.ModuleDict(
                    {
                        str(op): make_block(config, group, layer, op)
                        for op in layers[group, layer] if op
                    }
                )
                for layer in range(group.layers)
            )  # fmt: skip

        super().__init__(config, stage)
        if shared:
            for blocks in self.layers():
                share_weights(blocks)

    def forward(self, image: Tensor, path: Path) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Logits of the path, as MRMS gives them: the same numbers as the network alone."""
        return self.outputs(*self.maps(image, path), image_size(image))

    def maps(self, image: Tensor, path: Path) -> tuple[Tensor, Tensor, Tensor]:
        """C3, C4 and C5 of the path, as `MRMS.features`.

        Gates multiply an operator's own output, before its input is added, and a resized map.
        Since the gates of a layer's candidates sum to 1, that is all of Eq. 2's sum that the
        chosen candidate contributes: the input comes in with weight 1 whatever is chosen.
        """
        gates = path.gates
        if gates is not None:
            gates = gates.to(image)
        medium, low = path.ratios
        x, features = self.stem(image), {}
        for index, ((group, layer), op) in enumerate(zip(LAYERS, path.ops, strict=True)):
            if (group.name, layer) == ("s4a", 0):
                x = _gated(downsample(x, medium), gates, -2)
            if (group.name, layer) == ("s5a", 0):
                x = _gated(downsample(x, low), gates, -1)
            if op is not None:
                block = self.stages[group.name][layer][str(op)]  # type: ignore[index]
                y = _gated(block.branch(x), gates, index)
                x = x + y if block.residual else y
            features[group.name] = x
        return features["s3"], features["s4b"], features["s5b"]

    def layers(self) -> list[list[InvertedResidual]]:
        """All candidates of each of the 22 layers."""
        return [
            list(self.stages[group.name][layer].values())  # type: ignore[index]
            for group, layer in LAYERS
        ]


def _gated(x: Tensor, gates: Tensor | None, row: int) -> Tensor:
    return x if gates is None else x * gates[row]


def inherited_weights(supernet: Supernet, path: Path) -> dict[str, Tensor]:
    """What a path's weights are called in the MRMS of its genotype."""
    names: dict[str, str] = {}  # module of the supernet: module of the network
    for (group, layer), op in zip(LAYERS, path.ops, strict=True):
        if op is not None:
            kept = sum(name.startswith(f"stages.{group.name}.") for name in names)
            names[f"stages.{group.name}.{layer}.{op}."] = f"stages.{group.name}.{kept}."
    weights = {}
    for name, tensor in supernet.state_dict().items():
        if not name.startswith("stages."):
            weights[name] = tensor
            continue
        prefix = ".".join(name.split(".")[:4]) + "."
        if prefix in names:
            weights[names[prefix] + name.removeprefix(prefix)] = tensor
    return weights


def largest_network(config: MRMSConfig, space: SearchSpace) -> MRMS:
    """The path that needs the most memory, as a network on the meta device."""
    ops = [max((op for op in layer if op), key=lambda op: (op.expansion, op.kernel), default=None)
           for layer in space.layers]  # fmt: skip
    medium, low = (max(ratio) for ratio in space.ratios)
    with torch.device("meta"):
        return MRMS(replace(config, genotype=to_genotype(ops, medium, low)))
