"""`hmseg-deploy paper`: the networks of its tables beside other runtimes, a line each. The last
line of a network, size and setting counts."""

from statistics import median

from deploy.measure.statistics import ratio_of_rounds
from deploy.report.content import Content, Fields
from deploy.report.kind import Kind
from deploy.report.kinds.peers import OURS, Compared, PeersFile, draw
from deploy.report.source import Source, listed, span
from lut.errors import UserError


def _recognises(content: Content) -> bool:
    return content.first.get("kind") == "paper"


def _read(content: Content) -> PeersFile:
    found: dict[tuple[object, ...], Compared] = {}
    devices: dict[str, None] = {}
    versions: dict[str, dict[str, None]] = {}
    dates: list[str] = []
    emulated = False
    for fields in content.fields():
        setting = fields.inside("setting")
        provenance = setting.inside("provenance")
        cpu = provenance.text("cpu")
        emulated |= provenance.values.get("emulated") is True
        for name, version in provenance.inside("versions").texts().items():
            versions.setdefault(name, {})[version] = None
        compared = _compared(fields, setting)
        found[cpu, setting.text("target"), *compared.what] = compared
        devices[cpu] = None
        dates.append(fields.text("date"))
    source = Source(
        content.name, content.name.removesuffix(".jsonl"), ", ".join(devices), listed(versions),
        span(dates), emulated,
    )  # fmt: skip
    return PeersFile(source, tuple(sorted(found.values(), key=lambda each: each.order)))


def _compared(fields: Fields, setting: Fields) -> Compared:
    what = fields.text("network"), fields.text("resolution"), setting.whole("threads"), ""
    if failed := fields.text("failed"):
        return Compared(what, {}, {}, {}, failed)
    result = fields.inside("result")
    samples = result.inside("samples_ns")
    rounds = {name: samples.rounds(name) for name in samples.values}
    if OURS not in rounds:
        raise UserError(f"{fields.where}there is no side {OURS!r}")
    for name, theirs in rounds.items():
        if len(theirs) != len(rounds[OURS]):
            raise UserError(f"{fields.where}{name} has other rounds than {OURS}")
    ratios = {
        name: ratio_of_rounds(theirs, rounds[OURS])
        for name, theirs in rounds.items()
        if name != OURS
    }
    medians = {
        name: median(ns for one in theirs for ns in one) / 1e6 for name, theirs in rounds.items()
    }
    return Compared(what, medians, ratios, result.optional("absent").texts())


KIND = Kind("Networks of the paper", _recognises, _read, draw)
