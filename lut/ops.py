"""Operations: what a network is made of, each described once.

An operation says what is computed, on maps of which sizes, and what it counts for; never how it is
computed. Networks, latency tables, matchers, kernels, tuning records and profiles speak of the same
objects. An operation that equals smaller ones in a row names them (`parts`): a backend that has no
kernel for it runs those. Its text, which `parse_operation` reads back, is what files hold:

    inverted_residual cin=16 hidden=96 cout=16 height=64 width=128 residual=yes

Counting is the paper's rule (docs/networks.md): multiply-accumulates of the convolutions only, taps
in the padding counted; parameters in training form, with the affine pair of each batch norm.

All kinds are in this one long file: they are made of each other, and what a network can be made of
is to be read from top to bottom.
"""

import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from lut.errors import UserError

Activation = Literal["none", "relu", "relu6", "hswish", "sigmoid"]
Addend = Literal["none", "map", "channel", "low"]
ImageLayout = Literal["uint8_nhwc", "float32_nchw"]
MapSource = Literal["maps", "uint8_nhwc", "float32_nchw"]
Reduction = Literal["max", "mean", "mean_padded"]  # of a window; `mean_padded` counts its padding
DType = Literal["float32", "bfloat16", "int8"]  # of the maps in memory
# What is done to each value of a kernel's output, one step after the other: functions of the value
# alone; with constants per channel: `prelu` a slope, `elu` a factor below zero, `scale` a factor
# and a shift, `clip` the least and the most; sums and products with another map of the output's
# shape, of one value per channel, or per pixel.
Step = Literal[
    "relu", "relu6", "hswish", "sigmoid", "hsigmoid", "swish", "tanh", "gelu", "gelu_tanh",
    "softplus", "mish", "prelu", "elu", "scale", "clip", "add", "sub", "mul", "add_channel",
    "sub_channel", "mul_channel", "add_pixel", "sub_pixel", "mul_pixel",
]  # fmt: skip
Pair = tuple[int, int]  # rows, columns
Sides = tuple[int, int, int, int]  # top, left, bottom, right
Shape = tuple[int, int, int]  # channels, rows, columns

CHANNELS, STEM_KERNEL, STEM_STRIDE = 3, 3, 2  # of an image, of the first convolution
_NORM = 2  # parameters of batch norm per channel
_KINDS: dict[str, type["Operation"]] = {}
_Kind = TypeVar("_Kind", bound=type["Operation"])


def _register(kind: str) -> Callable[[_Kind], _Kind]:
    def add(cls: _Kind) -> _Kind:
        if kind in _KINDS:
            raise ValueError(f"operation {kind!r} is registered already")
        cls.kind, _KINDS[kind] = kind, cls
        return cls

    return add


@dataclass(frozen=True)
class Operation:
    """One operation on maps of batch size 1; sizes in pixels, `height` and `width` of the input."""

    kind: ClassVar[str]

    @property
    def output(self) -> Shape:
        """Channels, rows and columns of what is computed: of the last part, if there are parts."""
        return self.parts()[-1].output

    @property
    def macs(self) -> int:
        """Multiply-accumulates on one image."""
        return sum(part.macs for part in self.parts())

    @property
    def parameters(self) -> int:
        """Trainable values."""
        return sum(part.parameters for part in self.parts())

    def parts(self) -> tuple["Operation", ...]:
        """The smaller operations, in order, that this one equals; none where it is atomic."""
        return ()

    def __str__(self) -> str:
        words = [self.kind]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                words.append(f"{field.name}={_text(value)}")
        return " ".join(words)


