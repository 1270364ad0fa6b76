"""What a user's file is made to give: labels, class scores or masks, of which classes."""

import ast
from collections.abc import Mapping
from typing import NamedTuple

from deploy.graph.ends import GraphEnds
from deploy.graph.ends.tensors import quoted
from deploy.metadata import Metadata, OutputKind
from hmseg.data.classes import ClassSet, Colour, binary_classes, classes_for, generic_classes
from lut.errors import UserError
from lut.json_text import parse_json

_EVEN = 0.5  # the probability above which a class is there
_LONGEST = 1 << 16  # characters that are tried as Python's
_COLOURS = "[red, green, blue], 0 to 255 each"


class Decision(NamedTuple):
    """The output, the threshold of a score where there is one, and what the user should know."""

    output: OutputKind
    threshold: float | None
    note: str = ""


def decide(
    ends: GraphEnds, wanted: OutputKind | None, threshold: float | None, known: Metadata | None
) -> Decision:
    """How classes are decided by scores: by an arg max where they exclude each other; one class by
    the threshold (of the file's own output, at first where its probability is one half); classes of
    which the file says that they do not exclude each other by the threshold too, each for itself.

    `wanted` is the output asked for, `threshold` what the file's own output is to be compared with,
    `known` the metadata that we gave the file. Raises UserError for what contradicts the file.
    """
    earlier = known.threshold if known else None
    independent = ends.independent or (not ends.is_binary and earlier is not None)
    output: OutputKind = wanted or ("masks" if independent else "labels")
    if ends.is_binary and output == "masks":
        raise UserError("the ONNX graph has one class: --output labels, 0 and 1, is its mask")
    thresholded = ends.is_binary or output == "masks" or (independent and output == "logits")
    if not thresholded:
        if threshold is not None:
            raise UserError(
                f"--threshold goes with one class or with --output masks; the ONNX graph's "
                f"{ends.num_scores} classes are told apart by an arg max"
            )
        return Decision(output, None)
    if ends.end in ("labels", "softmax") or (ends.kind == "softmax" and not ends.is_binary):
        raise UserError(
            f"--output masks: the ONNX graph's {ends.num_scores} classes exclude each other; leave "
            "it out"
        )
    note = ""
    if independent and wanted is None:
        note = (
            f"{ends.num_scores} classes that do not exclude each other: the output is a mask of "
            "each (--output labels takes the arg max)"
        )
    if threshold is not None:
        return Decision(output, ends.score_threshold(threshold), note)
    if ends.threshold is not None:
        return Decision(output, ends.threshold, note)
    if earlier is None and ends.kind == "unsigned":
        raise UserError(
            f"no number of the ONNX output {quoted(ends.output)} is below 0: say with --threshold "
            "above which the class is there"
        )
    if ends.end == "scores":
        usual = _EVEN if ends.kind in ("sigmoid", "softmax") else 0.0
        return Decision(output, usual if earlier is None else earlier, note)
    return Decision(output, ends.score_threshold(_EVEN), note)


def read_classes(strings: Mapping[str, str], ends: GraphEnds) -> ClassSet:
    """The classes of a file by its ``metadata_props``: ``names`` and ``palette``, lists, each
    of which may be missing. Of one class the background need not be named. Raises UserError for
    malformed ones; how many there are is not checked."""
    usual = binary_classes() if ends.is_binary else classes_for(ends.num_classes)
    names = _read_list(strings, "names")
    if names is not None and ends.is_binary and len(names) == 1:
        names = [usual.names[0], *names]
    if names is None:
        texts = usual.names
    elif all(isinstance(name, str) for name in names):
        texts = tuple(map(str, names))
    else:
        raise _malformed("names", "texts")
    palette = _read_list(strings, "palette")
    if palette is None:
        same = len(texts) == len(usual)
        colours = usual.palette if same else generic_classes(len(texts)).palette
    else:
        colours = tuple(map(_colour, palette))
    own = names is not None or palette is not None
    return ClassSet("own" if own else usual.name, texts, colours)


def _read_list(strings: Mapping[str, str], field: str) -> list[object] | None:
    if field not in strings:
        return None
    found = _value(strings[field])
    if isinstance(found, dict):  # Ultralytics writes them by number
        numbered = {str(number): value for number, value in found.items()}
        found = [numbered.get(str(number)) for number in range(len(numbered))]
    if not isinstance(found, list) or not found:
        raise _malformed(field, "texts" if field == "names" else _COLOURS)
    return found


def _value(text: str) -> object:
    """What a text says as JSON, or as Python writes it; None where it is neither."""
    try:
        return parse_json(text)
    except UserError:
        pass
    try:
        found: object = ast.literal_eval(text) if len(text) <= _LONGEST else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return found


def _colour(value: object) -> Colour:
    if isinstance(value, list) and len(value) == 3:
        red, green, blue = value
        if all(type(channel) is int and 0 <= channel <= 255 for channel in value):
            return red, green, blue
    raise _malformed("palette", _COLOURS)


def _malformed(field: str, what: str) -> UserError:
    return UserError(f"the ONNX file's metadata {field!r} must be a JSON list of {what}")
