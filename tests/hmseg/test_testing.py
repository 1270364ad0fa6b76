import torch
from torch import nn

from hmseg.mrms import MRMSConfig
from hmseg.testing import random_network


def test_every_class_occurs_and_no_batch_norm_is_an_identity():
    model = random_network(MRMSConfig(width=0.5), seed=1)
    assert not model.training
    with torch.no_grad():
        labels = model(torch.randn(1, 3, 64, 64)).argmax(1)
    assert len(labels.unique()) >= 15
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor.std() > 0.1


def test_the_same_for_the_same_seed():
    one, two, other = (
        random_network(MRMSConfig(width=0.5), seed=s).state_dict() for s in (1, 1, 2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
