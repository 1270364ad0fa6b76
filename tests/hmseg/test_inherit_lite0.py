"""What networks take of Lite0: its own function where nothing is cut, else what matters most."""

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hmseg.genotype import MRMS_GENOTYPE, Group, parse_genotype, random_genotype
from hmseg.inherit import conv_of, norm_of
from hmseg.inherit_lite0 import fit_taps, inherit_lite0
from hmseg.lite0 import Lite0, from_tensors
from hmseg.mrms import MRMS, MRMSConfig
from hmseg.search.architecture import Path
from hmseg.search.space import CANDIDATES, DIMENSIONS, search_space
from hmseg.search.supernet import Supernet
from lut.errors import UserError
from tests.hmseg.lite0_reference import ours, picture, random_tensors, reference

CONFIG = MRMSConfig(width=0.5, num_classes=4)
LITE0_GROUPS = (  # the space's groups at Lite0's own widths, strides and dilations
    Group("s1", 32, 16, 1, 1, 1), Group("s2", 16, 24, 2, 1, 4), Group("s3", 24, 40, 2, 1, 4),
    Group("s4a", 40, 80, 2, 1, 4), Group("s4b", 80, 112, 1, 1, 4), Group("s5a", 112, 192, 2, 1, 4),
    Group("s5b", 192, 320, 1, 1, 1),
)  # fmt: skip
LARGER = (  # than Lite0: kernels and layers
    "s1 e1k5 | s2 e6k3 e6k7 e3k3 skip | s3 e6k5 e6k7 e6k5 e1k3 | s4a e6k3 e6k5 e6k3 e6k3"
    " | s4b e6k5 e6k5 e6k7 skip | s5a e6k5 e6k7 e6k5 e6k5 | s5b e6k5 | 0.5 0.5"
)
ITSELF = (
    "s1 e1k3 | s2 e6k3 skip e6k3 skip | s3 e6k5 e6k5 skip skip | s4a e6k3 e6k3 e6k3 skip"
    " | s4b e6k5 e6k5 skip e6k5 | s5a e6k5 e6k5 e6k5 e6k5 | s5b e6k3 | 0.5 0.5"
)

IN_ORDER = (
    "s1 e1k3 | s2 e6k3 e6k3 skip skip | s3 e6k5 e6k5 skip skip | s4a e6k3 e6k3 e6k3 skip"
    " | s4b e6k5 e6k5 e6k5 skip | s5a e6k5 e6k5 e6k5 e6k5 | s5b e6k3 | 0.5 0.5"
)


@pytest.mark.parametrize("line", [ITSELF, LARGER])
@torch.no_grad()
def test_with_equal_widths_it_is_lite0_itself(line: str, monkeypatch: pytest.MonkeyPatch):
    """Larger kernels and further layers change nothing until they are trained."""
    for module in ("hmseg.genotype", "hmseg.mrms"):
        monkeypatch.setattr(f"{module}.GROUPS", LITE0_GROUPS)
    monkeypatch.setattr(MRMSConfig, "scaled", lambda _, channels: channels)
    torch.manual_seed(0)
    monkeypatch.setattr("hmseg.mrms.LCFHead", lambda *_, **__: torch.nn.Identity())
    heir = MRMS(MRMSConfig(parse_genotype(line), num_classes=4)).eval()
    tensors, pixels = random_tensors(), picture(96, 128)
    inherit_lite0(heir, from_tensors(tensors))
    x = heir.stem(ours(pixels))
    for group in LITE0_GROUPS:
        x = heir.stages[group.name](x)
    wanted = reference(tensors, pixels)
    torch.testing.assert_close(x.double(), wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max())


@pytest.mark.parametrize("line", [IN_ORDER, LARGER])
@torch.no_grad()
def test_a_path_of_a_supernet_with_equal_widths_is_lite0_itself(
    line: str, monkeypatch: pytest.MonkeyPatch
):
    """Its n-th layer has Lite0's n-th block. Lite0's strides stand in the place of the resizes."""
    for module in ("hmseg.genotype", "hmseg.mrms"):
        monkeypatch.setattr(f"{module}.GROUPS", LITE0_GROUPS)
    layers = tuple((group, layer) for group in LITE0_GROUPS for layer in range(group.layers))
    for module in ("hmseg.search.space", "hmseg.search.supernet"):
        monkeypatch.setattr(f"{module}.LAYERS", layers)
    monkeypatch.setattr("hmseg.search.supernet.downsample", lambda x, _tenths: x)
    monkeypatch.setattr(MRMSConfig, "scaled", lambda _, channels: channels)
    torch.manual_seed(0)
    genotype = parse_genotype(line)
    heir = Supernet(MRMSConfig(genotype, num_classes=4), search_space(DIMENSIONS, genotype)).eval()
    tensors, pixels = random_tensors(), picture(96, 128)
    inherit_lite0(heir, from_tensors(tensors))
    choices = [CANDIDATES.index(op) for ops in genotype.ops for op in ops]
    *_, c5 = heir.maps(ours(pixels), Path((*choices, 1, 1)))
    wanted = reference(tensors, pixels)
    torch.testing.assert_close(c5.double(), wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max())


