"""A block without an expansion from one that has it: exact where that block is linear and has one
kernel, the nearest elsewhere."""

import pytest
import torch

from hmseg.blocks import InvertedResidual
from hmseg.inherit import conv_of, norm_of
from hmseg.inherit_linear import inherit_linear


def blocks(kernel: int, dilation: int) -> tuple[InvertedResidual, InvertedResidual]:
    """A block of expansion 1, and one of 6 whose ReLU6 clips nothing of inputs in [-1, 1]."""
    torch.manual_seed(0)
    heir, source = (
        InvertedResidual(5, 7, expansion=e, kernel=kernel, stride=2, dilation=dilation).double()
        for e in (1, 6)
    )
    for layer, mean in ((source.expand, 0.0), (source.depthwise, 3.0 * kernel**2)):
        norm = norm_of(layer)
        norm.running_mean.fill_(mean)
        norm.bias.data.fill_(3.0)
        norm.weight.data.fill_(0.1)
    conv_of(source.depthwise).weight.data.fill_(1.0)
    norm = norm_of(source.project)
    norm.weight.data.copy_(torch.tensor([1.0, -2, 3, -4, 5, -6, 7]))
    norm.bias.data.copy_(torch.arange(7.0))
    return heir, source


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 2), (7, 1)])
@torch.no_grad()
def test_a_linear_block_of_one_kernel_is_given_exactly_to_inputs_of_one_deviation(
    kernel: int, dilation: int
):
    heir, source = blocks(kernel, dilation)
    inherit_linear(heir, source)
    # Waves, within ReLU6's linear part, that are of one deviation behind the heir's kernels.
    rows, columns = torch.meshgrid(*[torch.arange(48.0)] * 2, indexing="ij")
    phases = torch.rand(20, 3, generator=torch.Generator().manual_seed(1)) / 2
    x = torch.stack([torch.sin(a * rows + b * columns + 12 * c) for a, b, c in phases])
    x = x.view(4, 5, 48, 48).double()
    x = x / heir.depthwise[0](x).std((0, 2, 3), keepdim=True)
    x = x / x.abs().max()
    hidden = source.eval().depthwise(source.expand(x))
    assert 0 < hidden[..., 4:-4, 4:-4].min() < hidden[..., 4:-4, 4:-4].max() < 6
    mine, wanted = heir.train()(x), source(x)
    inside = slice(None), slice(None), slice(3, -3), slice(3, -3)
    a, b = (y[inside] - y[inside].mean((0, 2, 3), keepdim=True) for y in (mine, wanted))
    cosine = (a * b).sum((0, 2, 3)) / (a.square().sum((0, 2, 3)) * b.square().sum((0, 2, 3))).sqrt()
    torch.testing.assert_close(cosine, torch.ones(7).double(), atol=1e-6, rtol=0)


@torch.no_grad()
def test_of_several_kernels_it_is_nearer_than_any_other_tried():
    """The squared error of the convolution that both are, against 200 tries beside it."""
    heir, source = blocks(3, 1)
    torch.nn.init.normal_(conv_of(source.depthwise).weight)
    inherit_linear(heir, source)

    def full(block: InvertedResidual) -> torch.Tensor:
        """(outputs, inputs, taps) of a block without an expansion."""
        taps = conv_of(block.depthwise).weight.flatten(1)
        return conv_of(block.project).weight.flatten(1)[:, :, None] * taps

    norms = [norm_of(layer) for layer in (source.expand, source.depthwise, source.project)]
    scales = [n.weight / (n.running_var + n.eps).sqrt() for n in norms]
    wanted = torch.einsum(
        "oh,hc,hk->ock",
        conv_of(source.project).weight.flatten(1) * scales[2].abs()[:, None],
        conv_of(source.expand).weight.flatten(1) * scales[0][:, None],
        conv_of(source.depthwise).weight.flatten(1) * scales[1][:, None],
    )
    best = (full(heir) - wanted).square().sum()
    assert 0 < best < wanted.square().sum()
    kept = [conv_of(layer).weight.clone() for layer in (heir.depthwise, heir.project)]
    for _ in range(200):
        for layer, weight in zip((heir.depthwise, heir.project), kept, strict=True):
            conv_of(layer).weight.copy_(weight * (1 + 0.05 * torch.randn_like(weight)))
        assert (full(heir) - wanted).square().sum() > best
