"""Each operator whose form changed between opset 7 and 25, written as opset 20 has it.

A rule writes the nodes that do what a node of the file's opset does; operators without one mean the
same in all of them. `RULES` is the whole table.
"""

from deploy.reading.opsets import (
    activations,
    normalisations,
    qlinear,
    quantised,
    resizing,
    shapes,
    windows,
)
from deploy.reading.opsets.rule import Rule

RULES: dict[tuple[str, str], Rule] = {
    **shapes.RULES,
    **resizing.RULES,
    **activations.RULES,
    **normalisations.RULES,
    **windows.RULES,
    **quantised.RULES,
    **qlinear.RULES,
}
