"""What the comparison on users' networks does without timing any: bars, going on, reports."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from benchmarks import any_network
from benchmarks.peers_lib import accuracy, adapters, bars, command, families, run
from benchmarks.peers_lib.adapters import EXACT, OURS, hmseg_side
from benchmarks.peers_lib.bars import BARS, OF_THE_ZOO, rows_of, speed_verdict
from benchmarks.peers_lib.job import Config, Work
from benchmarks.peers_lib.network import torch_network
from benchmarks.results_lib import any_network as table
from benchmarks.results_lib.store import Store
from benchmarks.results_lib.table import markdown
from deploy.artifact import TVM, KernelInfo
from deploy.cpu.kernels import conv_winograd, module_of
from deploy.graph.float64 import multiply_adds
from deploy.graph.reference import Reference
from deploy.resolution import Resolution
from hmseg import zoo
from hmseg.families import list_networks
from lut import jsonl
from lut.errors import UserError, WorkError
from lut.ops import Conv
from tests.benchmarks.test_peers import record as peers_record
from tests.benchmarks.test_peers import side
from tests.deploy.graphs import segmenter

CONFIG = Config("unet", "64x64", 1, "labels", "dynamo")
PROVENANCE = {"deploy": "abc", "machine": {"cpu": "Some CPU"}, "date": "2026-01-01", "command": "c"}


def record(config: Config = CONFIG, **changes):
    """Ours takes 2 ms with 0.1 GFLOP: half of the ceiling; OpenVINO is the fastest peer, 1.5."""
    found = peers_record(config, skipped={"litert": "cannot convert"})
    ours = side(2, 2, 2) | {"compiled": {"seconds": 12.0, "macs_done": 50_000_000}}
    found["sides"] = {OURS: ours, "onnxruntime": side(4, 4, 5), "openvino": side(3, 3, 3)}
    return found | changes


def row(**changes):
    return replace(rows_of([record()])[0], **changes)


def test_every_network_of_the_bars_is_there():
    assert set(BARS) - OF_THE_ZOO <= set(list_networks())
    assert set(zoo.list_models()) >= OF_THE_ZOO


def test_a_row_has_the_fastest_peer_and_its_ratio():
    (found,) = rows_of([record()])
    assert (found.fastest, found.ratio.median, found.ours_ms) == ("openvino", 1.5, 2.0)
    assert (found.share, found.compile_s) == (pytest.approx(0.5), 12.0)
    assert not found.loses
    assert found.skipped == (("litert", "cannot convert"),)


def test_the_share_counts_what_was_really_done():
    saving = record()
    saving["sides"][OURS]["compiled"]["macs_done"] = 20_000_000
    assert rows_of([saving])[0].share == pytest.approx(0.2)


def test_rows_stand_in_the_order_of_the_bars_and_the_last_record_counts():
    configs = [
        replace(CONFIG, model=model, threads=threads)
        for model in ("another", "erfnet", "bisenetv2") for threads in (2, 1)
    ]  # fmt: skip
    records = [record(config) for config in configs]
    found = rows_of([*records, record(configs[3], failed="no more")])
    assert [(r.config.model, r.config.threads) for r in found] == [
        ("bisenetv2", 1), ("bisenetv2", 2), ("erfnet", 1), ("erfnet", 2), ("another", 1),
        ("another", 2),
    ]  # fmt: skip
    assert [r.failed for r in found if r.config == configs[3]] == ["no more"]


@pytest.mark.parametrize(
    ("ratio", "share", "met", "text"),
    [
        (1.8, 0.5, True, "1.8"),
        (1.79, 0.5, False, "1.8"),
        (1.5, None, False, "1.8"),
        (1.0, 0.6, False, "85% of the ceiling, as 1.8 takes 108%"),
        (1.7, 0.86, True, "85% of the ceiling, as 1.8 takes 91%"),
        (2.5, 0.95, True, "1.8"),
    ],
)
def test_where_a_bar_asks_for_too_much_of_the_ceiling_the_share_decides(ratio, share, met, text):
    ratios = {"openvino": bars.Ratio(ratio, ratio, ratio, 5)}
    assert speed_verdict(row(ratios=ratios, share=share)) == bars.Verdict(met, text)


def test_networks_of_the_zoo_are_no_slower_than_their_first_record():
    config = Config("mrms", "64x64", 1, "labels")
    first, now = record(config, deploy="old"), record(config)
    assert speed_verdict(rows_of([now])[0]).met is None
    assert speed_verdict(rows_of([first, now])[0]) == bars.Verdict(
        True, "no slower than before, 1.50"
    )
    slower = record(config)
    slower["sides"][OURS] |= side(2.5, 2.5, 2.5)
    assert speed_verdict(rows_of([first, now, slower])[0]).met is False
    again = record(config, deploy="abc")  # of this compiler: no bar
    assert speed_verdict(rows_of([again, now])[0]).met is None


def test_what_has_no_bar_is_not_judged():
    assert speed_verdict(row(config=replace(CONFIG, model="segnet-like"))).met is None
    assert speed_verdict(row(fastest=None)).met is None
    assert speed_verdict(row(failed="why")) == bars.Verdict(False, "does not run")


def image(ours: float, theirs: float, equal: float = 1.0):
    sides = {"ours": ours, "onnxruntime": theirs}
    return {
        name: {"rms": error, "largest": 3 * error, "labels_equal": equal}
        for name, error in sides.items()
    }


@pytest.mark.parametrize(
    ("error", "equal", "name", "met"),
    [
        (9e-6, 1.0, OURS, True),
        (11e-6, 1.0, OURS, False),
        (9e-6, 1.0, EXACT, False),
        (1.9e-6, 1.0, EXACT, True),
        (9e-6, 0.9998, OURS, True),  # as near as onnxruntime's
        (math.nan, 1.0, OURS, False),
    ],
)
def test_accuracy_is_by_onnxruntimes_own_error(error, equal, name, met):
    images = {"golden": image(error, 1e-6, equal), "black": image(0, 0)}
    found = bars.accuracy_of({"side": name, "images": images})
    assert found.met is met
    if not math.isnan(error):
        assert found.times == pytest.approx(error / 1e-6)
    assert found.labels_equal == pytest.approx((1 + equal) / 2)


def test_fewer_equal_labels_than_both_bars_fail():
    images = {"golden": image(1e-6, 1e-6)}
    images["golden"]["ours"]["labels_equal"] = 0.9998
    assert not bars.accuracy_of({"side": OURS, "images": images}).met
    assert bars.accuracy_of({"side": OURS, "failed": "no truth"}) is None


def test_errors_are_those_of_the_scores():
    truth = np.random.default_rng(0).normal(size=(5, 8, 8))
    found = accuracy.compare_with_truth((truth + 1e-3).astype(np.float32), truth)
    assert found["rms"] == pytest.approx(1e-3, rel=1e-3)
    assert found["labels_equal"] == 1
    assert accuracy.compare_with_truth(-truth, truth)["labels_equal"] < 0.5


def test_configurations_stand_in_the_order_of_the_bars():
    found = any_network.list_configs(["mrms", "unet"], ["64x64"], [1, 2], ["dynamo", "legacy"])
    assert [(c.model, c.exporter, c.threads) for c in found] == [
        ("mrms", "", 1), ("mrms", "", 2), ("unet", "dynamo", 1), ("unet", "dynamo", 2),
        ("unet", "legacy", 1), ("unet", "legacy", 2),
    ]  # fmt: skip
    with pytest.raises(UserError, match="unknown network 'nobody'"):
        any_network.list_configs(["nobody"], ["64x64"], [1], ["dynamo"])


def quick(path, *more):
    arguments = ["--networks", "unet", "erfnet", "--resolutions", "64x64", "--threads", "1"]
    return any_network.main(
        [*arguments, "--peers", "onnxruntime", "openvino", "--output", str(path), *more]
    )


def test_it_goes_on_where_it_was_killed(tmp_path, monkeypatch, capsys):
    """By what each line says of its compiler, peers and protocol; one that failed is not tried
    again either, and ends nothing."""
    asked = []

    def fake(self, config, peers):
        asked.append(config.model)
        if config.model == "erfnet":
            raise WorkError("the gate says no")
        return record(config, requested=sorted(peers), protocol=vars(self.timing))

    monkeypatch.setattr(run.Runner, "run", fake)
    path = tmp_path / "r.jsonl"
    assert quick(path) == 0
    assert quick(path) == 0
    assert asked == ["unet", "erfnet"]
    out, err = capsys.readouterr()
    assert err.count("measured already") == 2
    assert "erfnet (dynamo) 64x64 1 threads labels: FAILED: the gate says no" in out
    text = path.read_bytes()
    path.write_bytes(text[:-30])  # killed while it wrote
    assert quick(path) == 0
    assert quick(path, "--rounds", "2") == 0
    monkeypatch.setattr(command, "deploy_digest", lambda: "another")
    assert quick(path) == 0
    assert quick(path, "--again") == 0
    assert asked[2:] == ["erfnet", *["unet", "erfnet"] * 3]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_errors_are_measured_once_for_each_compiler(tmp_path, monkeypatch, capsys):
    asked = []

    def fake(_runner, config, name, truths):
        asked.append((config.model, config.threads, name, len(truths)))
        truths["golden"] = np.zeros(1)
        if config.model == "erfnet":
            raise WorkError("no truth")
        return {"golden": image(2e-6, 1e-6)}

    monkeypatch.setattr(accuracy, "measure_errors", fake)
    path = tmp_path / "r.jsonl"
    for _ in range(2):
        assert quick(path, "--accuracy", "--threads", "1", "2") == 0
    # The second side of a network reads what was computed for the first.
    assert asked == [
        (model, 2, side, known)
        for model in ("unet", "erfnet")
        for known, side in enumerate((OURS, EXACT))
    ]
    out = capsys.readouterr().out
    assert (
        "unet (dynamo) 64x64 2 threads labels: hmseg: 2 times the error of onnxruntime: met; labels"
        in out
    )
    assert "no truth" in out
    assert len(jsonl.read_records(tmp_path / "r-errors.jsonl")) == 4


def test_command_line_refuses(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    assert any_network.main(["--report", "--output", str(path)]) == 2
    assert "nothing measured yet" in capsys.readouterr().err
    assert quick(path, "--networks", "nobody") == 2
    assert quick(path, "--peers", "nobody") == 2
    assert quick(path, "--resolutions", "3x3") == 2


def test_the_table_says_where_a_peer_wins(tmp_path):
    losing = record(replace(CONFIG, threads=2))
    losing["sides"]["openvino"] = side(1, 1, 1)
    failing = PROVENANCE | {"config": replace(CONFIG, model="enet").to_json(), "failed": "refused"}
    name = table.file_name("some")
    for one in (record(), losing, failing):
        jsonl.append_record(tmp_path / name, one | {"machine": {"cpu": "Some CPU"}})
    errors = tmp_path / name.replace(".jsonl", "-errors.jsonl")
    what = {"model": "unet", "resolution": "64x64", "exporter": "dynamo"} | PROVENANCE
    jsonl.append_record(errors, what | {"side": OURS, "images": {"golden": image(3e-6, 1e-6)}})
    jsonl.append_record(errors, what | {"side": EXACT, "images": {"golden": image(3e-6, 1e-6)}})
    (tmp_path / "sources.json").write_text("{}")
    machine = {"chip": "Some CPU", "about": "a box", "versions": {"torch": "2"}}
    (tmp_path / "machines.json").write_text(json.dumps({"Box": machine}))
    (found,) = table.any_network(Store(tmp_path, tmp_path))
    text = markdown(found)
    rows = [line for line in text.splitlines() if line.startswith("| unet")]
    assert "| openvino | 1.50 [1.50..1.50] | 2.00 | 1.50 | not run | 1.8: **missed** |" in rows[0]
    assert "| 12.0: met | 3: met | 3: **missed** | 100.0000%, 100.0000% |" in rows[0]
    assert "as 1.8 takes 180%: **missed**, openvino wins |" in rows[1]
    assert re.search(r"\| enet .*\*\*missed\*\*: refused", text)
    assert "A peer wins on unet." in text
    assert text.count("; Box; ") == 2
    errors.unlink()
    (tmp_path / name).unlink()
    assert table.any_network(Store(tmp_path, tmp_path)) == []


@pytest.mark.parametrize(
    ("kernel", "dilation", "size", "products"),
    [
        ((3, 3), (1, 1), (16, 32), 4 * 8 * 36),  # 4x4 outputs by 6x6 products
        ((3, 3), (1, 1), (18, 33), 5 * 9 * 36),  # tiles at the border are whole
        ((3, 3), (2, 2), (16, 32), 4 * (2 * 4) * 36),  # four maps of 8x16
        ((1, 3), (1, 1), (16, 32), 16 * 8 * 6),
    ],
)
def test_winograd_is_counted_by_its_products(kernel, dilation, size, products):
    pad = tuple(d * (k // 2) for d, k in zip(dilation, kernel, strict=True)) * 2
    op = Conv((32,), 64, *size, kernel=kernel, dilation=dilation, pad=pad)
    assert op.output == (64, *size)
    assert module_of(op) is conv_winograd
    assert conv_winograd.products(op) == products * 32 * 64 < op.macs


def test_what_a_frame_does_is_the_graph_less_what_winograd_saves():
    """Of calls, not of kernels; exactly compiled nothing is saved."""
    graph = onnx.shape_inference.infer_shapes(segmenter())
    whole = round(multiply_adds(graph))
    op = Conv((32,), 64, 16, 32, kernel=(3, 3), pad=(1, 1, 1, 1))
    infos = KernelInfo("conv", "conv", str(op), op.macs, 0), KernelInfo("left", TVM, "", 0, 0)
    artifact = SimpleNamespace(kernels=infos, calls=("conv", "left", "conv"))
    saved = 2 * (op.macs - conv_winograd.products(op))
    assert hmseg_side.macs_done(artifact, graph) == whole - saved
    exact = KernelInfo("conv", "conv", str(replace(op, exact=True)), op.macs, 0), infos[1]
    plain = SimpleNamespace(kernels=exact, calls=artifact.calls)
    assert hmseg_side.macs_done(plain, graph) == whole
    assert hmseg_side.macs_done(plain, segmenter()) is None  # of unknown shapes
    artifact = SimpleNamespace(kernels=infos, calls=("conv", "conv"))  # all in kernels of ours
    plain = SimpleNamespace(kernels=exact, calls=artifact.calls)
    assert hmseg_side.macs_done(plain, graph) == 2 * op.macs
    assert hmseg_side.macs_done(artifact, graph) == 2 * op.macs - saved


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("peers")


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
def test_torch_and_the_file_are_one_network(exporter, cache, monkeypatch):
    """What LiteRT converts, what the others read, and what ours compiles."""
    monkeypatch.setattr(families, "create_network", small_network)
    config = replace(CONFIG, job="logits", exporter=exporter)
    runner = run.Runner(cache, run.Timing(), lambda _: None)
    graph, _ = runner._graph(config)
    work = Work(config, graph, cache)
    logits = Reference(onnx.load(graph))(work.image())[1]
    for channels_last in (False, True):
        with torch.no_grad():
            network = torch_network(config, channels_last=channels_last)
            found = network(torch.from_numpy(work.given())[None])[0].numpy()
        if channels_last:
            found = found.transpose(2, 0, 1)
        assert run.difference_of_logits(found, logits) is None
    assert runner._macs(config) == 3 * 8 * 9 * 32 * 32 + 8 * 5 * 32 * 32


def small_network(_name: str) -> torch.nn.Module:
    """At stride 2, with a batch norm that folds and one that does not."""
    layers = torch.nn
    return layers.Sequential(
        layers.Conv2d(3, 8, 3, 2, 1), layers.BatchNorm2d(8), layers.ReLU(), layers.BatchNorm2d(8),
        layers.Conv2d(8, 5, 1),
    )  # fmt: skip


def test_a_file_is_written_once_and_again_for_other_sources(cache, monkeypatch):
    monkeypatch.setattr(families, "create_network", small_network)
    said: list[str] = []
    runner = run.Runner(cache / "once", run.Timing(), said.append)
    for _ in range(2):
        runner._graph(CONFIG)
    assert [text.rpartition("-")[2] for text in said] == ["file", "labels"]
    monkeypatch.setattr(adapters, "graph_digest", lambda: "another")
    runner._graph(CONFIG)
    assert len(said) == 3
    monkeypatch.setattr(adapters, "file_digest", lambda: "another")
    runner._graph(CONFIG)
    assert len(said) == 4  # the same file again: the graph stays


def test_an_exporter_that_fails_is_named(tmp_path, monkeypatch):
    class Odd(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("no such thing")

    monkeypatch.setattr(families, "create_family", lambda *_: Odd())
    with pytest.raises(WorkError, match=r"unet .*: not exported: .*no such thing"):
        families.write_file(replace(CONFIG, exporter="legacy"), tmp_path / "x.onnx")


def test_a_network_is_the_same_every_time(monkeypatch):
    monkeypatch.setattr(families, "create_network", small_network)
    first, again = (families.create_family("x", Resolution(64, 64)) for _ in range(2))
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not first.training
