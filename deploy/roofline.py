"""The roofline plot of a profile."""

from pathlib import Path
from typing import TYPE_CHECKING

from deploy.measure.ceilings import Ceilings
from deploy.profile import Profile
from lut.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_roofline(profile: Profile, title: str, path: Path) -> None:
    """Write a PNG: each kernel's rate over its arithmetic intensity, under the probed ceilings.

    The area of a point is the kernel's share of the frame. Without ceilings there are only points.
    """
    from matplotlib.figure import Figure  # heavy, and not needed to profile

    computing = [kernel for kernel in profile.kernels if kernel.macs]
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    intensities = [2 * kernel.macs / kernel.bytes for kernel in computing]
    low, high = min([1.0, *intensities]) / 2, max([100.0, *intensities]) * 2
    if profile.ceilings:
        _draw_ceilings(axes, profile.ceilings, low)
    for template in sorted({kernel.template for kernel in computing}):
        points = [kernel for kernel in computing if kernel.template == template]
        axes.scatter(
            [2 * kernel.macs / kernel.bytes for kernel in points],
            [kernel.gflops for kernel in points],
            s=[20 + 1500 * kernel.median_ms / profile.frame_ms for kernel in points],
            alpha=0.6,
            label=template,
        )
    axes.set(xscale="log", yscale="log", xlim=(low, high), title=title)
    axes.set_xlabel("FLOP per byte of the arguments")
    axes.set_ylabel("GFLOP/s (area: share of the frame)")
    axes.legend(loc="lower right", markerscale=0.4)
    axes.grid(alpha=0.3, which="both")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_ceilings(axes: "Axes", ceilings: Ceilings, low: float) -> None:
    """`low` is where the axis of intensities begins."""
    axes.axhline(ceilings.fma_gflops, color="black", lw=1)
    axes.text(low * 1.1, ceilings.fma_gflops * 1.05, f"FMA {ceilings.fma_gflops:.0f} GFLOP/s")
    for size, rate in ceilings.reads:
        knee = ceilings.fma_gflops / rate
        axes.plot([low, knee], [low * rate, ceilings.fma_gflops], lw=1, ls="--", color="grey")
        label = f"{size >> 10} KiB a thread: {rate:.0f} GB/s"
        axes.text(low * 1.1, low * 1.1 * rate, label, fontsize=8, color="grey")
