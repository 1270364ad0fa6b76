"""`profile --json`: where a frame's time goes, kernel by kernel, and the machine's ceilings."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.measure.ceilings import Ceilings
from deploy.profile import KernelProfile, Profile
from deploy.report.charts.rows import Mark, Row, rows_chart
from deploy.report.charts.xy import Guide, Point, Series, xy_chart
from deploy.report.content import Content, Fields
from deploy.report.kind import Kind
from deploy.report.markup import Markup, join, tag
from deploy.report.source import Source, article, machine_of, threads_text
from deploy.report.table import Cell, number, share, table
from deploy.roofline import size_text
from lut.words import kernel_in_words, kind_in_words

MOST_BARS = 30  # kernels in the picture; the table has all


@dataclass(frozen=True)
class ProfileResult:
    """One profile."""

    source: Source
    profile: Profile


def _recognises(content: Content) -> bool:
    return content.first.keys() >= {"kernels", "frame_ms", "ceilings", "machine"}


def _read(content: Content) -> ProfileResult:
    (fields, *_) = content.fields()
    device, emulated = machine_of(fields.inside("machine"))
    what = f"{fields.text('model')} {fields.text('resolution')}"
    what += threads_text(fields.values.get("threads"))
    return read_profile(fields, Source(content.name, what, device, emulated=emulated))


def read_profile(fields: Fields, source: Source) -> ProfileResult:
    """`Profile.to_json`'s object; raises UserError naming what is wrong in it."""
    kernels = tuple(
        KernelProfile(
            k.text("name"), k.text("template"), k.text("spec"), max(1, k.whole("calls")),
            k.positive("median_ms"), k.whole("macs"), max(1, k.whole("bytes")),
        )
        for k in fields.each("kernels")
    )  # fmt: skip
    ceilings = _ceilings(fields.inside("ceilings")) if "ceilings" in fields else None
    machine = fields.inside("machine")
    return ProfileResult(
        source,
        Profile(
            kernels, fields.positive("frame_ms"), ceilings, fields.whole("threads"),
            {"emulated": source.emulated, "machine": machine.text("machine")},
        ),
    )  # fmt: skip


def _ceilings(fields: Fields) -> Ceilings | None:
    reads = [Fields(dict(zip(("bytes", "rate"), pair, strict=False)), f"{fields.where}reads: ")
             for pair in fields.items("reads") if isinstance(pair, list)]  # fmt: skip
    levels = tuple((max(1, read.whole("bytes")), read.positive("rate")) for read in reads)
    if not levels:
        return None
    dots: dict[str, float] = {}
    if "dot_gflops" in fields:  # not in what older versions wrote
        low = fields.inside("dot_gflops")
        dots = {dtype: low.positive(dtype) for dtype in low.values}
    threads = max(1, fields.whole("threads"))
    return Ceilings(threads, fields.positive("fma_gflops"), levels, dots)


def _draw(found: Sequence[ProfileResult]) -> Markup:
    return join(*(article(one.source, profile_blocks(one)) for one in found))


def profile_blocks(one: ProfileResult) -> Markup:
    """What a profile has on the page; `bench --profile` has one too."""
    profile = one.profile
    said = f"A frame takes {profile.frame_ms:.3f} ms."
    if profile.ceilings and profile.fma_share is not None:
        said += (
            f" Its multiply-adds at {profile.ceilings}, the most that the machine "
            f"was seen to do, would take {profile.fma_share:.0%} of that."
        )
    return join(tag("p", said), _bars(profile), _roofline(profile), _table(profile))


def _words(kernel: KernelProfile) -> str:
    return kernel_in_words(kernel.spec) or kernel.name


def _bars(profile: Profile) -> Markup:
    slowest = sorted(profile.kernels, key=lambda kernel: -kernel.median_ms)[:MOST_BARS]
    rows = []
    for kernel in slowest:
        reached = kernel.share_of_ceiling(profile.ceilings)
        tick = None if reached is None else kernel.median_ms * reached
        rows.append(Row(_words(kernel), [Mark(0, kernel.median_ms, _tip(kernel, profile))], tick))
    caption = "Time of each kernel in a frame"
    if len(slowest) < len(profile.kernels):
        caption = f"Time of the {len(slowest)} slowest of {len(profile.kernels)} kernels"
    if profile.ceilings:
        caption += "; the line is what the machine's ceilings allow"
    return rows_chart(caption, [], rows, "milliseconds", bars=True)


def _tip(kernel: KernelProfile, profile: Profile) -> str:
    reached = kernel.share_of_ceiling(profile.ceilings)
    words = [
        _words(kernel),
        f"{kernel.median_ms:.3f} ms, {kernel.median_ms / profile.frame_ms:.1%} of the frame",
        f"{kernel.gflops:.1f} GFLOP/s, {kernel.gbytes_per_s:.1f} GB/s",
    ]
    return "; ".join(words + ([] if reached is None else [f"{reached:.0%} of the ceiling"]))


def _roofline(profile: Profile) -> Markup | None:
    computing = [kernel for kernel in profile.kernels if kernel.macs]
    if not computing:
        return None
    series = []
    for template in dict.fromkeys(kernel.template for kernel in computing):
        points = [
            Point(2 * k.macs / k.bytes, k.gflops, _tip(k, profile),
                  3 + 14 * (k.median_ms / profile.frame_ms) ** 0.5)
            for k in computing if k.template == template
        ]  # fmt: skip
        series.append(Series(kind_in_words(template), points, joined=False))
    guides = []
    if profile.ceilings:
        fma = profile.ceilings.highest_gflops
        low = min(p.x for s in series for p in s.points)
        high = max(p.x for s in series for p in s.points)
        for index, (size, rate) in enumerate(profile.ceilings.reads):
            knee = fma / rate
            start = min(low, knee)
            text = f"{size_text(size)} a thread: {rate:.0f} GB/s"
            guides.append(
                Guide((start, start * rate), (knee, fma), text, 0.03 + 0.36 * (index % 2))
            )
        first = fma / max(rate for _, rate in profile.ceilings.reads)
        end = max(high, first)
        guides.append(Guide((first, fma), (end, fma), f"FMA {fma:.0f} GFLOP/s", 0.4))
    return xy_chart(
        "Rate of each kernel over its arithmetic intensity; area is time", series,
        "FLOP per byte of the arguments", "GFLOP/s", log=True, guides=guides,
        wide=True,
    )  # fmt: skip


def _table(profile: Profile) -> Markup:
    columns = ["what", "calls", "ms", "of the frame", "GFLOP/s", "GB/s", "of the ceiling", "kernel"]
    rows: list[list[Cell]] = []
    for kernel in profile.kernels:
        reached = kernel.share_of_ceiling(profile.ceilings)
        rows.append([
            _words(kernel), number(kernel.calls, 0), number(kernel.median_ms, 4),
            share(kernel.median_ms / profile.frame_ms), number(kernel.gflops, 1),
            number(kernel.gbytes_per_s, 1), "" if reached is None else share(reached, 0),
            tag("code", kernel.name),
        ])  # fmt: skip
    return table(columns, rows)


KIND = Kind("Kernels", _recognises, _read, _draw)
