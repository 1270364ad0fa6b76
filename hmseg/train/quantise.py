"""Simulated quantisation: a network that computes in float32 what kernels of 8 bits will.

Batch norm is folded first. Then every weight of a product of maps is int8, symmetric, with a scale
for each output channel, and every stored map (`hmseg.train.stored_maps`) uint8, asymmetric, with
one scale; the image, the class scores and what has one pixel stay float. Values are rounded to
nearest, ties to even, and gradients pass through where nothing saturates (Jacob et al., CVPR 2018,
section 3; "straight through" as in torch.fake_quantize_per_tensor_affine). Why so:
docs/decisions/0067-quantised-training.md.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.ao.quantization.observer import MovingAverageMinMaxObserver

from hmseg.fold import fold_pairs
from hmseg.train.stored_maps import Calls, StoredMaps, begin, end, find_stored, listen

QUANTISERS = "quantisers"
"""The submodule of a quantised network that holds its scales."""
MOMENTUM = 0.01
"""Weight of a step's range in the moving average that a map's scale is made of."""
CALIBRATION_BATCHES = 8
"""Batches whose mean range a map begins with."""


class WeightQuantiser(nn.Module):
    """Weights as int8 would hold them: the largest of an output channel is 127, zero is 0. Their
    scales follow from the weights: there is nothing to keep."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def scale(self, weight: Tensor) -> Tensor:
        """One number for each output channel, above 0."""
        others = [axis for axis in range(weight.dim()) if axis != self.axis]
        largest = weight.detach().abs().amax(others).float()
        return (largest / 127).clamp_min(torch.finfo(torch.float32).eps)

    def forward(self, weight: Tensor) -> Tensor:
        """The same shape."""
        scale = self.scale(weight)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        # -128 is never reached; ONNX knows the whole type alone.
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, self.axis, -128, 127)


class MapQuantiser(nn.Module):
    """A map as uint8 would hold it. In training mode its range follows what it sees: a moving
    average of the least and the largest value of a step, over all processes; 0 is always one of the
    256 values."""

    def __init__(self) -> None:
        super().__init__()
        self.range = MovingAverageMinMaxObserver(
            averaging_constant=MOMENTUM, dtype=torch.quint8, qscheme=torch.per_tensor_affine,
            quant_min=0, quant_max=255,
        )  # fmt: skip

    def scale_and_zero(self) -> tuple[Tensor, Tensor]:
        """float32 (1,) above 0 and int32 (1,) in 0..255: a value is scale * (q - zero)."""
        scale, zero = self.range.calculate_qparams()
        return scale, zero

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take a step's map into the range."""
        extremes = torch.stack([-x.amin(), x.amax()])
        if dist.is_initialized():
            dist.all_reduce(extremes, dist.ReduceOp.MAX)
        self.range(extremes * extremes.new_tensor([-1, 1]))

    def forward(self, x: Tensor, *, observed: bool) -> Tensor:
        """The same shape; `observed` says whether the range is to follow."""
        if self.training and observed:
            self.observe(x)
        return torch.fake_quantize_per_tensor_affine(x, *self.scale_and_zero(), 0, 255)


class FixedWeight(nn.Module):
    """`WeightQuantiser` with the scales of certain weights, as constants of an exported graph."""

    def __init__(self, scale: Tensor, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        """The same shape."""
        return torch.fake_quantize_per_channel_affine(
            weight, cast(Tensor, self.scale), cast(Tensor, self.zero), self.axis, -128, 127
        )


class FixedMap(nn.Module):
    """`MapQuantiser` with numbers in the place of a range."""

    def __init__(self, scale: float, zero: int) -> None:
        super().__init__()
        self.scale, self.zero = scale, zero

    def forward(self, x: Tensor, *, observed: bool) -> Tensor:
        """The same shape."""
        del observed
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, 255)


class Quantisers(nn.ModuleDict):
    """By the keys of calls: those of maps, and KEY/weight."""

    def forward(self, x: Tensor) -> Tensor:
        """What it is given: an nn.Sequential calls all that it holds."""
        return x


class _Quantised(Calls):
    """One forward pass of a quantised network."""

    def __init__(self, stored: StoredMaps, quantisers: nn.ModuleDict) -> None:
        super().__init__()
        self._stored, self._quantisers = stored, quantisers

    def call(self, key: str, name: str, call: Callable[..., Any], args: Sequence[Any]) -> Any:  # noqa: ANN401
        del name
        if key in self._stored.weights:
            x, weight, *rest = args
            args = (x, self._quantisers[f"{key}/weight"](weight), *rest)
        result = call(*args)
        scale = self._stored.maps.get(key)
        if scale is None:
            return result
        quantise, observed = self._quantisers[scale], scale == key
        if isinstance(result, tuple):  # a pooling's maps, and where they were
            return (quantise(result[0], observed=observed), *result[1:])
        return quantise(result, observed=observed)


def quantise(network: nn.Module, name: str) -> nn.Module:
    """A network that computes as one of 8 bits, in training mode, of a float one with trained or
    random weights: a copy with its batch norms folded, quantised in each forward pass.

    The names of its tensors are the float network's, without batch norms, and those of
    ``quantisers``. Before it is used it has to see images in training mode, which give its maps
    their ranges. Raises UserError for a network that computes other maps in training.
    """
    quantised = fold_pairs(network)
    for parameter in quantised.parameters():
        parameter.requires_grad_()  # what was folded is a result
    listen(quantised)
    stored = find_stored(quantised, name)
    modules: dict[str, nn.Module] = {
        f"{key}/weight": WeightQuantiser(weight.axis) for key, weight in stored.weights.items()
    }
    modules |= {key: MapQuantiser() for key in dict.fromkeys(stored.maps.values())}
    quantised.add_module(QUANTISERS, Quantisers(modules))
    quantised.stored_maps = stored  # type: ignore[assignment]
    quantised.register_forward_pre_hook(_begin)
    quantised.register_forward_hook(_end, always_call=True)
    return quantised.train()


def set_momentum(network: nn.Module, momentum: float) -> None:
    """The weight of a step's range from here on, of all maps of a quantised network."""
    for module in network.modules():
        if isinstance(module, MapQuantiser):
            module.range.averaging_constant = momentum


def is_quantised(network: nn.Module) -> bool:
    """Whether a network is one of `quantise`."""
    return hasattr(network, QUANTISERS)


def fixed(network: nn.Module) -> nn.Module:
    """A copy of a quantised network in eval mode with its scales as constants, to be exported."""
    copied = copy.deepcopy(network).eval()
    quantisers = cast(nn.ModuleDict, copied.get_submodule(QUANTISERS))
    stored = cast(StoredMaps, network.stored_maps)
    for key, module in list(quantisers.items()):
        if isinstance(module, WeightQuantiser):
            weight = network.get_parameter(stored.weights[key.removesuffix("/weight")].name)
            quantisers[key] = FixedWeight(module.scale(weight), module.axis)
        elif isinstance(module, MapQuantiser):
            scale, zero = module.scale_and_zero()
            quantisers[key] = FixedMap(scale.item(), int(zero.item()))
    return copied


def _begin(network: nn.Module, args: Any) -> None:  # noqa: ANN401 - torch's protocol
    del args
    quantisers = cast(nn.ModuleDict, network.get_submodule(QUANTISERS))
    begin(_Quantised(cast(StoredMaps, network.stored_maps), quantisers))


def _end(network: nn.Module, args: Any, result: Any) -> None:  # noqa: ANN401 - torch's protocol
    del network, args, result
    end()
