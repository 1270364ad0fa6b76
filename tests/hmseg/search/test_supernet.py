"""A path of the supernet is the network of its genotype; its gates give Eq. 2's gradients."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hmseg.blocks import downsample
from hmseg.genotype import MRMS_GENOTYPE
from hmseg.mrms import MRMS, MRMSConfig
from hmseg.search.architecture import COUNT, ROWS, Architecture, Path, gumbel_noise
from hmseg.search.space import CANDIDATES, DIMENSIONS, LAYERS, search_space
from hmseg.search.supernet import Supernet, inherited_weights, largest_network

SPACE = search_space(DIMENSIONS, MRMS_GENOTYPE)
CONFIG = MRMSConfig(width=0.5, num_classes=4)


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(CONFIG, SPACE).double().train()


def random_path(seed: int) -> Path:
    rng = random.Random(seed)
    rows = Architecture(SPACE).allowed.tolist()
    return Path(tuple(rng.choice([i for i, there in enumerate(row) if there]) for row in rows))


def images(count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 64, 96, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_a_path_is_the_network_of_its_genotype(supernet: Supernet, seed: int):
    path = random_path(seed)
    network = MRMS(replace(CONFIG, genotype=path.genotype)).double()
    network.load_state_dict(inherited_weights(supernet, path))  # by name, all and no other
    batch = images()
    for training in (True, False):
        supernet.train(training)
        network.train(training)
        with torch.no_grad():
            theirs, mine = supernet(batch, path), network(batch)
        for a, b in zip(theirs, mine, strict=True) if training else [(theirs, mine)]:
            assert torch.equal(a, b)
        network.load_state_dict(inherited_weights(supernet, path))
    supernet.train()


def test_the_space_decides_what_is_there():
    fixed = Supernet(CONFIG, search_space(("resolution",), MRMS_GENOTYPE))
    whole = MRMS(CONFIG)
    assert sum(p.numel() for p in fixed.parameters()) == sum(p.numel() for p in whole.parameters())


def objective(outputs: tuple[Tensor, ...]) -> Tensor:
    """A loss that is not symmetric in anything."""
    return sum((torch.sin(output) * torch.linspace(0, 1, output[0].numel(), dtype=output.dtype)
                .view(output.shape[1:])).sum() for output in outputs)  # fmt: skip


def all_paths(net: Supernet, batch: Tensor, gates: Tensor, path: Path, *, inside: bool) -> Tensor:
    """Eq. 2 written out: every candidate of every layer is computed and weighted by its gate.

    `gates` (24, 10). With `inside` a block's input is weighted too, else it is added as it is.
    Resized maps have different sizes: of these only the chosen one is computed.
    """
    x, features = net.stem(batch), {}
    for row, (group, layer) in enumerate(LAYERS):
        if (group.name, layer) in (("s4a", 0), ("s5a", 0)):
            at = -2 if group.name == "s4a" else -1
            x = downsample(x, path.ratios[at]) * gates[at, path.choices[at]]
        total = 0
        for index, op in enumerate(CANDIDATES):
            if op not in SPACE.layers[row]:
                continue
            if op is None:
                total = total + (gates[row, index] * x if inside else 0)
                continue
            block = net.stages[group.name][layer][str(op)]
            add = x if block.residual and inside else 0
            total = total + gates[row, index] * (add + block.branch(x))
        x = total + x if layer and not inside else total
        features[group.name] = x
    return objective(net.outputs(features["s3"], features["s4b"], features["s5b"], (64, 96)))


@pytest.mark.parametrize("temperature", [5.0, 0.5])
def test_straight_through_gradients_against_all_paths(supernet: Supernet, temperature: float):
    architecture = Architecture(SPACE)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        architecture.logits.copy_(torch.randn(ROWS, COUNT, generator=generator))
    noise, batch = gumbel_noise(3, 0, 0), images()
    path = architecture.sample(noise, temperature)
    loss = objective(supernet(batch, path))
    (slope,) = torch.autograd.grad(loss, architecture.logits)

    hard = torch.zeros(ROWS, COUNT, dtype=torch.float64)
    hard[torch.arange(ROWS), torch.tensor(path.choices)] = 1
    noisy = architecture.logits.detach() + torch.from_numpy(noise)
    noisy = noisy.masked_fill(~architecture.allowed, -torch.inf).requires_grad_()
    soft = torch.softmax(noisy / temperature, 1)

    def reference(*, inside: bool, chosen_only: bool) -> tuple[Tensor, Tensor]:
        gates = hard.clone().requires_grad_()
        value = all_paths(supernet, batch, gates, path, inside=inside)
        (to_gates,) = torch.autograd.grad(value, gates)
        if chosen_only:
            to_gates = to_gates * hard
        (to_logits,) = torch.autograd.grad(soft, noisy, to_gates, retain_graph=True)
        return value, to_logits

    value, expected = reference(inside=False, chosen_only=True)
    torch.testing.assert_close(loss, value)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(slope, expected, atol=1e-9, rtol=1e-7)
    # With all paths computed, a block's input has weight 1 in value and 0 in gradient, inside the
    # gates or outside: the gates of a layer sum to 1. That is why the supernet leaves it outside.
    _, outside = reference(inside=False, chosen_only=False)
    _, inside = reference(inside=True, chosen_only=False)
    torch.testing.assert_close(outside[:-2], inside[:-2], atol=1e-8, rtol=1e-6)
    assert (outside - expected).abs().max() > 1e-3  # what one path leaves out is not nothing


def test_the_largest_network_is_the_widest_path():
    network = largest_network(CONFIG, SPACE)
    assert next(network.parameters()).device.type == "meta"
    assert str(network.config.genotype).count("e6k7") == 22
    assert str(network.config.genotype).endswith("0.6 0.6")