@_register("stem")
@dataclass(frozen=True)
class Stem(Operation):
    """Image (height, width, 3) uint8, or (3, height, width) float32 already normalised ->
    act(3x3 convolution at stride 2)."""

    cout: int
    height: int
    width: int
    source: ImageLayout = "uint8_nhwc"
    act: Activation = "relu6"
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(cout, ceil(height / 2), ceil(width / 2))."""
        return self.cout, *_strided(self.height, self.width, STEM_STRIDE)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return CHANNELS * STEM_KERNEL**2 * _size(self.output)

    @property
    def parameters(self) -> int:
        """Convolution and batch norm."""
        return self.cout * (CHANNELS * STEM_KERNEL**2 + _NORM)


@_register("depthwise")
@dataclass(frozen=True)
class Depthwise(Operation):
    """act(one k x k window per channel), padded by dilation * (kernel // 2)."""

    channels: int
    height: int
    width: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    act: Activation = "relu6"
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(channels, ceil(height / stride), ceil(width / stride))."""
        return self.channels, *_strided(self.height, self.width, self.stride)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.kernel**2 * _size(self.output)

    @property
    def parameters(self) -> int:
        """Convolution and batch norm."""
        return self.channels * (self.kernel**2 + _NORM)


@_register("pointwise")
@dataclass(frozen=True)
class Pointwise(Operation):
    """act(gate * (W x + b) + addend): a 1x1 convolution and what follows it.

    The addend is a ``map`` of the output's shape, one value per ``channel``, or a ``low`` map
    (cout, low_height, low_width), upsampled bilinearly; `gate` one factor per channel. Of a `wide`
    one the output is float32, whatever the other maps are: class scores.
    """

    cin: int
    cout: int
    height: int
    width: int
    act: Activation = "none"
    add: Addend = "none"
    gate: bool = False
    low_height: int = 0
    low_width: int = 0
    dtype: DType = "float32"
    wide: bool = False

    def __post_init__(self) -> None:
        low = self.low_height, self.low_width
        if min(low) < 1 if self.add == "low" else any(low):
            raise ValueError(f"'{self}': the size of a low map goes with such an addend")

    @property
    def output(self) -> Shape:
        """(cout, height, width)."""
        return self.cout, self.height, self.width

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.cin * _size(self.output)

    @property
    def parameters(self) -> int:
        """Convolution and batch norm."""
        return self.cout * (self.cin + _NORM)


@_register("global_mean")
@dataclass(frozen=True)
class GlobalMean(Operation):
    """The mean of every channel."""

    channels: int
    height: int
    width: int
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(channels, 1, 1)."""
        return self.channels, 1, 1


@_register("conv")
@dataclass(frozen=True)
class Conv(Operation):
    """then(W * x + b): any window over maps whose channels are concatenated, or over an image.

    `cin` are the channels of each map. `spread` puts zeros between the input's elements, which lie
    so far apart then: a transposed convolution has its stride there and a mirrored window. `pad`
    may be negative, which cuts. `exact` asks for the plain sum of the products, which rounds equal
    windows alike; `wide` as of `Pointwise`.
    """

    cin: tuple[int, ...]
    cout: int
    height: int
    width: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pad: Sides = (0, 0, 0, 0)
    spread: Pair = (1, 1)
    groups: int = 1
    source: MapSource = "maps"
    then: tuple[Step, ...] = ()
    exact: bool = False
    dtype: DType = "float32"
    wide: bool = False

    def __post_init__(self) -> None:
        if sum(self.cin) % self.groups or self.cout % self.groups or min(self.output) < 1:
            raise ValueError(f"'{self}' has no output, or channels that are in no group")

    @property
    def output(self) -> Shape:
        """(cout, rows, columns)."""
        sides = []
        for axis, size in enumerate((self.height, self.width)):
            padded = (size - 1) * self.spread[axis] + 1 + self.pad[axis] + self.pad[axis + 2]
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            sides.append((padded - reach) // self.stride[axis] + 1)
        return self.cout, sides[0], sides[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates: those of a transposed convolution are counted per input pixel."""
        taps = sum(self.cin) // self.groups * self.kernel[0] * self.kernel[1]
        if self.spread == (1, 1):
            return taps * _size(self.output)
        return taps * self.cout * self.height * self.width

    @property
    def parameters(self) -> int:
        """Convolution and batch norm."""
        taps = sum(self.cin) // self.groups * self.kernel[0] * self.kernel[1]
        return self.cout * (taps + _NORM)


@_register("pool")
@dataclass(frozen=True)
class Pool(Operation):
    """then(the largest element, or the mean, of each window)."""

    channels: int
    height: int
    width: int
    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pad: Sides = (0, 0, 0, 0)
    reduce: Reduction = "max"
    then: tuple[Step, ...] = ()
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        if min(self.output) < 1:
            raise ValueError(f"'{self}' has no output")

    @property
    def output(self) -> Shape:
        """(channels, rows, columns)."""
        sides = []
        for axis, size in enumerate((self.height, self.width)):
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            room = size + self.pad[axis] + self.pad[axis + 2] - reach
            sides.append(room // self.stride[axis] + 1)
        return self.channels, sides[0], sides[1]


@_register("resample")
@dataclass(frozen=True)
class Resample(Operation):
    """then(a map of another size): each row, then each column, is a weighted sum of `taps`
    neighbouring ones. Which ones, and the weights, are constants: resizes of any kind and adaptive
    means."""

    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    taps: Pair
    then: tuple[Step, ...] = ()
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(channels, out_height, out_width)."""
        return self.channels, self.out_height, self.out_width


@_register("unpool")
@dataclass(frozen=True)
class Unpool(Operation):
    """Of three maps, a large one (channels, height, width), the largest element of each of its
    `kernel` windows, and another of that size: the latter's elements where the large one first has
    its largest, zeros elsewhere."""

    channels: int
    height: int
    width: int
    kernel: int
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        if self.height % self.kernel or self.width % self.kernel:
            raise ValueError(f"'{self}' has windows that its map is not made of")

    @property
    def output(self) -> Shape:
        """(channels, height, width)."""
        return self.channels, self.height, self.width


@_register("across_channels")
@dataclass(frozen=True)
class AcrossChannels(Operation):
    """The largest, or the mean, of all channels at each pixel."""

    channels: int
    height: int
    width: int
    reduce: Literal["max", "mean", "sum"]
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(1, height, width)."""
        return 1, self.height, self.width


@_register("concat")
@dataclass(frozen=True)
class Concat(Operation):
    """Maps of `cin` channels each, one behind the other."""

    cin: tuple[int, ...]
    height: int
    width: int
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(all channels, height, width)."""
        return sum(self.cin), self.height, self.width


@_register("channel_slice")
@dataclass(frozen=True)
class ChannelSlice(Operation):
    """`count` channels of a map, from `begin` on."""

    channels: int
    height: int
    width: int
    count: int
    begin: int = 0
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        if self.begin + self.count > self.channels:
            raise ValueError(f"'{self}' reaches behind the last channel")

    @property
    def output(self) -> Shape:
        """(count, height, width)."""
        return self.count, self.height, self.width


@_register("elementwise")
@dataclass(frozen=True)
class Elementwise(Operation):
    """then(x), each element by itself; without steps, of bytes, another scale."""

    channels: int
    height: int
    width: int
    then: tuple[Step, ...] = ()
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(channels, height, width)."""
        return self.channels, self.height, self.width


@_register("channel_norm")
@dataclass(frozen=True)
class ChannelNorm(Operation):
    """then((x - mean) / sqrt(variance + epsilon)) of each pixel's channels: layer norm."""

    channels: int
    height: int
    width: int
    then: tuple[Step, ...] = ()
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(channels, height, width)."""
        return self.channels, self.height, self.width


@_register("attention")
@dataclass(frozen=True)
class Attention(Operation):
    """then(softmax(scale * q k + bias) v) of each head, between every pixel of q and every one of k
    and v in the same group.

    Maps q (heads * key, height, width), k (heads * key, key_height, key_width), v (heads * value,
    key_height, key_width); a head's channels lie together. Both planes are cut into `groups` in
    rows and columns: windows of neighbours or, with `apart`, pixels so far from each other. Biases
    of the scores are constants: none, one matrix a head, or one a group and head.
    """

    heads: int
    key: int
    value: int
    height: int
    width: int
    key_height: int
    key_width: int
    then: tuple[Step, ...] = ()
    groups: Pair = (1, 1)
    apart: bool = False
    biases: int = 0
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        for plane in ((self.height, self.width), (self.key_height, self.key_width)):
            if any(size % count for size, count in zip(plane, self.groups, strict=True)):
                raise ValueError(f"'{self}' has groups that its maps are not made of")
        if self.biases not in (0, self.heads, self.heads * self.groups[0] * self.groups[1]):
            raise ValueError(f"'{self}' has neither a bias for each head nor for each group's")

    @property
    def output(self) -> Shape:
        """(heads * value, height, width)."""
        return self.heads * self.value, self.height, self.width

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the two products, which the paper's rule does not know."""
        pairs = self.height * self.width * self.key_height * self.key_width
        groups = self.groups[0] * self.groups[1]
        return self.heads * (self.key + self.value) * pairs // groups


@_register("product")
@dataclass(frozen=True)
class Product(Operation):
    """then(a b) of each head: the product of a matrix (rows, inner) and one (inner, columns), which
    are maps both.

    A matrix goes down a map's pixels and along its head's channels, which lie together: a (heads *
    inner, *left), b (heads * columns, *right), left and right being planes of rows and of inner
    pixels. Turned, it goes down the channels: a (heads * rows, *left) of inner pixels, or b (heads
    * inner, *right) of columns pixels.
    """

    heads: int
    rows: int
    inner: int
    columns: int
    left: Pair
    right: Pair
    turned: Literal["none", "left", "right"] = "none"
    then: tuple[Step, ...] = ()
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        down = self.inner if self.turned == "left" else self.rows
        along = self.columns if self.turned == "right" else self.inner
        if self.left[0] * self.left[1] != down or self.right[0] * self.right[1] != along:
            raise ValueError(f"'{self}' has planes that are not of its matrices' sizes")

    @property
    def maps(self) -> tuple[Shape, Shape]:
        """Shapes of a and b."""
        a = self.rows if self.turned == "left" else self.inner
        b = self.inner if self.turned == "right" else self.columns
        return (self.heads * a, *self.left), (self.heads * b, *self.right)

    @property
    def output(self) -> Shape:
        """(heads * columns, *left), or of a turned left side (heads * columns, rows, 1)."""
        plane = (self.rows, 1) if self.turned == "left" else self.left
        return self.heads * self.columns, *plane

    @property
    def macs(self) -> int:
        """Multiply-accumulates, which the paper's rule does not know."""
        return self.heads * self.rows * self.inner * self.columns


@_register("resize")
@dataclass(frozen=True)
class Resize(Operation):
    """Bilinear, with half-pixel centres."""

    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(channels, out_height, out_width)."""
        return self.channels, self.out_height, self.out_width


@_register("global_pool")
@dataclass(frozen=True)
class GlobalPool(Operation):
    """act(W mean(x) + b): global context as one value per channel.

    `real`: of a map in 8 bits the mean, the sums and the output are float32, W alone has 8 bits.
    """

    cin: int
    cout: int
    height: int
    width: int
    act: Activation = "none"
    dtype: DType = "float32"
    real: bool = False

    @property
    def parameters(self) -> int:
        """Convolution and bias: one pixel is not normalised."""
        return self.cout * (self.cin + 1)

    def parts(self) -> tuple[Operation, ...]:
        """Mean, then a 1x1 convolution of one pixel."""
        return (
            GlobalMean(self.cin, self.height, self.width, self.dtype),
            Pointwise(self.cin, self.cout, 1, 1, self.act, dtype=self.dtype),
        )


@_register("inverted_residual")
@dataclass(frozen=True)
class InvertedResidual(Operation):
    """[1x1 convolution, act ->] depthwise, act -> 1x1 convolution [+ input] (MobileNetV2).

    Without `expand` (expansion 1) hidden equals cin; a residual has the output's shape. `wide` as
    of `Pointwise`.
    """

    cin: int
    hidden: int
    cout: int
    height: int
    width: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    expand: bool = True
    residual: bool = False
    act: Activation = "relu6"
    dtype: DType = "float32"
    wide: bool = False

    def __post_init__(self) -> None:
        if not self.expand and self.hidden != self.cin:
            raise ValueError(f"'{self}' has no expansion to its hidden channels")
        if self.residual and self.output != (self.cin, self.height, self.width):
            raise ValueError(f"'{self}' adds its input to a map of another shape")

    @property
    def depthwise(self) -> Depthwise:
        """The middle step."""
        return Depthwise(
            self.hidden, self.height, self.width, self.kernel, self.stride, self.dilation,
            self.act, self.dtype,
        )  # fmt: skip

    def parts(self) -> tuple[Operation, ...]:
        """Expansion, if any, depthwise, projection."""
        expansion = Pointwise(
            self.cin, self.hidden, self.height, self.width, self.act, dtype=self.dtype
        )
        add: Addend = "map" if self.residual else "none"
        plane = self.depthwise.output[1:]
        project = Pointwise(
            self.hidden, self.cout, *plane, add=add, dtype=self.dtype, wide=self.wide
        )
        return (*[expansion] * self.expand, self.depthwise, project)


@_register("stem_block")
@dataclass(frozen=True)
class StemBlock(Operation):
    """Stem -> depthwise, act -> 1x1 convolution: `hidden` channels at half the image's size, then
    the depthwise window's stride."""

    hidden: int
    cout: int
    height: int
    width: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    source: ImageLayout = "uint8_nhwc"
    stem_act: Activation = "relu6"
    act: Activation = "relu6"
    dtype: DType = "float32"

    @property
    def stem(self) -> Stem:
        """The first convolution alone."""
        return Stem(self.hidden, self.height, self.width, self.source, self.stem_act, self.dtype)

    @property
    def block(self) -> InvertedResidual:
        """What follows it."""
        return InvertedResidual(
            self.hidden, self.hidden, self.cout, *self.stem.output[1:], self.kernel, self.stride,
            self.dilation, expand=False, act=self.act, dtype=self.dtype,
        )  # fmt: skip

    def parts(self) -> tuple[Operation, ...]:
        """Stem and block."""
        return self.stem, self.block


@_register("stem_pair")
@dataclass(frozen=True)
class StemPair(Operation):
    """A stem block and the inverted residual behind it, which expands and adds no residual."""

    first: StemBlock
    second: InvertedResidual

    def __post_init__(self) -> None:
        second = self.second
        if (second.cin, second.height, second.width) != self.first.output:
            raise ValueError(f"'{second}' does not read the output of '{self.first}'")
        if not second.expand or second.residual:
            raise ValueError(f"'{second}' has no expansion, or a residual")

    def parts(self) -> tuple[Operation, ...]:
        """The two."""
        return self.first, self.second


@_register("local_global")
@dataclass(frozen=True)
class LocalGlobal(Operation):
    """act(W2 mid_act((W1 x + b1) [* gate] + up(low)) + b2): the high-resolution end of the MRMS
    head (paper section 3.1); gate (mid, 1, 1), low (mid, low_height, low_width)."""

    cin: int
    mid: int
    cout: int
    height: int
    width: int
    low_height: int
    low_width: int
    gate: bool = True
    mid_act: Activation = "relu6"
    act: Activation = "relu6"
    dtype: DType = "float32"

    def parts(self) -> tuple[Operation, ...]:
        """The wide middle, then the second convolution."""
        size = self.height, self.width
        return (
            Pointwise(
                self.cin, self.mid, *size, self.mid_act, "low", self.gate, self.low_height,
                self.low_width, self.dtype,
            ),
            Pointwise(self.mid, self.cout, *size, self.act, dtype=self.dtype),
        )  # fmt: skip


@_register("context")
@dataclass(frozen=True)
class Context(Operation):
    """1x1 convolution plus a 1x1 convolution of the global average: C5 and C_gap of the head."""

    cin: int
    cout: int
    height: int
    width: int
    dtype: DType = "float32"

    def parts(self) -> tuple[Operation, ...]:
        """The global one, then the local one that adds it."""
        # Of a map of one pixel, one value per channel is a map.
        add: Addend = "map" if self.height == self.width == 1 else "channel"
        size = self.cin, self.cout, self.height, self.width
        return GlobalPool(*size, dtype=self.dtype), Pointwise(*size, add=add, dtype=self.dtype)


@_register("classifier")
@dataclass(frozen=True)
class Classifier(Operation):
    """Depthwise 3x3, ReLU6 and a 1x1 convolution with bias to the class scores."""

    cin: int
    classes: int
    height: int
    width: int
    dtype: DType = "float32"

    @property
    def parameters(self) -> int:
        """As the separable convolution's, with a bias in the place of the last batch norm."""
        return super().parameters - self.classes

    def parts(self) -> tuple[Operation, ...]:
        """A separable convolution."""
        return (
            InvertedResidual(
                self.cin, self.cin, self.classes, self.height, self.width, expand=False,
                dtype=self.dtype,
            ),
        )  # fmt: skip


@_register("labels_end")
@dataclass(frozen=True)
class Labels(Operation):
    """Scores (classes, height, width) -> uint8 labels (out_height, out_width): bilinear resize and
    arg max."""

    classes: int
    height: int
    width: int
    out_height: int
    out_width: int
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(1, out_height, out_width)."""
        return 1, self.out_height, self.out_width


@_register("arg_max")
@dataclass(frozen=True)
class ArgMax(Operation):
    """Scores -> labels: of each pixel the class with the highest score, uint8, or uint16 of more
    than 255 classes. Before it the scores are brought to the image's size as by `Resample`, which
    does nothing where that is their own and `taps` are 1, 1."""

    classes: int
    height: int
    width: int
    out_height: int
    out_width: int
    taps: Pair = (1, 1)
    dtype: DType = "float32"

    @property
    def resampled(self) -> bool:
        """Whether the scores are brought to another size."""
        return (self.height, self.width, *self.taps) != (self.out_height, self.out_width, 1, 1)

    @property
    def output(self) -> Shape:
        """(1, out_height, out_width)."""
        return 1, self.out_height, self.out_width


@_register("masks")
@dataclass(frozen=True)
class Masks(Operation):
    """Scores -> masks: of each class a plane of uint8, 1 where its score is above a threshold,
    which is a constant. Before it the scores are resampled as for `ArgMax`. Of `one` class the
    plane alone are the labels."""

    classes: int
    height: int
    width: int
    out_height: int
    out_width: int
    taps: Pair = (1, 1)
    one: bool = False
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        if self.one and self.classes > 1:
            raise ValueError(f"'{self}' has more than one class")

    @property
    def resampled(self) -> bool:
        """Whether the scores are brought to another size."""
        return (self.height, self.width, *self.taps) != (self.out_height, self.out_width, 1, 1)

    @property
    def output(self) -> Shape:
        """(classes, out_height, out_width)."""
        return self.classes, self.out_height, self.out_width


@_register("logits_end")
@dataclass(frozen=True)
class Logits(Operation):
    """Class scores at the image's size, a plane each: the network's result."""

    classes: int
    height: int
    width: int
    out_height: int
    out_width: int
    dtype: DType = "float32"

    def parts(self) -> tuple[Operation, ...]:
        """A bilinear resize."""
        return (
            Resize(
                self.classes, self.height, self.width, self.out_height, self.out_width, self.dtype
            ),
        )


@_register("convert")
@dataclass(frozen=True)
class Convert(Operation):
    """A map to a backend's own layout (``pack``), or back to planes (``unpack``); in that layout
    from `dtype` to float32 (``widen``), or back (``narrow``)."""

    direction: Literal["pack", "unpack", "widen", "narrow"]
    channels: int
    height: int
    width: int
    dtype: DType = "float32"

    @property
    def output(self) -> Shape:
        """(channels, height, width)."""
        return self.channels, self.height, self.width


def dtype_of(operation: Operation) -> DType:
    """The type that its maps lie in memory as."""
    if isinstance(operation, StemPair):
        return operation.second.dtype
    found: DType = operation.dtype  # type: ignore[attr-defined]
    return found


def with_dtype(operation: Operation, dtype: DType) -> Operation:
    """The same on maps of another type."""
    if isinstance(operation, StemPair):
        first, second = operation.first, operation.second
        return StemPair(replace(first, dtype=dtype), replace(second, dtype=dtype))
    return replace(operation, dtype=dtype)  # type: ignore[call-arg]


def expand(operation: Operation, has: Callable[[Operation], bool]) -> list[Operation]:
    """The operations that `operation` is run as: itself where `has` says so, else its parts'.

    Raises UserError for an atomic operation that is not to be had.
    """
    if has(operation):
        return [operation]
    if not operation.parts():
        raise UserError(f"there is no kernel for '{operation}'")
    return [small for part in operation.parts() for small in expand(part, has)]


def parse_operation(text: str) -> Operation:
    """Read what `str(operation)` prints; raises UserError for anything else."""
    try:
        if not isinstance(text, str):
            raise ValueError("no text")
        return _parse(text)
    except (ValueError, IndexError, RecursionError) as error:
        raise UserError(
            f"{str(text)[:120]!r} is no operation, such as "
            f"'{InvertedResidual(16, 96, 16, 64, 128, residual=True)}'"
        ) from error


@lru_cache(maxsize=4096)  # a table has few operations, each in many of its lines
def _parse(text: str) -> Operation:
    words = text.split(" ")[::-1]  # last word first, so that the next one is popped
    operation = _build(words)
    if str(operation) != text:  # fields in another order, say, or a default written out
        raise ValueError("not as it is printed")
    return operation


def _size(shape: Shape) -> int:
    channels, height, width = shape
    return channels * height * width


def _strided(height: int, width: int, stride: int) -> tuple[int, int]:
    return -(-height // stride), -(-width // stride)


def _text(value: Any) -> str:  # noqa: ANN401 - of a field
    if isinstance(value, Operation):
        return f"( {value} )"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _build(words: list[str]) -> Operation:
    """The operation that the words begin with; they are used up."""
    cls = _KINDS.get(words.pop())
    if cls is None:
        raise ValueError("unknown kind")
    known = {field.name: field for field in fields(cls)}
    values: dict[str, Any] = {}
    while words and words[-1] != ")":
        name, _, value = words.pop().partition("=")
        if name not in known or name in values:
            raise ValueError(f"unknown or double field {name}")
        values[name] = _value(known[name], value, words)
    missing = {f.name for f in known.values() if f.default is MISSING} - set(values)
    if missing:
        raise ValueError(f"missing {missing}")
    return cls(**values)


def _value(field: Field[Any], text: str, words: list[str]) -> Any:  # noqa: ANN401 - of a field
    kind = field.type
    if text == "(":
        inner = _build(words)
        if words.pop() != ")" or type(inner) is not kind:
            raise ValueError("not such an operation")
        return inner
    if get_origin(kind) is Literal and text in get_args(kind):
        return text
    if kind is bool and text in ("yes", "no"):
        return text == "yes"
    if get_origin(kind) is tuple:
        kinds, words = get_args(kind), text.split(",")
        if Ellipsis not in kinds and len(kinds) != len(words):
            raise ValueError(f"{text} has not {len(kinds)} values")
        return tuple(_element(kinds[0], word) for word in words)
    # 0 is never printed: only defaults are.
    if kind is int and re.fullmatch(r"[1-9]\d{0,8}", text, re.ASCII):
        return int(text)
    raise ValueError(f"{text} is no such value")


def _element(kind: Any, text: str) -> Any:  # noqa: ANN401 - of a field that is a tuple
    if get_origin(kind) is Literal and text in get_args(kind):
        return text
    if kind is int and re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        return int(text)
    raise ValueError(f"{text} is no such value")
