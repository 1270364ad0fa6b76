"""Tables made of given figures, for tests."""

from lut.ops import InvertedResidual, Resize
from lut.provenance import Provenance
from lut.record import EntrySamples, Visit
from lut.retiming import Retiming
from lut.table import Identity, Table

RESIZE_RULE = "bilinear, half-pixel centres, to max(1, side * tenths // 10)"  # of hmseg.operators
KEY = InvertedResidual(16, 96, 16, 64, 128, residual=True)
OTHER = Resize(16, 32, 64, 16, 32)
IDENTITY = Identity('{"kind":"llvm"}', "cpu", 2, "256x512", 0.5, 19, RESIZE_RULE)
PROVENANCE = Provenance(
    "A CPU", "x86_64", 2, "one a core", False, {"apache-tvm": "0.27"}, 2, "rule", "6 rounds", "now"
)


def visit(
    network="a", entries=None, *, whole=100.0, reference=100.0, role="entries", calls=1, rounds=3
):
    """A visit with equal samples in every round."""
    entries = {KEY: 10.0} if entries is None else entries
    return Visit(
        network,
        role,
        "now",
        ((reference,) * 4,) * rounds,
        ((whole,) * 4,) * rounds,
        {key: EntrySamples(calls, ((us,) * 4,) * rounds) for key, us in entries.items()},
    )


def table(*visits, provenance=PROVENANCE, identity=IDENTITY, name="t.jsonl"):
    return Table(identity, ((provenance, visits),), name)


def again(*visits, provenance=PROVENANCE, host="h"):
    return Retiming(provenance, host, visits)
