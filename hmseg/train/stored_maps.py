"""Which maps of a network are stored where it is deployed: what has to be 8 bits wide.

A network of this project is plain code, so it is watched, not rewritten: a forward pass is run on
torch's meta device under a `TorchFunctionMode` that sees each call of torch, and says where in the
network it happens (`Calls`). A call has the same key in every pass: the path of the module that
makes it, the function's name and how many of that name this module has made before.

Stored is what a kernel writes: the result of a convolution with all that can be computed before it
is written, an activation, a gate, a sum, a concatenation. The image is no map, and what no product
reads any more, the class scores, stays float; so does what has one pixel (global averages and what
is made of them).
"""

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lut.errors import UserError

Function = Callable[..., Any]
SIZE = 256
"""Side of the images that are watched: no map but a pooled one has a single pixel."""

_WEIGHTED = ("conv1d", "conv2d", "conv_transpose2d", "linear")
_PRODUCTS = (*_WEIGHTED, "matmul", "bmm", "scaled_dot_product_attention")
_SUMS = ("add", "iadd", "sub", "isub", "rsub", "mul", "imul", "div", "truediv")
# What is computed on the way to where its input's kernel writes.
_ON_THE_WAY = (
    *_SUMS, "cat", "relu", "relu6", "hardtanh", "clamp", "leaky_relu", "prelu", "hardswish",
    "hardsigmoid", "sigmoid", "silu", "gelu", "elu", "tanh", "softmax", "batch_norm", "pow", "sqrt",
)  # fmt: skip
# Nothing above or below what they are given comes out: the same scale serves.
_SAME_RANGE = ("interpolate", "max_pool2d", "max_pool2d_with_indices", "max_unpool2d")
# Nothing is computed at all.
_MOVES = (
    "getitem", "reshape", "view", "flatten", "unflatten", "permute", "transpose", "squeeze",
    "unsqueeze", "expand", "contiguous", "chunk", "split", "pad", "dropout", "dropout2d", "detach",
    "pixel_shuffle", "to", "float",
)  # fmt: skip


