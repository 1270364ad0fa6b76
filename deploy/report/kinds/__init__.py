"""The kinds of results that a page is made of, in the order in which it has them."""

from typing import Any

from deploy.report.kind import Kind
from deploy.report.kinds import (
    bench,
    check,
    latency_table,
    paper,
    peers,
    profile,
    search,
    training,
)

KINDS: tuple[Kind[Any], ...] = (
    bench.KIND, peers.KIND, paper.KIND, profile.KIND, latency_table.KIND, check.KIND,
    search.KIND, training.KIND,
)  # fmt: skip
