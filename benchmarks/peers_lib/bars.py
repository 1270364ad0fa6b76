"""The networks that people bring, what is wanted of each, and whether it was reached."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers_lib.adapters import OURS
from benchmarks.peers_lib.job import Config
from benchmarks.peers_lib.report import best_probe, fastest_peer, fma_share, ratios
from benchmarks.peers_lib.results import Record, latest
from deploy.measure.statistics import Ratio

PEERS = ("onnxruntime", "openvino", "litert")
RESOLUTIONS, THREADS = ("256x512", "512x1024"), (1, 2)

# The fastest peer's time over ours, at least; None: no slower than the file's first record says.
# Names of `hmseg.families`, and below of the zoo.
BARS: dict[str, float | None] = {
    "bisenetv1-r18": 1.8,
    "bisenetv2": 1.8,
    "stdc1-seg": 1.8,
    "ddrnet-23-slim": 1.8,
    "pidnet-s": 1.8,
    "pp-liteseg-t": 1.8,
    "hrnet-w18-small": 1.8,
    "unet": 1.8,
    "icnet": 1.8,
    "swiftnet-r18": 1.8,
    "segnet": 1.8,
    "erfnet": 1.5,
    "enet": 1.5,
    "dabnet": 1.5,
    "espnet": 1.5,
    "u2net-p": 1.5,
    "regseg": 1.5,
    "fast-scnn": 2.0,
    "deeplabv3plus-mobilenet-v2-separable": 2.0,
    "deeplabv3plus-mobilenet-v2": 2.0,
    "dfanet-a": 2.0,
    "lraspp-mobilenet-v3-large": 2.0,
    "mobilenet-v3-small": 2.0,
    "segformer-b0": 1.2,
    "topformer-b": 1.2,
    "convnext-atto": 1.2,
    "mrms": None,
    "tiny-mrms": None,
}
OF_THE_ZOO = frozenset(name for name, wanted in BARS.items() if wanted is None)
# Where a bar would take more of the FMA ceiling, by the multiply-adds really done, this share is
# the bar.
MOST_SHARE = 0.85
COMPILE_S = 30.0  # cold cache, reading and checking included
# The error against double precision, over onnxruntime's own; and the labels equal to double's.
MOST_ERROR = {"hmseg": 10.0, "hmseg-exact": 2.0}
LEAST_EQUAL = 0.9999


@dataclass(frozen=True)
class Row:
    """One configuration as it was measured last.

    `share` is that of the FMA ceiling, by the multiply-adds really done. `before` is the ratio of
    the first record of the configuration by another compiler, if there is one.
    """

    config: Config
    ratios: dict[str, Ratio]
    fastest: str | None = None
    ours_ms: float = 0.0
    share: float | None = None
    compile_s: float | None = None
    before: Ratio | None = None
    failed: str = ""
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def wanted(self) -> float | None:
        """The bar, if it is a number: those of float32."""
        return BARS.get(self.config.named)

    @property
    def ratio(self) -> Ratio | None:
        """The fastest peer's time over ours."""
        return self.ratios[self.fastest] if self.fastest else None

    @property
    def loses(self) -> bool:
        """Whether a peer is faster."""
        return self.ratio is not None and self.ratio.median < 1


@dataclass(frozen=True)
class Verdict:
    """Whether a bar is met, and what it is, in words; neither where there is nothing to judge."""

    met: bool | None
    text: str = ""


def rows_of(records: Sequence[Record]) -> list[Row]:
    """The last record of each configuration, in the order of the bars; networks without one behind.

    `records` are all of one machine, in their order: the best of their probes is its ceiling.
    """
    names = list(BARS)
    last = latest(list(records))
    ordered = sorted(
        last,
        key=lambda c: (
            names.index(c.model) if c.model in BARS else len(names),
            c.model, c.exporter, c.size.height * c.size.width, c.threads,
        ),
    )  # fmt: skip
    return [_row(config, last[config], records) for config in ordered]


