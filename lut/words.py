"""Operations in plain words, for tables and pictures that people read.

    inverted residual 16→96→16, 3x3, 64x128, plus its input

Channels with arrows between them, the window, what is out of the ordinary, then the map that is
read, rows by columns, and last what maps are made of where that is not float32. Functions of single
values (a ReLU) are left out, except where they are all that is done: two operations may read alike,
their text (`str`) never does.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from lut import ops
from lut.errors import UserError
from lut.ops import DType, Operation, Pair, Step, dtype_of, parse_operation

_STEPS: dict[Step, str] = {
    "relu": "ReLU", "relu6": "ReLU6", "hswish": "hard swish", "sigmoid": "sigmoid",
    "hsigmoid": "hard sigmoid", "swish": "swish", "tanh": "tanh", "gelu": "GELU",
    "gelu_tanh": "GELU by tanh", "softplus": "softplus", "mish": "Mish", "prelu": "PReLU",
    "elu": "ELU", "scale": "scale and shift", "clip": "clip",
}  # fmt: skip
_BESIDE: dict[Step, str] = {  # with another map
    "add": "plus a map", "sub": "minus a map", "mul": "times a map",
    "add_channel": "plus a value a channel", "sub_channel": "minus a value a channel",
    "mul_channel": "times a value a channel", "add_pixel": "plus a value a pixel",
    "sub_pixel": "minus a value a pixel", "mul_pixel": "times a value a pixel",
}  # fmt: skip
_STORED: dict[DType, str] = {"float32": "", "bfloat16": "in bf16", "int8": "in 8 bits"}
_WAYS = {
    "pack": "planes to blocks", "unpack": "blocks to planes", "widen": "to float32",
    "narrow": "from float32",
}  # fmt: skip
assert set(_STEPS) | set(_BESIDE) == set(get_args(Step))


def in_words(operation: Operation) -> str:
    """What an operation is, such as ``depthwise of 96, 3x3, stride 2, 64x128``."""
    words = _WORDS[type(operation)](operation)
    return ", ".join(filter(None, (*words, _STORED[dtype_of(operation)])))


def kernel_in_words(spec: str) -> str:
    """The words of a kernel from the text that a profile has: that itself where it is no
    operation's."""
    try:
        return in_words(parse_operation(spec))
    except UserError:
        return _KINDS["tvm"] if spec.startswith("tvm:") else spec


def kind_in_words(template: str) -> str:
    """A kind of kernel, ``inverted_residual`` say; itself where it is of another version."""
    return _KINDS.get(template, template)


def _window(kernel: int | Pair, stride: int | Pair = 1, dilation: int | Pair = 1) -> str:
    sides = [(of, of) if isinstance(of, int) else of for of in (kernel, stride, dilation)]
    words = [f"{sides[0][0]}x{sides[0][1]}"]
    for name, (rows, columns) in zip(("stride", "dilation"), sides[1:], strict=True):
        if (rows, columns) != (1, 1):
            words.append(f"{name} {rows}" if rows == columns else f"{name} {rows}x{columns}")
    return ", ".join(words)


def _map(operation: Any) -> str:  # noqa: ANN401 - any with a size
    return f"{operation.height}x{operation.width}"


def _resized(operation: Any) -> str:  # noqa: ANN401
    out = f"{operation.out_height}x{operation.out_width}"
    return out if out == _map(operation) else f"{_map(operation)}→{out}"


def _chain(*channels: int | None) -> str:
    return "→".join(str(count) for count in channels if count is not None)


def _beside(steps: tuple[Step, ...]) -> str:
    return ", ".join(_BESIDE[step] for step in steps if step in _BESIDE)


def _all_steps(steps: tuple[Step, ...]) -> str:
    return " then ".join((_STEPS | _BESIDE)[step] for step in steps)


def _pointwise(op: ops.Pointwise) -> tuple[str, ...]:
    addends: Mapping[ops.Addend, str] = {
        "none": "", "map": "plus a map", "channel": "plus a value a channel",
        "low": f"plus a map of {op.low_height}x{op.low_width} made larger",
    }  # fmt: skip
    what = f"1x1 convolution {_chain(op.cin, op.cout)}"
    return what, "times a value a channel" * op.gate, addends[op.add], _map(op)


def _conv(op: ops.Conv) -> tuple[str, ...]:
    transposed, depthwise = op.spread != (1, 1), op.groups == sum(op.cin) == op.cout
    name = "convolution"
    if depthwise:
        name = "depthwise convolution"
    elif op.groups > 1:
        name = f"convolution in {op.groups} groups"
    # The stride of a transposed convolution is what lies between its input's elements.
    window = _window(op.kernel, op.spread if transposed else op.stride, op.dilation)
    return (
        f"{'transposed ' * transposed}{name} {'+'.join(map(str, op.cin))}→{op.cout}", window,
        _beside(op.then), _map(op),
    )  # fmt: skip


def _pool(op: ops.Pool) -> tuple[str, ...]:
    name = "max pooling" if op.reduce == "max" else "mean pooling"
    window = _window(op.kernel, op.stride, op.dilation)
    return f"{name} of {op.channels}", window, _beside(op.then), _map(op)


def _block_name(op: ops.InvertedResidual) -> str:
    return "inverted residual" if op.expand else "separable convolution"


def _block(op: ops.InvertedResidual) -> tuple[str, ...]:
    return (
        f"{_block_name(op)} {_chain(op.cin, op.hidden if op.expand else None, op.cout)}",
        _window(op.kernel, op.stride, op.dilation), "plus its input" * op.residual, _map(op),
    )  # fmt: skip


