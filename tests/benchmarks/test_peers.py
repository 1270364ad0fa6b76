"""What the comparison with other runtimes does without them: results, tables, reasons."""

import json
import re
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from benchmarks import peers
from benchmarks.peers_lib import adapters, report, results, run
from benchmarks.peers_lib.adapters import fma_probe_side
from benchmarks.peers_lib.job import JOBS, Config, Work, without_folders
from benchmarks.peers_lib.network import (
    count_macs,
    create_graph,
    create_network,
    one_class_cells,
    torch_network,
)
from benchmarks.peers_lib.side import Side
from deploy.graph.export import import_onnx, save_onnx
from deploy.graph.reference import Reference
from deploy.measure.statistics import summarise
from deploy.resolution import Resolution
from deploy.street import draw_street
from hmseg import count
from lut.errors import UserError, WorkError
from tests.conditions import KERNELS

CONFIG = Config("tiny-mrms", "64x64", 1, "labels")


def side(*rounds_ms: float) -> dict:
    samples = [[int(ms * 1e6)] * 3 for ms in rounds_ms]
    return {
        "versions": {"package": "1.2"},
        "label_end": "graph",
        "label_ends_failed": {},
        "memory": {"base_kib": 1024, "peak_kib": 3072},
        "samples_ns": samples,
        "probe_gflops": [100.0] * len(samples),
        "latency": asdict(summarise([n for block in samples for n in block])),
    }


def record(config: Config = CONFIG, **changes: object) -> results.Record:
    return {
        "config": config.to_json(),
        "macs": 50_000_000,
        "requested": ["litert", "mnn", "onnxruntime"],
        "protocol": asdict(run.Timing()),
        "deploy": "abc",
        "machine": {"cpu": "Some CPU", "cores": 2, "kernel": "6.1", "python": "3.11"},
        "date": "2026-01-01T00:00:00+00:00",
        "command": "python -m benchmarks.peers --threads 1",
        "sides": {"hmseg": side(2, 2, 4), "onnxruntime": side(6, 5, 8), "mnn": side(7, 7, 7)},
        "skipped": {"litert": "not installed: litert-torch"},
        "probe": "",
        **changes,
    }


