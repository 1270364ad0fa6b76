"""The searched choices as data (paper section 3.2, Figure 4), and their JSON.

A genotype names one network of the search space: for each of 22 operator layers an inverted
residual (expansion, kernel) or, where allowed, identity, and two downsampling ratios. No torch.
"""

import json
import random
import re
from dataclasses import dataclass
from typing import Any

from lut.errors import UserError
from lut.json_text import parse_json

EXPANSIONS = (1, 3, 6)
KERNELS = (3, 5, 7)
RATIO_TENTHS = (4, 5, 6)  # 0.4, 0.5, 0.6, kept as integers so that sizes are exact
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Op:
    """One of the nine operators: an inverted residual with expansion e and depthwise kernel k."""

    expansion: int
    kernel: int

    def __str__(self) -> str:
        return f"e{self.expansion}k{self.kernel}"


@dataclass(frozen=True)
class Group:
    """Operator layers of one width. The first changes width, stride or dilation: never skipped."""

    name: str
    cin: int
    cout: int
    stride: int
    dilation: int
    layers: int


# The medium ratio acts on C3, before s4a; the low ratio on C4, before s5a.
GROUPS = (
    Group("s1", 32, 16, 1, 1, 1),
    Group("s2", 16, 24, 2, 1, 4),
    Group("s3", 24, 32, 2, 1, 4),
    Group("s4a", 32, 64, 1, 2, 4),
    Group("s4b", 64, 96, 1, 2, 4),
    Group("s5a", 96, 160, 1, 4, 4),
    Group("s5b", 160, 320, 1, 4, 1),
)


@dataclass(frozen=True)
class Genotype:
    """Operators of the seven groups (None = identity) and the two ratios in tenths.

    Raises UserError for a network that is not in the search space.
    """

    ops: tuple[tuple[Op | None, ...], ...]
    medium_tenths: int
    low_tenths: int

    def __post_init__(self) -> None:
        if len(self.ops) != len(GROUPS):
            raise UserError(f"genotype: {len(self.ops)} groups, the space has {len(GROUPS)}")
        for group, ops in zip(GROUPS, self.ops, strict=True):
            if len(ops) != group.layers:
                raise UserError(
                    f"genotype: {group.name} has {len(ops)} layers, the space has {group.layers}"
                )
            if ops[0] is None:
                raise UserError(
                    f"genotype: the first layer of {group.name} changes the shape and cannot be "
                    "skipped; name an operator such as e6k3"
                )
            for op in ops:
                if op and (op.expansion not in EXPANSIONS or op.kernel not in KERNELS):
                    raise UserError(
                        f"genotype: unknown operator {op} in {group.name}; expansions are "
                        f"{EXPANSIONS}, kernels are {KERNELS}"
                    )
        for tenths in (self.medium_tenths, self.low_tenths):
            if tenths not in RATIO_TENTHS:
                raise UserError(
                    f"genotype: ratio {tenths / 10:g} is not in the space; choose "
                    + ", ".join(f"{t / 10:g}" for t in RATIO_TENTHS)
                )

    def __str__(self) -> str:
        groups = (
            group.name + " " + " ".join(str(op) if op else "skip" for op in ops)
            for group, ops in zip(GROUPS, self.ops, strict=True)
        )
        return f"{' | '.join(groups)} | {self.medium_tenths / 10:g} {self.low_tenths / 10:g}"

    def to_json(self) -> str:
        """JSON that `from_json` reads back to an equal genotype."""
        ops = {
            group.name: [str(op) if op else "skip" for op in layers]
            for group, layers in zip(GROUPS, self.ops, strict=True)
        }
        ratios = {"medium": self.medium_tenths / 10, "low": self.low_tenths / 10}
        return json.dumps({"format_version": FORMAT_VERSION, "ops": ops, "ratios": ratios})

    @staticmethod
    def from_json(text: str) -> "Genotype":
        """Read `to_json`'s form; raises UserError naming the field that is wrong."""
        try:
            data = parse_json(text)
        except UserError as error:
            raise UserError(f"genotype: {error}") from error
        if not isinstance(data, dict) or data.get("format_version") != FORMAT_VERSION:
            raise UserError(f"genotype: expected a JSON object of format_version {FORMAT_VERSION}")
        ops, ratios = data.get("ops"), data.get("ratios")
        if not isinstance(ops, dict) or list(ops) != [group.name for group in GROUPS]:
            names = ", ".join(group.name for group in GROUPS)
            raise UserError(f"genotype: 'ops' must hold the groups {names} in this order")
        if not isinstance(ratios, dict) or set(ratios) != {"medium", "low"}:
            raise UserError("genotype: 'ratios' must hold 'medium' and 'low'")
        return Genotype(
            ops=tuple(_layers_from_json(name, layers) for name, layers in ops.items()),
            medium_tenths=_tenths_from_json(ratios["medium"]),
            low_tenths=_tenths_from_json(ratios["low"]),
        )