def _stem_block(op: ops.StemBlock) -> tuple[str, ...]:
    what = f"stem and separable convolution {_chain(ops.CHANNELS, op.hidden, op.cout)}"
    return what, _window(op.kernel, op.stride, op.dilation), _map(op)


def _stem_pair(op: ops.StemPair) -> tuple[str, ...]:
    first, second = op.first, op.second
    channels = _chain(ops.CHANNELS, first.hidden, first.cout, second.hidden, second.cout)
    windows = f"{_window(first.kernel)} and {_window(second.kernel)}"
    return f"stem, separable convolution and inverted residual {channels}", windows, _map(first)


def _attention(op: ops.Attention) -> tuple[str, ...]:
    heads = f"{op.heads} head{'s' * (op.heads > 1)}"
    seen = f"{op.key_height}x{op.key_width}"
    grid = f"in {op.groups[0]}x{op.groups[1]} groups" if op.groups != (1, 1) else ""
    return f"attention of {heads}", grid, _beside(op.then), f"{_map(op)} on {seen}"


def _product(op: ops.Product) -> tuple[str, ...]:
    heads = f"{op.heads} head{'s' * (op.heads > 1)}"
    return f"product of {heads}", _beside(op.then), f"{op.rows}x{op.inner} by {op.columns}"


def _masks(op: ops.Masks) -> tuple[str, ...]:
    return ("mask of 1 class" if op.one else f"masks of {op.classes} classes"), _resized(op)


def _convert(op: ops.Convert) -> tuple[str, ...]:
    return f"{_WAYS[op.direction]}, {op.channels}", _map(op)


_REDUCED = {"max": "largest", "mean": "mean", "sum": "sum"}
_WORDS: dict[type[Operation], Callable[[Any], tuple[str, ...]]] = {
    ops.Stem: lambda op: (f"stem {_chain(ops.CHANNELS, op.cout)}", _window(3, 2), _map(op)),
    ops.Depthwise: lambda op: (
        f"depthwise of {op.channels}", _window(op.kernel, op.stride, op.dilation), _map(op)
    ),
    ops.Pointwise: _pointwise,
    ops.GlobalMean: lambda op: (f"mean of each of {op.channels} channels", _map(op)),
    ops.Conv: _conv,
    ops.Pool: _pool,
    ops.Resample: lambda op: (f"resize of {op.channels}", _beside(op.then), _resized(op)),
    ops.Unpool: lambda op: (f"unpooling of {op.channels}", _window(op.kernel), _map(op)),
    ops.AcrossChannels: lambda op: (
        f"{_REDUCED[op.reduce]} over {op.channels} channels", _map(op)
    ),
    ops.Concat: lambda op: (f"concatenation {'+'.join(map(str, op.cin))}", _map(op)),
    ops.ChannelSlice: lambda op: (
        f"channels {op.begin} to {op.begin + op.count - 1} of {op.channels}", _map(op)
    ),
    ops.Elementwise: lambda op: (f"{_all_steps(op.then)} of {op.channels}", _map(op)),
    ops.ChannelNorm: lambda op: (f"layer norm of {op.channels}", _beside(op.then), _map(op)),
    ops.Attention: _attention,
    ops.Product: _product,
    ops.Resize: lambda op: (f"resize of {op.channels}", _resized(op)),
    ops.GlobalPool: lambda op: (
        f"mean and 1x1 convolution {_chain(op.cin, op.cout)}", _map(op)
    ),
    ops.InvertedResidual: _block,
    ops.StemBlock: _stem_block,
    ops.StemPair: _stem_pair,
    ops.LocalGlobal: lambda op: (
        f"end of the head {_chain(op.cin, op.mid, op.cout)}", f"{_map(op)} and "
        f"{op.low_height}x{op.low_width}",
    ),
    ops.Context: lambda op: (f"1x1 convolution and context {_chain(op.cin, op.cout)}", _map(op)),
    ops.Classifier: lambda op: (f"classifier {_chain(op.cin, op.classes)}", _map(op)),
    ops.Labels: lambda op: (f"labels of {op.classes} classes", _resized(op)),
    ops.ArgMax: lambda op: (f"labels of {op.classes} classes", _resized(op)),
    ops.Masks: _masks,
    ops.Logits: lambda op: (f"scores of {op.classes} classes", _resized(op)),
    ops.Convert: _convert,
}  # fmt: skip
_KINDS = {
    "stem": "stem", "depthwise": "depthwise", "pointwise": "1x1 convolution",
    "global_mean": "mean of channels", "conv": "convolution", "pool": "pooling",
    "resample": "resize", "unpool": "unpooling", "across_channels": "over channels",
    "concat": "concatenation", "channel_slice": "channels of a map", "elementwise": "elementwise",
    "channel_norm": "layer norm", "attention": "attention", "product": "product of maps",
    "resize": "resize",
    "global_pool": "mean and 1x1 convolution", "inverted_residual": "inverted residual",
    "stem_block": "stem block", "stem_pair": "stem and two blocks",
    "local_global": "end of the head", "context": "1x1 convolution and context",
    "classifier": "classifier", "labels_end": "labels", "arg_max": "labels", "masks": "masks",
    "logits_end": "scores", "pack": "planes to blocks", "unpack": "blocks to planes",
    "tvm": "loops of TVM's",
}  # fmt: skip