def test_torn_last_line_is_dropped_and_overwritten(tmp_path, capsys):
    path = tmp_path / "new" / "r.jsonl"
    results.append_record(path, record(deploy="first"))
    results.append_record(path, record(deploy="second"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert [r["deploy"] for r in results.read_records(path)] == ["first"]
    assert "torn" in capsys.readouterr().err
    results.append_record(path, record(deploy="second"))
    assert path.read_bytes() == whole


def test_broken_line_inside_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("{}\n" + json.dumps(record()) + "\n")
    with pytest.raises(UserError, match="line 1 is not a record"):
        results.read_records(path)


def test_last_record_of_a_configuration_counts():
    other = Config("mrms", "64x64", 1, "labels")
    found = results.latest([record(deploy="1"), record(other), record(deploy="2")])
    assert list(found) == [CONFIG, other]
    assert found[CONFIG]["deploy"] == "2"


@pytest.mark.parametrize(
    "change", [{"deploy": "x"}, {"requested": ["mnn"]}, {"protocol": {"rounds": 1}}]
)
def test_done_only_for_same_compiler_peers_and_protocol(change):
    stored = json.loads(json.dumps(record()))  # as it comes back from the file
    assert results.is_done(stored, record())
    assert not results.is_done(stored, record(**change))
    assert not results.is_done(None, record())


def test_ratio_is_peer_over_ours_round_by_round_and_fastest_by_median():
    ratio = report.ratios(record())["onnxruntime"]
    assert (ratio.median, ratio.low, ratio.high, ratio.rounds) == (2.5, 2.0, 3.0, 3)
    assert report.fastest_peer(record()) == "onnxruntime"


def test_tables_name_every_side_and_every_reason():
    text = report.detail(record(), [record()])
    assert "| onnxruntime (fastest peer) | 1.2 | 5.00 | 6.00 |" in text
    assert "2.50 [2.00..3.00] | 2.50 | 3 (2) | graph |" in text
    assert "not run: litert: not installed: litert-torch" in text
    row = report.overview({CONFIG: record()}).splitlines()[2]
    assert row.startswith(
        "| tiny-mrms | 64x64 | 1 | labels | 2.00 | 500.0 | 50.0% | 3 / 3 | onnxruntime | 2.50 ["
    )
    assert row.endswith("| 3.50 [1.75..3.50] | not run |")


def test_document_says_where_the_figures_come_from(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    other = Config("tiny-mrms", "64x64", 1, "float-logits")
    for each in (record(), record(other, date="2026-01-02T00:00:00+00:00")):
        results.append_record(path, each)
    assert peers.main(["--report", "--output", str(path)]) == 0
    text = path.with_suffix(".md").read_text()
    assert "Some CPU, 2 cores, Linux 6.1, Python 3.11" in text
    assert "2026-01-01T00:00:00+00:00 to 2026-01-02T00:00:00+00:00, 5 rounds of blocks" in text
    assert "package 1.2" in text
    assert "    python -m benchmarks.peers --threads 1\n" in text
    assert text.count("### tiny-mrms 64x64, 1 threads") == 2
    assert capsys.readouterr().out.strip() in text
    assert {p.name for p in tmp_path.glob("*.png")} == {"r-labels.png", "r-float-logits.png"}


def test_share_of_the_fma_ceiling_leaves_slow_rounds_out():
    changed = record()
    changed["sides"]["hmseg"]["probe_gflops"] = [100.0, 10.0, 100.0]
    # 0.1 GFLOP in 2, 2 and 4 ms: 50, 50 and 25 GFLOP/s; the second round's probe was disturbed.
    # The ceiling is the best rate known, not the round's own.
    assert report.fma_share(changed, 110.0) == pytest.approx(0.375 / 1.1)
    assert report.fma_share(changed, 100.0) == pytest.approx(0.375)
    assert report.fma_share(changed, 200.0) is None
    changed["sides"]["hmseg"]["probe_gflops"] = []
    assert report.fma_share(changed, 100.0) is None


def test_macs_count_a_kernel_as_often_as_it_runs():
    """The graph's convolutions, beside the count of the network in torch."""
    graph = create_graph(replace(CONFIG, resolution="256x512"))
    expected = count.count_macs(create_network(CONFIG.model), 256, 512)
    assert count_macs(graph) == expected > 310e6


def test_slow_phases_are_counted():
    changed = record()
    changed["sides"]["mnn"]["probe_gflops"] = [100.0, 50.0, 84.0]
    text = report.detail(changed, [changed])
    assert "50 to 100 GFLOP/s before the blocks; 2 of 9 under 85% of 100" in text
    assert "not free" not in text


def test_run_that_is_slow_from_end_to_end_shows_against_others():
    faster = record()
    faster["sides"]["mnn"]["probe_gflops"] = [200.0]
    other_threads = record(Config("tiny-mrms", "64x64", 2, "labels"))
    other_threads["sides"]["mnn"]["probe_gflops"] = [400.0]
    text = report.detail(record(), [record(), faster, other_threads])
    assert "9 of 9 under 85% of 200, the best known: the machine was not free" in text


def test_peer_that_is_not_installed_has_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(adapters.load_adapter("mnn"), "PACKAGES", ("no-such-package",))
    runner = run.Runner(tmp_path, run.Timing(), lambda _: None)
    with pytest.raises(WorkError, match=r"^not installed: no-such-package$"):
        runner.prepare("mnn", CONFIG)


def test_failing_and_dying_sides_say_why(tmp_path):
    work = Work(CONFIG, tmp_path / "missing.onnx", tmp_path)
    with pytest.raises(WorkError, match=r"load failed: .*missing\.onnx"):
        Side("onnxruntime", work, "graph", tmp_path / "log")
    with pytest.raises(WorkError, match="exit code 1; last line: ModuleNotFoundError"):
        Side("unknown", work, "graph", tmp_path / "log")


def test_reasons_name_no_folder_of_this_machine():
    text = "Error: /home/me/env/lib/python3.11/site-packages/torch/conv.py:12:0: no %1 at 1/2 s"
    assert without_folders(text) == "Error: conv.py:12:0: no %1 at 1/2 s"
    assert without_folders("see https://x.org/a/b/c or ./d/e") == "see https://x.org/a/b/c or ./d/e"


def test_check_rejects_wrong_shapes_few_wrong_labels_and_nan():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 40, 50)).astype(np.float32)
    labels = logits.argmax(0)
    assert run.difference_of_labels(labels.astype(np.uint8), logits) is None
    labels[0, :3] = (labels[0, :3] + 1) % 5  # 3 of 2000: 99.85%
    assert "99.85" in (run.difference_of_labels(labels, logits) or "")
    assert "shape" in (run.difference_of_labels(labels.T, logits) or "")
    assert run.difference_of_logits(logits + np.float32(1e-5), logits) is None
    assert run.difference_of_logits(logits + np.float32(1e-2), logits)
    logits_with_nan = logits.copy()
    logits_with_nan[0, 0, 0] = np.nan
    assert run.difference_of_logits(logits_with_nan, logits)


def test_blocks_are_bounded_by_time_and_calls():
    timing = run.Timing(block_s=0.4, min_repeat=5, max_repeat=100)
    assert [timing.repeat(s) for s in (0.001, 0.01, 1.0)] == [100, 40, 5]
    assert [timing.warmups(s) for s in (0.01, 0.4, 1.0)] == [2, 1, 1]


def test_command_line_reports_and_refuses(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    assert peers.main(["--report", "--output", str(path)]) == 2
    assert "nothing measured yet" in capsys.readouterr().err
    assert peers.main(["--peers", "nobody", "--output", str(path)]) == 2
    assert "unknown peers ['nobody']" in capsys.readouterr().err
    assert peers.main(["--resolutions", "3x3", "--prepare", "--output", str(path)]) == 2


def put_small_graphs(cache: Path, config: Config) -> None:
    """One convolution, where the runner keeps the exported networks."""
    weight = np.random.default_rng(1).normal(size=(5, 3, 1, 1)).astype(np.float32)
    size = list(config.size)
    small = cache / "small.onnx"
    onnx.save(
        helper.make_model(
            helper.make_graph(
                [helper.make_node("Conv", ["x", "w"], ["y"])], "small",
                [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, *size])],
                [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 5, *size])],
                [numpy_helper.from_array(weight, "w")],
            ),
            opset_imports=[helper.make_opsetid("", 20)], ir_version=10,
        ),
        small,
    )  # fmt: skip
    for job in JOBS:
        path = cache / f"{config.model}-{config.resolution}-{job}" / "network.onnx"
        path.parent.mkdir()
        kinds = replace(config, job=job)
        graph = import_onnx(small, input_kind=kinds.input, output=kinds.output, mean=None, std=None)
        save_onnx(graph, path)
        path.with_suffix(".sources").write_text(adapters.graph_digest())