@torch.no_grad()
def test_channels_that_nothing_reads_are_left_out_everywhere():
    """Half the channels between the blocks of each stage are silent in all that reads them: the
    network of half the width is then the same function."""
    tensors = random_tensors()
    generator = torch.Generator().manual_seed(6)
    cut: dict[int, Tensor] = {}
    keep = {16: 8, 24: 16, 40: 16, 80: 32, 112: 48, 192: 80}
    ends = {0: 16, 2: 24, 4: 40, 7: 80, 10: 112, 14: 192}
    first = 0
    for end, width in ends.items():
        silent = torch.randperm(width, generator=generator)[keep[width] :]
        for index in range(first + 1, end + 2):
            tensors[f"_blocks.{index}._expand_conv.weight"][:, silent] = 0
        cut[width], first = silent, end + 1
    silent = torch.randperm(32, generator=generator)[16:]
    tensors["_blocks.0._project_conv.weight"][:, silent] = 0
    source = from_tensors(tensors)
    heir = MRMS(CONFIG).eval()
    inherit_lite0(heir, source)
    x = ours(picture(64, 96))
    mine = heir.stages["s1"](heir.stem(x))
    wanted = source.groups[0](source.stem(x))
    kept = sorted(set(range(16)) - set(cut[16].tolist()))
    torch.testing.assert_close(mine, wanted[:, kept])
    # Every input that an expansion of the heir has is one that Lite0 reads.
    for group in heir.stages.children():
        for block in group.children():
            if hasattr(block.expand, "weight") or len(list(block.expand.children())):
                assert conv_of(block.expand).weight.flatten(1).norm(dim=0).min() > 0


@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_any_genotype_and_width_takes_it(seed: int):
    genotype = random_genotype(random.Random(seed))
    torch.manual_seed(0)
    heir = MRMS(replace(CONFIG, genotype=genotype, width=(0.5, 1.0)[seed % 2])).eval()
    before = {name: tensor.clone() for name, tensor in heir.state_dict().items()}
    inherit_lite0(heir, from_tensors(random_tensors()))
    for name, tensor in heir.state_dict().items():
        assert tensor.isfinite().all(), name
        assert not name.startswith(("head.", "aux")) or torch.equal(tensor, before[name]), name
    assert not torch.equal(heir.stem[0].weight, before["stem.0.weight"])
    taken = [
        not torch.equal(tensor, before[name])
        for name, tensor in heir.state_dict().items()
        if name.endswith("depthwise.0.weight")
    ]
    # e1 has no hidden channels: it finds an operator like itself in s1, and elsewhere takes what is
    # linear where the shape changes.
    ops = [op for ops in genotype.ops for op in ops[1:] if op]
    assert sum(taken) <= sum(op.expansion > 1 for op in ops) + len(genotype.ops)
    assert sum(taken) >= 3


@torch.no_grad()
def test_a_supernet_takes_it_for_every_operator():
    torch.manual_seed(0)
    heir = Supernet(CONFIG, search_space(DIMENSIONS, MRMS_GENOTYPE))
    inherit_lite0(heir, from_tensors(random_tensors()))
    network = MRMS(CONFIG)
    inherit_lite0(network, from_tensors(random_tensors()))
    for mine, theirs in zip(heir.layers(), network.layers(), strict=True):
        if not theirs or not norm_of(theirs[0].project).weight.any():
            continue  # a further one: it keeps its own weights
        wanted = [block for block in mine if _shape(block) == _shape(theirs[0])]
        assert len(wanted) == 1
        for block in wanted:
            for name, tensor in theirs[0].state_dict().items():
                assert torch.equal(block.state_dict()[name], tensor), name


def _shape(block: torch.nn.Module) -> tuple[int, ...]:
    conv = conv_of(block.depthwise)
    return conv.out_channels, *conv.kernel_size


@pytest.mark.parametrize(("taps", "size", "dilation"), [(5, 3, 2), (3, 3, 2), (5, 3, 4), (5, 5, 2)])
def test_taps_of_another_dilation_see_constant_and_linear_maps_alike(
    taps: int, size: int, dilation: int
):
    weight = torch.randn(3, 1, taps, taps, generator=torch.Generator().manual_seed(1)).double()
    fitted = fit_taps(weight, size, dilation)
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    for plane in (torch.ones(40, 40), rows, columns, 2 * rows - columns + 3):
        x = plane.double().expand(1, 3, 40, 40)
        mine = F.conv2d(x, fitted, padding=dilation * (size // 2), dilation=dilation, groups=3)
        wanted = F.conv2d(x, weight, padding=taps // 2, groups=3)
        inside = slice(None), slice(None), slice(10, -10), slice(10, -10)
        torch.testing.assert_close(mine[inside], wanted[inside])


def test_taps_without_a_dilation():
    weight = torch.arange(9.0).view(1, 1, 3, 3)
    assert torch.equal(fit_taps(weight, 7, 1), F.pad(weight, (2, 2, 2, 2)))
    assert fit_taps(weight, 3, 1) is not weight
    large = torch.ones(1, 1, 5, 5)
    assert fit_taps(large, 3, 1).flatten().tolist() == [4, 2, 4, 2, 1, 2, 4, 2, 4]


def test_a_wider_network_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hmseg.mrms.STEM_WIDTH", 96)
    with pytest.raises(UserError, match="48 channels where Lite0 has 32; begin without it"):
        inherit_lite0(MRMS(CONFIG), Lite0())
