"""The tuned schedules that a latency table depends on: those of kernels that its space launches."""

import ast
import hashlib
import json
from typing import Any

from deploy.cpu.choice import Fields
from deploy.cpu.kernels import MODULES
from deploy.gpu.keys import kernels_of
from deploy.measure.keys import key_of
from deploy.targets import Target
from deploy.tuning.records import tuned_schedules
from hmseg.operators import Space
from lut.errors import WorkError

_SPECS = {kind.__name__: kind for kind in MODULES}


def schedules_of(space: Space, target: Target, threads: int) -> dict[str, Fields]:
    """`tuned_schedules` without those that no network of the space can use, such as those of
    another size: tuning them leaves a table of this space what it is."""
    schedules = tuned_schedules(target, threads)
    keys = space.all_keys()
    if target.gpu:
        launched = {repr(spec) for key in keys for spec in kernels_of(key)}
        return {text: values for text, values in schedules.items() if text in launched}
    return {text: values for text, values in schedules.items() if _entry_of(text) in keys}


def digest(schedules: dict[str, Fields]) -> str:
    """What a table's provenance says of them: "rule" where there are none."""
    if not schedules:
        return "rule"
    return hashlib.sha256(json.dumps(schedules, sort_keys=True).encode()).hexdigest()[:16]


def read_spec(text: str) -> Any:  # noqa: ANN401 - any Spec
    """A CPU kernel's spec from its own text, as tuning records hold it.

    Raises WorkError for any other text.
    """
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, KeyError) as error:
        raise WorkError(f"not the text of a kernel's spec: {text[:80]}") from error


def _value(node: ast.expr) -> Any:  # noqa: ANN401
    if isinstance(node, ast.Call):  # a spec may hold others
        kind = _SPECS[ast.unparse(node.func)]
        return kind(**{str(word.arg): _value(word.value) for word in node.keywords})
    return ast.literal_eval(node)


def _entry_of(text: str) -> Any:  # noqa: ANN401 - OpKey, or None for what the space has not
    try:
        return key_of(read_spec(text))
    except WorkError:  # of a user's network, or of a network's part with another end
        return None