def parse_genotype(text: str) -> Genotype:
    """Read the one-line form that `str(genotype)` prints: ``s1 e1k3 | ... | 0.5 0.6``.

    Raises UserError for anything else.
    """
    *groups, ratios = [part.split() for part in text.split("|")]
    if [words[0] if words else "" for words in groups] != [group.name for group in GROUPS]:
        raise UserError(f"genotype: expected '{MRMS_GENOTYPE}', not {text!r}")
    if len(ratios) != 2 or not all(re.fullmatch(r"0\.\d", word) for word in ratios):
        raise UserError(f"genotype: expected two ratios such as 0.5 0.6, not {' '.join(ratios)!r}")
    return Genotype(
        ops=tuple(_layers_from_json(words[0], words[1:]) for words in groups),
        medium_tenths=int(ratios[0][2]),
        low_tenths=int(ratios[1][2]),
    )


def random_genotype(rng: random.Random) -> Genotype:
    """A network drawn uniformly over the choices of every layer and both ratios."""
    choices: list[Op | None] = [Op(e, k) for e in EXPANSIONS for k in KERNELS]
    ops = tuple(
        (rng.choice(choices), *(rng.choice([*choices, None]) for _ in range(group.layers - 1)))
        for group in GROUPS
    )
    return Genotype(ops, rng.choice(RATIO_TENTHS), rng.choice(RATIO_TENTHS))


def _layers_from_json(group: str, layers: Any) -> tuple[Op | None, ...]:  # noqa: ANN401
    if not isinstance(layers, list):
        raise UserError(f"genotype: {group} must be a list of operators")
    return tuple(_op_from_json(group, layer) for layer in layers)


def _op_from_json(group: str, layer: Any) -> Op | None:  # noqa: ANN401 - any JSON value
    if layer == "skip":
        return None
    match = re.fullmatch(r"e([0-9])k([0-9])", layer) if isinstance(layer, str) else None
    if not match:
        raise UserError(
            f"genotype: unknown operator {layer!r} in {group}; write e6k3 (expansion "
            f"{EXPANSIONS}, kernel {KERNELS}) or skip"
        )
    return Op(int(match[1]), int(match[2]))


def _tenths_from_json(ratio: Any) -> int:  # noqa: ANN401 - any JSON value
    is_number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
    tenths = round(ratio * 10) if is_number and abs(ratio) < 10 else -1
    if tenths < 0 or tenths / 10 != ratio:
        raise UserError(f"genotype: ratio {ratio!r} is not in the space; choose 0.4, 0.5 or 0.6")
    return tenths


def _hand_made(depths: tuple[int, ...]) -> Genotype:
    def layers(group: Group, depth: int) -> tuple[Op | None, ...]:
        op = Op(1 if group.name == "s1" else 6, 3)
        return tuple(op if i < depth else None for i in range(group.layers))

    ops = tuple(layers(group, depth) for group, depth in zip(GROUPS, depths, strict=True))
    return Genotype(ops, medium_tenths=5, low_tenths=5)


MRMS_GENOTYPE = _hand_made((1, 2, 3, 4, 3, 3, 1))
