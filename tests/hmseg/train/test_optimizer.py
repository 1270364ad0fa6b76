"""The optimiser of a recipe; its state by name goes from one to another."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from hmseg.mrms import MRMS, MRMSConfig
from hmseg.train.config import OptimizerName, Stage, TrainConfig
from hmseg.train.optimizer import make_optimizer, optimizer_tensors, restore_optimizer


def recipe(optimizer: OptimizerName) -> TrainConfig:
    return TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 1),), optimizer=optimizer)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(1, 3, 4, 4)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize(("name", "keys"), [
    ("sgd", {"momentum_buffer"}), ("adamw", {"step", "exp_avg", "exp_avg_sq"}),
])  # fmt: skip
def test_a_restored_state_goes_on_with_the_same_bits(name: OptimizerName, keys: set[str]):
    model = network(0)
    optimizer = make_optimizer(recipe(name), model)
    assert not optimizer_tensors(model, optimizer)
    step(model, optimizer)
    saved = {key: value.clone() for key, value in optimizer_tensors(model, optimizer).items()}
    assert {key.rsplit("/", 1)[0] for key in saved} == dict(model.named_parameters()).keys()
    assert {key.rsplit("/", 1)[1] for key in saved} == keys

    other = network(1)
    other.load_state_dict(model.state_dict())
    heir = make_optimizer(recipe(name), other)
    restore_optimizer(other, heir, saved)
    step(model, optimizer)
    step(other, heir)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_settings_are_those_of_the_recipe():
    config = TrainConfig(
        "tiny-mrms", "camvid", (Stage((64, 64), 2, 1),), learning_rate=0.2, momentum=0.5,
        weight_decay=0.1, nesterov=True,
    )  # fmt: skip
    (group,) = make_optimizer(config, network(0)).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.2, 0.5, 0.1)
    assert group["nesterov"]


def test_the_backbone_has_its_share_of_the_rate():
    config = replace(recipe("sgd"), backbone_rate=0.25, momentum=0.0, weight_decay=0.0)
    model = MRMS(MRMSConfig(width=0.5, num_classes=4))
    optimizer = make_optimizer(config, model)
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * group["share"]
    optimizer.step()
    for name, tensor in model.named_parameters():
        moved = 0.125 if name.startswith(("stem", "stages")) else 0.5
        torch.testing.assert_close(tensor, before[name] - moved, msg=name)
    assert {name.split(".")[0] for name in before} == {
        "stem", "stages", "head", "aux_medium", "aux_low",
    }  # fmt: skip
