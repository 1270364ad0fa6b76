"""Words of operations: one for each kind, and for every one that can be drawn."""

import re

import pytest
from hypothesis import given, settings

from lut import ops
from lut.ops import Operation
from lut.words import _KINDS, _WORDS, in_words, kernel_in_words, kind_in_words
from tests.lut.operations import OPERATIONS
from tests.lut.tables import KEY, OTHER

PAIR = ops.StemPair(ops.StemBlock(16, 8, 256, 512), ops.InvertedResidual(8, 48, 12, 128, 256, 5, 2))
EXAMPLES = {
    ops.Stem(16, 256, 512): "stem 3→16, 3x3, stride 2, 256x512",
    ops.Depthwise(96, 64, 128, 5, 2, 4): "depthwise of 96, 5x5, stride 2, dilation 4, 64x128",
    ops.Pointwise(16, 96, 8, 9): "1x1 convolution 16→96, 8x9",
    ops.Pointwise(16, 96, 8, 9, "relu", "map", gate=True): (
        "1x1 convolution 16→96, times a value a channel, plus a map, 8x9"
    ),
    ops.Pointwise(16, 96, 8, 9, add="low", low_height=4, low_width=5): (
        "1x1 convolution 16→96, plus a map of 4x5 made larger, 8x9"
    ),
    ops.GlobalMean(96, 8, 9): "mean of each of 96 channels, 8x9",
    ops.Conv((64,), 32, 64, 128, (3, 3), (2, 2), pad=(1, 1, 1, 1), then=("relu",)): (
        "convolution 64→32, 3x3, stride 2, 64x128"
    ),
    ops.Conv((64, 32), 32, 64, 128, (1, 7), (1, 1), (1, 2), then=("add", "relu")): (
        "convolution 64+32→32, 1x7, dilation 1x2, plus a map, 64x128"
    ),
    ops.Conv((8,), 8, 64, 128, (3, 3), groups=8): "depthwise convolution 8→8, 3x3, 64x128",
    ops.Conv((8,), 16, 64, 128, groups=2): "convolution in 2 groups 8→16, 1x1, 64x128",
    ops.Conv((8,), 4, 16, 32, (2, 2), pad=(1, 1, 1, 1), spread=(2, 2)): (
        "transposed convolution 8→4, 2x2, stride 2, 16x32"
    ),
    ops.Pool(8, 64, 128, (3, 3), (2, 2)): "max pooling of 8, 3x3, stride 2, 64x128",
    ops.Pool(8, 64, 128, (3, 2), reduce="mean_padded"): "mean pooling of 8, 3x2, 64x128",
    ops.Resample(8, 4, 4, 8, 8, (2, 2), ("add",)): "resize of 8, plus a map, 4x4→8x8",
    ops.Unpool(8, 4, 4, 2): "unpooling of 8, 2x2, 4x4",
    ops.AcrossChannels(8, 4, 5, "max"): "largest over 8 channels, 4x5",
    ops.Concat((8, 4), 4, 5): "concatenation 8+4, 4x5",
    ops.ChannelSlice(64, 4, 5, 16, 32): "channels 32 to 47 of 64, 4x5",
    ops.Elementwise(8, 4, 5, ("add", "hswish")): "plus a map then hard swish of 8, 4x5",
    ops.Elementwise(8, 4, 5, ("sub_pixel", "elu", "clip")): (
        "minus a value a pixel then ELU then clip of 8, 4x5"
    ),
    ops.ChannelNorm(8, 4, 5): "layer norm of 8, 4x5",
    ops.Attention(1, 8, 8, 4, 5, 2, 3): "attention of 1 head, 4x5 on 2x3",
    ops.Attention(1, 8, 8, 4, 6, 4, 6, groups=(2, 3)): (
        "attention of 1 head, in 2x3 groups, 4x6 on 4x6"
    ),
    ops.Product(2, 12, 8, 5, (3, 4), (2, 4)): "product of 2 heads, 12x8 by 5",
    ops.Attention(2, 8, 8, 4, 5, 2, 3, ("gelu",)): "attention of 2 heads, 4x5 on 2x3",
    OTHER: "resize of 16, 32x64→16x32",
    ops.GlobalPool(32, 128, 4, 5, "sigmoid"): "mean and 1x1 convolution 32→128, 4x5",
    KEY: "inverted residual 16→96→16, 3x3, plus its input, 64x128",
    ops.InvertedResidual(16, 16, 8, 64, 128, stride=2, expand=False): (
        "separable convolution 16→8, 3x3, stride 2, 64x128"
    ),
    PAIR.first: "stem and separable convolution 3→16→8, 3x3, 256x512",
    PAIR: (
        "stem, separable convolution and inverted residual 3→16→8→48→12, 3x3 and 5x5, 256x512"
    ),
    ops.LocalGlobal(16, 128, 64, 32, 64, 16, 32): "end of the head 16→128→64, 32x64 and 16x32",
    ops.Context(160, 128, 4, 5): "1x1 convolution and context 160→128, 4x5",
    ops.Classifier(64, 11, 4, 5): "classifier 64→11, 4x5",
    ops.Labels(11, 4, 5, 8, 10): "labels of 11 classes, 4x5→8x10",
    ops.ArgMax(11, 4, 5, 4, 5): "labels of 11 classes, 4x5",
    ops.Masks(11, 4, 5, 8, 10): "masks of 11 classes, 4x5→8x10",
    ops.Masks(1, 4, 5, 4, 5, one=True): "mask of 1 class, 4x5",
    ops.Logits(11, 4, 5, 8, 10): "scores of 11 classes, 4x5→8x10",
    ops.Convert("pack", 16, 4, 5): "planes to blocks, 16, 4x5",
    ops.Convert("unpack", 16, 4, 5): "blocks to planes, 16, 4x5",
    ops.Convert("widen", 16, 4, 5, "bfloat16"): "to float32, 16, 4x5, in bf16",
    ops.Convert("narrow", 16, 4, 5, "bfloat16"): "from float32, 16, 4x5, in bf16",
}  # fmt: skip


@pytest.mark.parametrize(("operation", "words"), EXAMPLES.items(), ids=str)
def test_words(operation: Operation, words: str):
    assert in_words(operation) == words
    assert kernel_in_words(str(operation)) == words


def test_every_kind_has_words_and_an_example():
    kinds = set(Operation.__subclasses__())
    assert kinds == set(_WORDS) == {type(operation) for operation in EXAMPLES}
    assert {kind.kind for kind in kinds} - {"convert"} == set(_KINDS) - {"pack", "unpack", "tvm"}


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.kind)
def test_no_operation_shows_its_fields(kind: type[Operation]):
    @settings(max_examples=20)
    @given(OPERATIONS[kind])
    def check(operation: Operation) -> None:
        words = in_words(operation)
        assert "=" not in words
        assert "_" not in words
        assert ", ," not in words
        assert re.search(r"\d+x\d+", words)  # a size, at least

    check()


def test_what_is_no_operation_is_left_as_it_is():
    assert kernel_in_words("") == ""
    assert kernel_in_words("tvm:0123456789abcdef") == kind_in_words("tvm") == "loops of TVM's"
    assert kernel_in_words("inverted_residual of something") == "inverted_residual of something"
    assert kind_in_words("inverted_residual") == "inverted residual"
    assert kind_in_words("of another version") == "of another version"
