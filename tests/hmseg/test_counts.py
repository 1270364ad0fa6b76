"""Every count that the paper prints, and the exact integers behind them."""

import random

import pytest

from hmseg import create_model
from hmseg.count import count_macs, count_parameters
from hmseg.genotype import parse_genotype, random_genotype
from hmseg.mrms import MRMS, MRMSConfig

# Reaches all six numbers printed for HMSeg; it shows that the space holds networks of that size.
WITNESS = parse_genotype(
    "s1 e1k3 | s2 e6k3 skip e3k5 skip | s3 e3k3 e6k3 e1k5 e3k7 | s4a e1k7 e6k3 e6k3 e6k5 | "
    "s4b e6k5 e6k3 e6k3 e3k5 | s5a e6k7 e6k5 e6k5 e6k7 | s5b e3k5 | 0.5 0.6"
)


@pytest.mark.parametrize(
    ("name", "gmacs", "mparams"),
    [
        ("mrms-a", 6.3505, 1.8342),
        ("mrms-b", 6.3747, 1.8367),
        ("mrms-c", 7.3220, 2.0470),
        ("mrms", 7.3273, 2.0558),
        ("tiny-mrms", 2.8006, 0.6218),
    ],
)
def test_table_4(name, gmacs, mparams):
    model = create_model(name)
    assert round(count_macs(model, 768, 1536) / 1e9, 4) == gmacs
    assert round(count_parameters(model) / 1e6, 4) == mparams


@pytest.mark.parametrize(("name", "parameters"), [("mrms", 2_055_795), ("tiny-mrms", 621_827)])
def test_exact_parameters(name, parameters):
    assert count_parameters(create_model(name)) == parameters


@pytest.mark.parametrize(
    ("size", "classes", "mrms", "tiny"),
    [
        ((256, 512), 19, 0.814, 0.311),
        ((512, 512), 20, 1.629, 0.623),
        ((1024, 2048), 19, 13.03, 4.98),
        ((720, 960), 11, 4.26, 1.62),
    ],
)
def test_other_inputs(size, classes, mrms, tiny):
    for name, gmacs in (("mrms", mrms), ("tiny-mrms", tiny)):
        counted = count_macs(create_model(name, num_classes=classes), *size) / 1e9
        digits = len(str(gmacs).split(".")[1])
        assert round(counted, digits) == gmacs


@pytest.mark.parametrize(
    ("width", "gmacs", "mparams", "lip_gmacs"), [(1.0, 8.1, 2.3, 1.8), (0.5, 3.0, 0.7, 0.7)]
)
def test_witness_genotype_reaches_the_six_printed_numbers(width, gmacs, mparams, lip_gmacs):
    model = MRMS(MRMSConfig(WITNESS, width))
    assert round(count_macs(model, 768, 1536) / 1e9, 1) == gmacs
    assert round(count_parameters(model) / 1e6, 1) == mparams
    lip = MRMS(MRMSConfig(WITNESS, width, num_classes=20))
    assert round(count_macs(lip, 512, 512) / 1e9, 1) == lip_gmacs


def test_extremes_of_the_space():
    smallest = parse_genotype(
        "s1 e1k3 | s2 e1k3 skip skip skip | s3 e1k3 skip skip skip | s4a e1k3 skip skip skip | "
        "s4b e1k3 skip skip skip | s5a e1k3 skip skip skip | s5b e1k3 | 0.4 0.4"
    )
    largest = parse_genotype(
        "s1 e6k7 | s2 e6k7 e6k7 e6k7 e6k7 | s3 e6k7 e6k7 e6k7 e6k7 | s4a e6k7 e6k7 e6k7 e6k7 | "
        "s4b e6k7 e6k7 e6k7 e6k7 | s5a e6k7 e6k7 e6k7 e6k7 | s5b e6k7 | 0.6 0.6"
    )
    for genotype, gmacs, mparams in ((smallest, 1.54, 0.33), (largest, 21.5, 2.91)):
        model = MRMS(MRMSConfig(genotype))
        macs = count_macs(model, 768, 1536) / 1e9
        assert round(macs, 2 if gmacs < 2 else 1) == gmacs
        assert round(count_parameters(model) / 1e6, 2) == mparams


def test_macs_grow_with_pixels():
    model = MRMS(MRMSConfig(random_genotype(random.Random(1)), width=0.5))
    assert 3.9 < count_macs(model, 512, 1024) / count_macs(model, 256, 512) < 4.1
