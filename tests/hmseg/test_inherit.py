"""What a candidate takes of a trained operator: the same function, or what matters most of it."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hmseg.blocks import InvertedResidual
from hmseg.genotype import MRMS_GENOTYPE, Op, parse_genotype
from hmseg.inherit import fit_kernel, inherit_block, inherit_network, inherit_released
from hmseg.mrms import MRMS, MRMSConfig
from hmseg.pretrained import load_released
from hmseg.search.architecture import Path
from hmseg.search.space import CANDIDATES, DIMENSIONS, search_space
from hmseg.search.supernet import Supernet
from lut.errors import UserError

CONFIG = MRMSConfig(width=0.5, num_classes=4)
MRMS_OPS = [op for ops in MRMS_GENOTYPE.ops for op in ops]


def trained(module: nn.Module) -> nn.Module:
    """In eval mode, with norms that are not those of a new one."""
    torch.manual_seed(3)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (norm.bias, norm.running_mean):
                nn.init.normal_(tensor, std=0.2)
    return module.double().eval()


def make(expansion: int, kernel: int, cout: int = 8) -> InvertedResidual:
    torch.manual_seed(expansion + kernel)
    block = InvertedResidual(8, cout, expansion=expansion, kernel=kernel, stride=1, dilation=2)
    return trained(block)


def some(channels: int = 3, size: tuple[int, int] = (64, 96)) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1)).double()


def path_of(ops: list[Op | None]) -> Path:
    return Path((*(CANDIDATES.index(op) for op in ops), 1, 1))


@pytest.fixture(scope="module")
def network() -> MRMS:
    return trained(MRMS(CONFIG))


@pytest.fixture(scope="module")
def supernet(network: MRMS) -> Supernet:
    torch.manual_seed(5)
    heir = Supernet(CONFIG, search_space(DIMENSIONS, MRMS_GENOTYPE)).double().eval()
    inherit_network(heir, network)
    return heir


@pytest.mark.parametrize("seed", [None, 0, 1])
@torch.no_grad()
def test_paths_that_cut_nothing_are_the_network_itself(
    network: MRMS, supernet: Supernet, seed: int | None
):
    """Larger kernels and further layers change nothing until they are trained."""
    ops = list(MRMS_OPS)
    if seed is not None:
        rng = random.Random(seed)
        ops = [
            rng.choice([*CANDIDATES]) if op is None else Op(op.expansion, rng.choice((3, 5, 7)))
            for op in ops
        ]
    torch.testing.assert_close(supernet(some(), path_of(ops)), network(some()))


@torch.no_grad()
def test_a_network_with_larger_kernels_and_further_layers(network: MRMS):
    genotype = parse_genotype(
        "s1 e1k5 | s2 e6k3 e6k7 e3k3 skip | s3 e6k3 e6k3 e6k5 skip | s4a e6k3 e6k7 e6k3 e6k3"
        " | s4b e6k3 e6k3 e6k3 e1k5 | s5a e6k3 e6k5 e6k3 skip | s5b e6k7 | 0.5 0.5"
    )
    heir = MRMS(replace(CONFIG, genotype=genotype)).double().eval()
    inherit_network(heir, network)
    torch.testing.assert_close(heir(some()), network(some()))


@torch.no_grad()
def test_a_path_that_cuts_is_another_network(network: MRMS, supernet: Supernet):
    cut = [Op(3, 3) if index == 5 else op for index, op in enumerate(MRMS_OPS)]
    assert not torch.allclose(supernet(some(), path_of(cut)), network(some()))


@torch.no_grad()
def test_the_hidden_channels_that_reach_the_output_are_kept():
    source, heir = make(6, 3), make(3, 5)
    silent = torch.randperm(48, generator=torch.Generator().manual_seed(2))[:24]
    for tensor in (source.depthwise[1].weight, source.depthwise[1].bias):
        tensor[silent] = 0  # behind the ReLU6 there is nothing
    inherit_block(heir, source)
    x = some(8, (12, 16))
    torch.testing.assert_close(heir(x), source(x))


@pytest.mark.parametrize(("mine", "theirs"), [((6, 3), (3, 3)), ((1, 7), (1, 3)), ((6, 7), (3, 5))])
@torch.no_grad()
def test_what_is_larger_begins_as_the_same_function(mine: tuple, theirs: tuple):
    heir, source = make(*mine), make(*theirs)
    inherit_block(heir, source)
    x = some(8, (12, 16))
    torch.testing.assert_close(heir(x), source(x))


@pytest.mark.parametrize(("expansion", "source"), [(1, (6, 3)), (6, (1, 3)), (3, None)])
@torch.no_grad()
def test_where_nothing_fits_the_input_passes(expansion: int, source: tuple | None):
    heir = make(expansion, 3)
    nn.init.zeros_(heir.project[1].bias)  # as in a new block
    inherit_block(heir, make(*source) if source else None)
    heir.train()
    x = some(8, (12, 16))
    torch.testing.assert_close(heir(x), x)


@torch.no_grad()
def test_where_nothing_fits_and_nothing_is_added_the_block_keeps_its_weights():
    heir = make(1, 3, cout=16)
    before = {name: tensor.clone() for name, tensor in heir.state_dict().items()}
    inherit_block(heir, make(6, 3, cout=16))
    for name, tensor in heir.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_smaller_kernel_is_the_middle():
    large = torch.arange(49.0).view(1, 1, 7, 7)
    assert fit_kernel(large, 3).flatten().tolist() == [16, 17, 18, 23, 24, 25, 30, 31, 32]
    assert torch.equal(fit_kernel(fit_kernel(large, 9), 7), large)
    assert fit_kernel(large, 9).sum() == large.sum()


def test_released_weights_that_do_not_fit_are_refused():
    released = load_released("tiny-mrms", "camvid")
    classes = tuple(released.card["classes"])
    config = replace(CONFIG, num_classes=len(classes))
    for heir, given, message in (
        (MRMS(config), classes[::-1], "tiny-mrms is for other classes"),
        (MRMS(replace(config, width=1.0)), classes, "has another width or head"),
        (MRMS(replace(config, head="concat")), classes, "has another width or head"),
    ):
        before = {name: tensor.clone() for name, tensor in heir.state_dict().items()}
        with pytest.raises(UserError, match=message):
            inherit_released(heir, released, given)
        assert all(torch.equal(tensor, before[name]) for name, tensor in heir.state_dict().items())