def test_whole_run_with_real_processes(tmp_path, monkeypatch):
    """Prepared, checked, timed in turn; onnxruntime stands where our side does."""
    config = Config("small", "64x64", 1, "labels")
    put_small_graphs(tmp_path, config)
    monkeypatch.setattr(run, "OURS", "onnxruntime")
    monkeypatch.setattr(adapters.load_adapter("mnn"), "PACKAGES", ("no-such-package",))
    runner = run.Runner(tmp_path, run.Timing(rounds=2, block_s=0.02), lambda _: None)
    found = runner.run(config, ["mnn"])
    assert found["skipped"] == {"mnn": "not installed: no-such-package"}
    assert list(found["sides"]) == ["onnxruntime"]
    assert found["macs"] > 0
    timed = found["sides"]["onnxruntime"]
    assert [len(block) for block in timed["samples_ns"]] == [timed["repeat"]] * 2
    assert set(timed["label_ends_tried_ms"]) == {"graph", "numpy"}
    assert timed["memory"]["peak_kib"] > timed["memory"]["base_kib"] > 0


def test_plot_has_a_panel_per_network_and_threads(tmp_path):
    configs = [Config("mrms", size, 2, "labels") for size in ("256x512", "512x1024")]
    target = Path(tmp_path / "p.png")
    report.plot({c: record(c) for c in configs}, "labels", target)
    assert target.read_bytes().startswith(b"\x89PNG")


