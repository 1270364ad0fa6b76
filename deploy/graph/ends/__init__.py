"""The two ends of a graph: found in a user's file (`inspect`), and rebuilt (`attach`)."""

from deploy.graph.ends.attach import (
    IMAGE,
    LABELS,
    LOGITS,
    MASKS,
    TENSOR,
    attach_ends,
    with_logits_output,
)
from deploy.graph.ends.inspect import End, GraphEnds, InputEnd, inspect_ends
from deploy.graph.ends.own import feed, in_own_layout, tail_of
from deploy.graph.ends.walk import Step

__all__ = [
    "IMAGE",
    "LABELS",
    "LOGITS",
    "MASKS",
    "TENSOR",
    "End",
    "GraphEnds",
    "InputEnd",
    "Step",
    "attach_ends",
    "feed",
    "in_own_layout",
    "inspect_ends",
    "tail_of",
    "with_logits_output",
]
