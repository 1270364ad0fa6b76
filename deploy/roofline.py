"""The roofline plot of a profile."""

from collections.abc import Sequence
from math import atan2, degrees
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.measure.ceilings import Ceilings
from deploy.profile import KernelProfile, Profile
from lut.files import atomic_path
from lut.words import kernel_in_words, kind_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUMBERED = 10  # kernels, the slowest, that have a number in the picture and a line beside it
_FAR = range(9, 70, 3)  # points from a kernel at which its number may stand
_DPI = 110
_WIDTH, _HEIGHT = 13, 10  # of a number, in points
_WIDE = "\N{FIGURE SPACE}"  # as wide as a digit
_AROUND = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))


def draw_roofline(profile: Profile, title: str, path: Path) -> None:
    """Write a PNG: each kernel's rate over its arithmetic intensity, under the probed ceilings.

    The area of a point is the kernel's share of the frame; the slowest have a number, and beside
    the picture stands what they are. Without ceilings there are only points.
    """
    figure = roofline_figure(profile, title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)


def roofline_figure(profile: Profile, title: str) -> "Figure":
    """The picture that `draw_roofline` writes."""
    from matplotlib.figure import Figure  # heavy, and not needed to profile

    computing = [kernel for kernel in profile.kernels if kernel.macs]
    slowest = sorted(computing, key=lambda kernel: -kernel.median_ms)[:NUMBERED]
    figure = Figure(figsize=(13, 6), layout="constrained", dpi=_DPI)
    axes = figure.subplots()
    intensities = [_intensity(kernel) for kernel in computing]
    knees = _knees(profile.ceilings) if profile.ceilings else []
    low, high = min([1.0, *intensities, *knees]) / 2, max([100.0, *intensities, *knees]) * 2
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    for template in sorted({kernel.template for kernel in computing}):
        points = [kernel for kernel in computing if kernel.template == template]
        axes.scatter(
            [_intensity(kernel) for kernel in points],
            [kernel.gflops for kernel in points],
            s=[20 + 1500 * kernel.median_ms / profile.frame_ms for kernel in points],
            alpha=0.6,
            label=kind_in_words(template),
        )
    if profile.ceilings:
        _draw_ceilings(axes, profile.ceilings, low)
        top = max([profile.ceilings.highest_gflops, *(kernel.gflops for kernel in computing)])
        axes.set_ylim(top=3 * top)
    figure.suptitle(title)
    axes.set_xlabel("FLOP per byte of the arguments")
    axes.set_ylabel("GFLOP/s (area: share of the frame)")
    axes.grid(alpha=0.2, which="both")
    if computing:
        legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), markerscale=0.4,
                             frameon=False)  # fmt: skip
        for handle in legend.legend_handles:
            handle.set_sizes([50])  # type: ignore[union-attr]
        lines = [
            f"{number:>2}  {kernel.median_ms / profile.frame_ms:5.1%}  ".replace(" ", _WIDE)
            + (kernel_in_words(kernel.spec) or kernel.name)
            for number, kernel in enumerate(slowest, 1)
        ]
        axes.annotate("\n".join([f"{_WIDE * 4}of the frame", *lines]), (1.02, 0), fontsize=8,
                      xycoords="axes fraction", linespacing=1.5)  # fmt: skip
    figure.draw_without_rendering()  # now the axes have their place, and texts a size
    if profile.ceilings:
        _name_ceilings(axes, profile.ceilings, low)
    _number(axes, slowest, computing)
    return figure


def _intensity(kernel: KernelProfile) -> float:
    return 2 * kernel.macs / kernel.bytes


def _knees(ceilings: Ceilings) -> list[float]:
    """Where each line of reading meets the highest rate of multiply-adds."""
    return [ceilings.highest_gflops / rate for _, rate in ceilings.reads]


def _draw_ceilings(axes: "Axes", ceilings: Ceilings, low: float) -> None:
    """`low` is where the axis of intensities begins."""
    for name, gflops in (("FMA", ceilings.fma_gflops), *ceilings.dot_gflops.items()):
        axes.axhline(gflops, color="black", lw=1)
        axes.text(low * 1.1, gflops * 1.05, f"{name} {gflops:.0f} GFLOP/s")
    for knee, (_, rate) in zip(_knees(ceilings), ceilings.reads, strict=True):
        axes.plot([low, knee], [low * rate, knee * rate], lw=1, ls="--", color="grey")


def _name_ceilings(axes: "Axes", ceilings: Ceilings, low: float) -> None:
    """Say along each line of reading which it is; the axes have their place already."""
    lines = zip(_knees(ceilings), ceilings.reads, strict=True)
    for index, (knee, (size, rate)) in enumerate(lines):
        ends = axes.transData.transform([(low, low * rate), (knee, knee * rate)])
        right, up = ends[1] - ends[0]
        # In turn at the line's beginning and in its middle: two rates may be nearly the same.
        at = low * 1.15 if index % 2 == 0 else (low * knee) ** 0.5
        axes.text(
            at, at * rate, f"{size_text(size)} a thread: {rate:.0f} GB/s", fontsize=8, color="0.35",
            va="bottom", rotation=degrees(atan2(up, right)), rotation_mode="anchor", clip_on=True,
        )  # fmt: skip


def size_text(size: int) -> str:
    """Bytes in words: ``16 KiB``."""
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def _number(
    axes: "Axes", kernels: Sequence[KernelProfile], others: Sequence[KernelProfile]
) -> None:
    """Write 1, 2, 3 beside the kernels, each as near as no other number or kernel is in its way;
    the axes have their place already."""

    def place(kernel: KernelProfile) -> tuple[float, float]:
        x, y = axes.transData.transform((_intensity(kernel), kernel.gflops)) * 72 / _DPI
        return float(x), float(y)

    taken = [place(kernel) for kernel in others]
    for number, kernel in enumerate(kernels, 1):
        x, y = place(kernel)
        offsets = [(far * right, far * up) for far in _FAR for right, up in _AROUND]
        dx, dy = next(
            (
                (dx, dy)
                for dx, dy in offsets
                if all(abs(x + dx - a) > _WIDTH or abs(y + dy - b) > _HEIGHT for a, b in taken)
            ),
            offsets[0],
        )
        taken.append((x + dx, y + dy))
        axes.annotate(
            str(number), (_intensity(kernel), kernel.gflops), (dx, dy), ha="center", va="center",
            textcoords="offset points", fontsize=8, fontweight="bold",
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": "0.3", "shrinkA": 5, "shrinkB": 0},
        )  # fmt: skip
