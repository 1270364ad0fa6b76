"""A search's folder: killed and resumed bit for bit, its log and pictures, and every refusal."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from hmseg.data.dataset import InMemory
from hmseg.data.registry import open_dataset
from hmseg.mend import Resume
from hmseg.network_file import read_network
from hmseg.search.checkpoint import SearchCheckpoint
from hmseg.search.config import SearchConfig
from hmseg.search.loop import SearchReport
from hmseg.search.run import SearchRun, _version
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.distributed import CPU
from hmseg.train.loop import Trainer
from hmseg.train.place import place_of
from hmseg.zoo import create_model
from lut.errors import UserError
from lut.jsonl import read_records
from tests.hmseg.data.folders import make_camvid
from tests.hmseg.search.searches import CONFIG, LIMIT, NEAR, RECIPE, RELEASED, SCORE, make_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchRun:
    """A search that nothing disturbed."""
    run = make_run(data, tmp_path_factory.mktemp("runs") / "whole")
    run.start(resume=False)
    return run


def test_the_log_has_the_search_in_it(whole: SearchRun):
    records = read_records(whole.log)
    assert [record["step"] for record in records] == [2, 4, 6]
    assert ["architecture" in record for record in records] == [False, True, True]
    assert records[-1]["architecture"]["temperature"] == pytest.approx(0.1)
    first, last = (torch.tensor(record["probabilities"]) for record in (records[0], records[-1]))
    assert torch.allclose(first[2], torch.full((10,), 0.1))  # the warm-up moves nothing
    assert (last[2] != first[2]).any()
    for record in records:
        assert record["images_per_s"] > 0
        assert record["most_probable"]["upper"] > record["most_probable"]["estimate"] > 0


def test_what_was_found_is_written_with_its_provenance(whole: SearchRun, data: Path):
    genotype, width, classes = read_network(whole.folder / "genotype.json")
    assert (width, classes) == (0.5, 11)
    estimate = whole.searcher.objective.cost.of(genotype)
    assert estimate.upper <= LIMIT
    search = json.loads((whole.folder / "genotype.json").read_text())["search"]
    assert SearchConfig.from_json(json.dumps(search["config"])) == CONFIG
    assert search["estimate"]["value"] == estimate.value
    assert search["cost"] == {"table": "odd"}
    assert search["versions"].keys() == {"hmseg"}
    assert search["computed_on"] == [place_of(CPU)]
    for name in ("network.png", "probabilities.png", "cost.png"):
        with Image.open(whole.folder / name) as picture:
            assert len(set(picture.convert("L").tobytes())) > 20


def test_a_package_that_is_not_installed_has_no_version():
    assert _version("torch") == torch.__version__
    assert _version("no-such-package") == "not installed"


def test_training_begins_with_the_network_that_was_found(whole: SearchRun, data: Path):
    file, path = whole.folder / "genotype.json", whole.folder / "inherited.safetensors"
    inherited = Checkpoint.load(path)
    by_line = create_model(inherited.config.model, num_classes=11)
    assert by_line.config == create_model(str(file)).config
    frames = open_dataset("camvid", data, "train")
    trainer = Trainer(
        TrainConfig(inherited.config.model, "camvid", (Stage((64, 64), 2, 1),)),
        InMemory(frames), frames.classes.names,
    )  # fmt: skip
    trainer.begin_with(inherited, path)
    supernet = whole.searcher.supernet.state_dict()
    assert torch.equal(trainer.model.state_dict()["stem.0.weight"], supernet["stem.0.weight"])
    trainer.run(lambda report: None)
    assert trainer.step == 1
    searched, trained = trainer.checkpoint().as_history()
    assert SearchConfig.from_json(json.dumps(searched["search"])) == CONFIG
    assert searched["steps"] == CONFIG.steps
    assert (trained["steps"], trained["images_seen"]) == (1, 2)


def search_until_killed(data: Path, folder: Path) -> None:
    """What the killed process runs: it stops dead after step 5, past the checkpoint of step 4."""
    torch.set_num_threads(int(os.environ["THREADS"]))
    run = make_run(data, folder)

    def stop(report: SearchReport) -> None:
        if report.step == 5:
            print("now", flush=True)
            time.sleep(60)

    run.watch = stop
    run.start(resume=False)


@pytest.mark.usefixtures("undrawn")
def test_killed_and_resumed_ends_with_the_same_bits(data: Path, whole: SearchRun, tmp_path: Path):
    folder = tmp_path / "run"
    code = (
        "from pathlib import Path; from tests.hmseg.search.test_run import search_until_killed;"
        f"search_until_killed(Path({str(data)!r}), Path({str(folder)!r}))"
    )
    environment = os.environ | {"THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    assert child.stdout.readline() == b"now\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert SearchCheckpoint.load(folder / "last.safetensors").step == 4

    resumed = make_run(data, folder)
    resumed.start(resume=True)
    mine, theirs = (SearchCheckpoint.load(run.last) for run in (whole, resumed))
    assert mine.step == theirs.step == 6
    for group in ("weights", "architecture", "optimizer", "arch_optimizer"):
        own, other = getattr(mine, group), getattr(theirs, group)
        assert own.keys() == other.keys()
        assert own
        for name, tensor in own.items():
            assert torch.equal(tensor, other[name]), name
    logs = [
        [{k: v for k, v in r.items() if k not in ("time", "images_per_s")} for r in records]
        for records in (read_records(whole.log), read_records(resumed.log))
    ]
    assert logs[0] == logs[1]
    genotypes = [read_network(run.folder / "genotype.json") for run in (whole, resumed)]
    assert genotypes[0] == genotypes[1]


@pytest.mark.parametrize("config", [SCORE, replace(NEAR, shared=True)])
def test_a_search_with_the_score_estimator_resumes_with_the_same_bits(
    data: Path, tmp_path: Path, config: SearchConfig, request: pytest.FixtureRequest
):
    def interrupt(report: SearchReport) -> None:
        if report.step == 5:  # past the checkpoint of step 4
            raise KeyboardInterrupt

    whole, cut = (make_run(data, tmp_path / name, config) for name in ("whole", "cut"))
    whole.start(resume=False)
    request.getfixturevalue("undrawn")
    cut.watch = interrupt
    with pytest.raises(KeyboardInterrupt):
        cut.start(resume=False)
    resumed = make_run(data, cut.folder, config)
    resumed.start(resume=True)
    mine, theirs = (SearchCheckpoint.load(run.last) for run in (whole, resumed))
    assert mine.step == theirs.step == 6
    assert torch.equal(mine.architecture["logits"], theirs.architecture["logits"])
    assert mine.architecture["logits"].abs().max() > 0
    for name, tensor in mine.weights.items():
        assert torch.equal(tensor, theirs.weights[name]), name
    *before, search = Checkpoint.load(cut.folder / "inherited.safetensors").as_history()
    assert search["search"]["pretrained"] == config.pretrained
    assert search["computed_on"] == [place_of(CPU)]
    if config.pretrained:  # what came before is in the weights' history, after a resume too
        *runs, taken = before
        assert runs == RELEASED.card["runs"]
        assert taken["sha256"] == config.pretrained
    else:
        assert not before


@pytest.fixture(scope="module")
def again(data: Path, whole: SearchRun) -> SearchRun:
    """Another run in the same folder: a refusal changes nothing in it."""
    return make_run(data, whole.folder)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (replace(CONFIG, budget="0.05ms"), "budget: 0.04ms there, 0.05ms here"),
        (replace(CONFIG, recipe=replace(RECIPE, seed=5)), "seed: 4 there, 5 here"),
        (replace(CONFIG, recipe=replace(RECIPE, stages=(Stage((64, 64), 2, 7),))), "stages: "),
        (replace(CONFIG, cost="another table's digest"), "cost: us there, another table's"),
        (replace(CONFIG, warmup_steps=3), "warmup steps: 2 there, 3 here"),
        (replace(NEAR, prior=0.0), "estimator: straight-through there, score here"),
        (replace(CONFIG, prior=0.5), "prior: 0.0 there, 0.5 here"),
        (replace(CONFIG, shared=True), "shared: False there, True here"),
        (SCORE, "estimator: straight-through there, score here"),
    ],
)
def test_resuming_with_other_settings_is_refused_and_says_which(
    again: SearchRun, other: SearchConfig, difference: str
):
    again.searcher.config = other
    with pytest.raises(UserError, match=rf"a search with other settings \({difference}"):
        again.start(resume=True)


def test_a_folder_with_a_search_is_not_overwritten(data: Path, whole: SearchRun):
    before = whole.last.read_bytes()
    with pytest.raises(UserError, match="holds a search: name another folder") as caught:
        make_run(data, whole.folder).start(resume=False)
    assert caught.value.mend == Resume("search", whole.folder)
    assert whole.last.read_bytes() == before


def test_other_checkpoints_are_named(data: Path, whole: SearchRun, tmp_path: Path):
    with pytest.raises(UserError, match="not a checkpoint of a training run"):
        Checkpoint.load(whole.last)
    with pytest.raises(UserError, match="not a checkpoint of a search"):
        SearchCheckpoint.load(whole.folder / "inherited.safetensors")
    with pytest.raises(UserError, match="no such checkpoint"):
        make_run(data, tmp_path / "none").start(resume=True)