def _row(config: Config, record: Record, records: Sequence[Record]) -> Row:
    if "failed" in record:
        return Row(config, {}, failed=record["failed"])
    ours, measured = record["sides"][OURS], [r for r in records if "sides" in r]
    compiled = ours.get("compiled", {})
    done = compiled.get("macs_done") or record["macs"]
    share = fma_share(record | {"macs": done}, best_probe(measured, config.threads))
    return Row(
        config, ratios(record), fastest_peer(record), ours["latency"]["median_ms"], share or None,
        compiled.get("seconds"), _before(config, record, measured),
        skipped=tuple(record["skipped"].items()),
    )  # fmt: skip


def _before(config: Config, record: Record, records: Sequence[Record]) -> Ratio | None:
    """Of the first record of the configuration that another compiler made: the ratio to the peer
    that is the fastest now."""
    fastest = fastest_peer(record)
    for old in records:
        found = ratios(old) if Config(**old["config"]) == config else {}
        if old["deploy"] != record["deploy"] and fastest in found:
            return found[fastest]
    return None


def speed_verdict(row: Row) -> Verdict:
    """Whether a network is as fast as it should be."""
    if row.failed:
        return Verdict(False, "does not run")
    if row.ratio is None or row.config.named not in BARS:
        return Verdict(None)
    if row.wanted is None:
        if row.before is None:
            return Verdict(None, "no slower than before, which is not measured")
        # Both have their spread over the rounds.
        met = row.ratio.high >= row.before.low
        return Verdict(met, f"no slower than before, {row.before.median:.2f}")
    found, share = row.ratio.median, row.share
    needed = 0.0 if share is None else share * row.wanted / found
    if found < row.wanted and share is not None and needed > MOST_SHARE:
        text = f"{MOST_SHARE:.0%} of the ceiling, as {row.wanted} takes {needed:.0%}"
        return Verdict(share >= MOST_SHARE, text)
    return Verdict(found >= row.wanted, f"{row.wanted}")


@dataclass(frozen=True)
class Accuracy:
    """Of one side on five images: its error against double precision over onnxruntime's own, the
    worse of the root mean square and the largest, and the share of the labels that are equal to
    double's, of onnxruntime too."""

    side: str
    times: float
    labels_equal: float
    onnxruntime_labels_equal: float

    @property
    def met(self) -> bool:
        """Whether it is as near as it should be; NaN never is. Where onnxruntime's own labels are
        not so near, as near as these."""
        enough = min(LEAST_EQUAL, self.onnxruntime_labels_equal)
        return self.times <= MOST_ERROR[self.side] and self.labels_equal >= enough


def accuracy_of(record: Record) -> Accuracy | None:
    """From a record of `benchmarks.peers_lib.accuracy`; None where there is no truth."""
    if "failed" in record:
        return None
    images = list(record["images"].values())

    def rms(side: str) -> float:
        return sum(image[side]["rms"] ** 2 for image in images) ** 0.5

    def largest(side: str) -> float:
        return max((image[side]["largest"] for image in images), key=lambda x: (x != x, x))

    def equal(side: str) -> float:
        return sum(image[side]["labels_equal"] for image in images) / len(images)

    times = [of("ours") / max(of("onnxruntime"), 5e-324) for of in (rms, largest)]
    worst = max(times, key=lambda x: (x != x, x))
    return Accuracy(record["side"], worst, equal("ours"), equal("onnxruntime"))


def latest_accuracy(records: Sequence[Record]) -> dict[tuple[str, str, str], dict[str, Record]]:
    """The last record of each network, size and exporter: for each side."""
    found: dict[tuple[str, str, str], dict[str, Record]] = {}
    for record in records:
        key = (record["model"], record["resolution"], record["exporter"])
        found.setdefault(key, {})[record["side"]] = record
    return found