class Calls(TorchFunctionMode):
    """Sees each call of torch between `begin` and `end` of a network that `listen` prepared."""

    def __init__(self) -> None:
        super().__init__()
        self._modules = [""]
        self._made: Counter[str] = Counter()

    def __torch_function__(
        self,
        func: Function,
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - torch's own protocol
        del types
        name = getattr(func, "__name__", "").strip("_")
        call = partial(func, **(kwargs or {}))
        if name == "get":  # of an attribute, such as a shape
            return call(*args)
        key = f"{self._modules[-1].replace('.', '/')}:{name}"
        self._made[key] += 1
        return self.call(f"{key}{self._made[key]}", name, call, args)

    def call(self, key: str, name: str, call: Function, args: Sequence[Any]) -> Any:  # noqa: ANN401
        """Make a call, whose arguments by name are in it, and return what it gives."""
        raise NotImplementedError

    def enter_module(self, path: str) -> None:
        """What follows is called by this module."""
        self._modules.append(path)

    def leave_module(self) -> None:
        """What follows is called by the module before."""
        self._modules.pop()


class _Listening(threading.local):
    calls: Calls | None = None


_NOW = _Listening()


def listen(network: nn.Module) -> None:
    """Have every module of a network say when it is entered and left; copies do so too."""
    for path, module in network.named_modules():
        if path:
            module.register_forward_pre_hook(partial(_enter, path))
            module.register_forward_hook(_leave, always_call=True)


def begin(calls: Calls) -> None:
    """Let `calls` see what a network does from here on, to the `end`."""
    _NOW.calls = calls
    calls.__enter__()  # type: ignore[no-untyped-call]


def end() -> None:
    """The end of `begin`."""
    assert _NOW.calls is not None
    _NOW.calls.__exit__(None, None, None)  # type: ignore[no-untyped-call]
    _NOW.calls = None


def _enter(path: str, module: nn.Module, args: Any) -> None:  # noqa: ANN401 - torch's protocol
    del module, args
    if _NOW.calls is not None:
        _NOW.calls.enter_module(path)


def _leave(module: nn.Module, args: Any, result: Any) -> None:  # noqa: ANN401 - torch's protocol
    del module, args, result
    if _NOW.calls is not None:
        _NOW.calls.leave_module()


@dataclass(eq=False)
class _Value:
    """What a call gives: `pixels` of one channel; the values that it was made of and those that are
    made of it."""

    key: str
    name: str
    pixels: int
    sources: list["_Value"]
    readers: list["_Value"] = field(default_factory=list)
    weight: Tensor | None = None

    @property
    def is_product(self) -> bool:
        return self.name in _PRODUCTS


class _Recorder(Calls):
    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.values = [_Value("", "image", _pixels(image), [])]
        self._of = {id(image): self.values[0]}
        self._kept: list[Any] = [image]  # an id is another's once its tensor is gone

    def call(self, key: str, name: str, call: Function, args: Sequence[Any]) -> Any:  # noqa: ANN401
        result = call(*args)
        self._kept.append(result)
        given = [self._of[id(tensor)] for tensor in _tensors(args) if id(tensor) in self._of]
        sources = list(dict.fromkeys(given))
        made = list(_tensors([result]))
        if not sources or not made:
            return result
        if name in _MOVES:
            self._of |= {id(tensor): sources[0] for tensor in made}
            return result
        value = _Value(key, name, _pixels(made[0]), sources)
        if name in _WEIGHTED and id(args[1]) not in self._of:
            value.weight = args[1]
        for source in sources:
            source.readers.append(value)
        self.values.append(value)
        self._of[id(made[0])] = value
        return result


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _pixels(tensor: Tensor) -> int:
    return tensor.shape[-1] * tensor.shape[-2] if tensor.dim() > 2 else 1


@dataclass(frozen=True)
class Weight:
    """A parameter's name, and the axis of its output channels."""

    name: str
    axis: int


@dataclass(frozen=True)
class StoredMaps:
    """By the keys of calls: their weights, and which call's scale a map is stored with, its own or
    that of the map before it."""

    weights: Mapping[str, Weight]
    maps: Mapping[str, str]


def find_stored(network: nn.Module, name: str) -> StoredMaps:
    """Of a network that `listen` prepared.

    Raises UserError where it computes other maps in training mode, which then could not learn to
    be stored.
    """
    shadow = copy.deepcopy(network).to("meta")
    values = _record(shadow.eval())
    names = {id(parameter): name for name, parameter in shadow.named_parameters()}
    stored = StoredMaps(
        {
            v.key: Weight(names[id(v.weight)], _output_axis(v))
            for v in values if id(v.weight) in names and v.sources[0].pixels > 1
        },
        _stored(values),
    )  # fmt: skip
    trained = {value.key for value in _record(shadow.train())}
    if missing := sorted({*stored.weights, *stored.maps} - trained):
        raise UserError(
            f"{name} computes {missing[0].replace('/', '.')} in use, but not in training: it "
            "cannot be trained with quantisation"
        )
    return stored


def _record(network: nn.Module) -> list[_Value]:
    image = torch.empty(2, 3, SIZE, SIZE, device="meta")
    recorder = _Recorder(image)
    begin(recorder)
    try:
        network(image)
    finally:
        end()
    return recorder.values


def _output_axis(value: _Value) -> int:
    """A transposed convolution's weights are (inputs, outputs of each group, ...)."""
    weight = value.weight
    assert weight is not None
    return 1 if value.name == "conv_transpose2d" and weight.shape[1] > 1 else 0


def _stored(values: Sequence[_Value]) -> dict[str, str]:
    """The call whose scale each stored map has, by the call that makes it."""
    read: set[_Value] = set()  # by a product, at last
    for value in reversed(values):
        if any(reader.is_product or reader in read for reader in value.readers):
            read.add(value)
    of_product: set[_Value] = set()  # made by the kernel of a product
    for value in values:
        passed_on = {source for source in value.sources if len(source.readers) == 1}
        if value.is_product or (value.name in _ON_THE_WAY and passed_on & of_product):
            of_product.add(value)
    order = {value: place for place, value in enumerate(values)}

    def is_on_the_way(value: _Value) -> bool:
        """Whether its only reader computes on it before anything is written. A sum of two products
        is made by the later one's kernel, which reads what the first one wrote."""
        if len(value.readers) != 1 or value.readers[0].name not in _ON_THE_WAY:
            return False
        reader = value.readers[0]
        return reader.name not in _SUMS or value not in of_product or not any(
            other in of_product and len(other.readers) == 1 and other.pixels > 1
            and order[other] > order[value]
            for other in reader.sources
        )  # fmt: skip

    found: dict[str, str] = {}
    for value in values[1:]:
        if value in read and value.pixels > 1 and not is_on_the_way(value):
            before = value.sources[0].key if value.name in _SAME_RANGE else ""
            found[value.key] = found.get(before, value.key)
    return found