def test_float_logits_start_from_the_normalised_tensor(tmp_path, monkeypatch):
    """Checked against the logits of the graph that takes the image; ours and onnxruntime's."""
    config = Config("small", "64x64", 2, "float-logits")
    put_small_graphs(tmp_path, config)
    runner = run.Runner(tmp_path, run.Timing(rounds=2, block_s=0.02), lambda _: None)
    found = runner.run(config, ["onnxruntime"])
    assert (found["skipped"], list(found["sides"])) == ({}, ["hmseg", "onnxruntime"])
    assert all(side["image_end"] is None for side in found["sides"].values())
    work = Work(config, tmp_path / "n.onnx", tmp_path)
    assert (work.given().dtype, work.given().shape) == (np.float32, (3, 64, 64))
    # Against the logits of another image the check fails: it is no formality.
    monkeypatch.setattr(Work, "image", lambda _: np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(WorkError, match="wrong results: off by"):
        run.Runner(tmp_path, run.Timing(), lambda _: None).run(config, [])


@pytest.mark.parametrize(
    ("model", "cases"),
    [
        ("tiny-mrms", [("labels", True), ("logits", False), ("float-logits", True)]),
        ("tiny-mrms-camvid", [("labels", False)]),
    ],
)
def test_torch_sides_compute_what_the_graph_does(model, cases):
    """What is converted from torch, both layouts; random and released weights."""
    config = Config(model, "64x64", 1, "logits")
    work = Work(config, Path("n.onnx"), Path())
    logits = Reference(create_graph(config))(work.image())[1]
    for job, channels_last in cases:
        config = replace(config, job=job)
        network = torch_network(config, channels_last=channels_last)
        with torch.no_grad():
            given = torch.from_numpy(Work(config, Path("n.onnx"), Path()).given())
            found = network(given[None])[0].numpy()
        if channels_last and job != "labels":
            found = found.transpose(2, 0, 1)
        check = run.difference_of_labels if job == "labels" else run.difference_of_logits
        assert check(found, logits) is None


def test_random_weights_fill_fewer_cells_than_trained_ones():
    """Our label end gains from cells of one class; what is timed must not have more of them."""
    street = draw_street(Resolution(256, 512))
    untrained = one_class_cells("tiny-mrms", street)
    assert untrained < 0.3
    assert one_class_cells("tiny-mrms-camvid", street) > max(0.6, 2 * untrained)


def test_what_the_peers_guide_installs_is_pinned_and_is_what_the_sides_record():
    root = Path(peers.__file__).parents[1]
    extra = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    converter = (root / "benchmarks" / "peers-litert.txt").read_text().splitlines()
    pinned = [
        *extra["optional-dependencies"]["peers"],
        *(line for line in converter if not line.startswith("#")),
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)
    ours = {re.split("[=<>]", line)[0] for line in extra["dependencies"]} | {extra["name"]}
    recorded = {p for name in adapters.PEERS for p in adapters.load_adapter(name).PACKAGES}
    assert recorded <= {line.partition("==")[0] for line in pinned} | ours


def test_the_probe_beside_the_peers_gives_a_rate(tmp_path):
    """In units of 1e9 a second: no core reaches the upper bound."""
    KERNELS.require()
    call = fma_probe_side.open_network(Work(CONFIG, tmp_path / "none.onnx", tmp_path))
    assert 0 < call() < 2000
