"""Operators that share their weights: parts of the largest, the same names, one parameter."""

from dataclasses import replace
from pathlib import Path as FilePath

import pytest
import torch
from torch import Tensor, nn

from hmseg.blocks import InvertedResidual
from hmseg.genotype import MRMS_GENOTYPE, Op
from hmseg.inherit import inherit_network
from hmseg.mrms import MRMS, MRMSConfig
from hmseg.operators import OPERATORS
from hmseg.search.architecture import Path
from hmseg.search.shared import share_weights
from hmseg.search.space import CANDIDATES, DIMENSIONS, search_space
from hmseg.search.supernet import Supernet, inherited_weights
from hmseg.train.checkpoint import load_into

SPACE = search_space(DIMENSIONS, MRMS_GENOTYPE)
CONFIG = MRMSConfig(width=0.5, num_classes=4)


def make_blocks(dilation: int = 2) -> dict[Op, InvertedResidual]:
    torch.manual_seed(0)
    return {
        op: InvertedResidual(
            8, 16, expansion=op.expansion, kernel=op.kernel, stride=2, dilation=dilation
        ).double()
        for op in OPERATORS
    }


def make_supernet(*, shared: bool = True) -> Supernet:
    torch.manual_seed(0)
    return Supernet(CONFIG, SPACE, shared=shared).double().train()


def make_network() -> MRMS:
    """In eval mode, with norms that are not those of a new one."""
    torch.manual_seed(3)
    network = MRMS(CONFIG).double().eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return network


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 64, 96, generator=generator, dtype=torch.float64)


def path_of(op: Op) -> Path:
    return Path((*[CANDIDATES.index(op)] * 22, 1, 1))


def weight_of(block: InvertedResidual, name: str) -> Tensor:
    return getattr(block, name)[0].weight


@pytest.mark.parametrize("op", OPERATORS, ids=str)
def test_an_operator_is_part_of_the_largest(op: Op):
    blocks = make_blocks()
    alone = make_blocks()[op]
    share_weights(blocks.values())
    block, border = blocks[op], (7 - op.kernel) // 2
    largest = blocks[Op(1 if op.expansion == 1 else 6, 7)]
    hidden = 8 * op.expansion
    middle = slice(border, border + op.kernel)
    parts = {
        "depthwise": weight_of(largest, "depthwise")[:hidden, :, middle, middle],
        "project": weight_of(largest, "project")[:, :hidden],
    }
    if op.expansion > 1:
        parts["expand"] = weight_of(largest, "expand")[:hidden]
    for name, part in parts.items():
        assert torch.equal(weight_of(block, name), part)
        # The reference: the block as it was, with convolutions of its own that hold these weights.
        with torch.no_grad():
            weight_of(alone, name).copy_(part)
    x = torch.randn(2, 8, 24, 32, dtype=torch.float64)
    assert torch.equal(block(x), alone(x))


def test_one_parameter_for_each_convolution_of_a_layer():
    blocks = make_blocks()
    layer = nn.ModuleDict({str(op): block for op, block in blocks.items()})
    share_weights(blocks.values())
    convolutions = {name for name, p in layer.named_parameters() if p.dim() == 4}
    assert convolutions == {
        *(f"e6k7.{part}.0.weight" for part in ("expand", "depthwise", "project")),
        *(f"e1k7.{part}.0.weight" for part in ("depthwise", "project")),
    }
    norms = [name for name, p in layer.named_parameters() if p.dim() == 1]
    assert len(norms) == 2 * (3 * 2 + 6 * 3)  # every operator's own


def test_a_step_of_one_operator_moves_the_others():
    blocks = make_blocks(dilation=1)
    share_weights(blocks.values())
    small, large = blocks[Op(3, 3)], blocks[Op(6, 7)]
    small(torch.randn(2, 8, 24, 32, dtype=torch.float64)).square().mean().backward()
    slope = weight_of(large, "depthwise").grad
    assert slope[:24, :, 2:5, 2:5].abs().min() > 0
    inside = slope.clone()
    inside[:24, :, 2:5, 2:5] = 0
    assert inside.abs().max() == 0
    assert weight_of(blocks[Op(1, 7)], "depthwise").grad is None


def test_the_same_names_as_without_and_a_path_is_a_network():
    shared = make_supernet()
    separate = make_supernet(shared=False)
    ours, theirs = shared.state_dict(), separate.state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    assert sum(p.numel() for p in shared.parameters()) < sum(
        p.numel() for p in separate.parameters()
    )
    for op in (Op(1, 5), Op(3, 3), Op(6, 7)):
        path = path_of(op)
        network = MRMS(replace(CONFIG, genotype=path.genotype)).double().train()
        network.load_state_dict(inherited_weights(shared, path))
        with torch.no_grad():
            for a, b in zip(shared(images(), path), network(images()), strict=True):
                assert torch.equal(a, b)


def test_a_saved_supernet_is_loaded_again_and_goes_on_sharing():
    weights = make_supernet().state_dict()
    loaded = make_supernet()
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    load_into(loaded, weights, FilePath("file"))
    expected = make_supernet().state_dict()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    layer = loaded.stages["s2"][1]
    with torch.no_grad():
        weight_of(layer["e6k7"], "depthwise")[0, 0, 3, 3] = 7.0
    assert weight_of(layer["e3k3"], "depthwise")[0, 0, 1, 1] == 7.0


@torch.no_grad()
def test_trained_weights_fit_all_operators_at_once():
    """Released weights, shared: the network itself, and the same with larger kernels."""
    network = make_network()
    heir = make_supernet().eval()
    inherit_network(heir, network)
    ops = [op for ops in MRMS_GENOTYPE.ops for op in ops]
    for kernel in (3, 5, 7):
        wider = [None if op is None else Op(op.expansion, kernel) for op in ops]
        path = Path((*(CANDIDATES.index(op) for op in wider), 1, 1))
        torch.testing.assert_close(heir(images(), path), network(images()))


@torch.no_grad()
def test_what_a_smaller_operator_takes_is_what_it_would_take_alone():
    """Of fewer hidden channels those that reach the output most, shared or not."""
    network = make_network()
    heirs = [make_supernet(shared=shared).eval() for shared in (True, False)]
    for heir in heirs:
        inherit_network(heir, network)
    ops = [op for ops in MRMS_GENOTYPE.ops for op in ops]
    halved = [None if op is None else Op(3 if op.expansion == 6 else 1, 3) for op in ops]
    path = Path((*(CANDIDATES.index(op) for op in halved), 1, 1))
    shared, alone = (heir(images(), path) for heir in heirs)
    torch.testing.assert_close(shared, alone)
    assert not torch.allclose(shared, network(images()))
