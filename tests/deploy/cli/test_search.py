"""`hmseg search` as a user types it: found, measured, trained, and every mistake."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.measure.local import LocalDevice
from deploy.measure.rounds import VisitProtocol
from deploy.tables.build import provenance_of
from deploy.tables.schedules import schedules_of
from deploy.target import Target
from hmseg.genotype import MRMS_GENOTYPE, random_genotype
from hmseg.network_file import read_network, read_search, write_network
from hmseg.operators import Space
from hmseg.pretrained import load_released
from hmseg.train.checkpoint import Checkpoint
from lut.table_file import load_table, save_table
from tests.conditions import KERNELS, LITE0
from tests.deploy.cli.conftest import hmseg
from tests.hmseg.data.folders import make_camvid, make_cityscapes
from tests.lut.tables import IDENTITY, table, visit

SEARCH = ("search", "--stage", "64x64:2:3", "--warmup", "0.34", "--threads", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture(scope="module")
def found(data: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("runs") / "search"
    return folder, hmseg(*SEARCH, "--data", data, "-o", folder, "--budget", "0.3GMACs", "--json")


def test_search_leaves_a_whole_folder(found):
    folder, done = found
    assert done.code == 0, done.err
    report = json.loads(done.out)
    genotype, width, classes = read_network(folder / "genotype.json")
    assert report["genotype"] == str(genotype)
    assert (width, classes) == (0.5, 11)
    assert report["estimate"]["value"] <= 0.3e9
    assert report["measured"] is None  # MACs have no table
    assert "about 0 min left" in done.err
    for name in ("last.safetensors", "inherited.safetensors", "log.jsonl", "network.png",
                 "probabilities.png", "cost.png"):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name


def test_the_network_found_is_trained_and_evaluated(found, data: Path, tmp_path: Path):
    folder, _ = found
    moved = folder / "genotype.json"
    done = hmseg(
        "train", "--data", data, "-o", tmp_path / "run", "--model", moved, "--begin-with",
        folder / "inherited.safetensors", "--stage", "64x96:4:1", "--threads", "1",
    )  # fmt: skip
    assert done.code == 0, done.err
    # The checkpoint needs no genotype file beside it.
    best = tmp_path / "run" / "best.safetensors"
    hidden = moved.rename(folder / "elsewhere")
    try:
        evaluated = hmseg("eval", best, "--data", data, "--json")
    finally:
        hidden.rename(moved)
    assert evaluated.code == 0, evaluated.err
    assert 0 <= json.loads(evaluated.out)["miou"] <= 1


@pytest.mark.usefixtures("undrawn")
def test_resuming_a_finished_search_finds_the_same(found, data: Path):
    folder, done = found
    again = hmseg(*SEARCH, "--data", data, "-o", folder, "--budget", "0.3GMACs", "--resume",
                  "--json")  # fmt: skip
    assert again.code == 0, again.err
    assert json.loads(again.out) == json.loads(done.out)


def test_it_begins_with_the_released_weights(data: Path, tmp_path: Path, request):
    arguments = (*SEARCH, "--data", data, "-o", tmp_path, "--budget", "0.3GMACs", "--prior", "0.8",
                 "--share-weights", "--precision", "bfloat16", "--json")  # fmt: skip
    done = hmseg(*arguments, "--pretrained")
    assert done.code == 0, done.err
    search = read_search(tmp_path / "genotype.json")["config"]
    card = load_released("tiny-mrms", "camvid").card
    assert (search["pretrained"], search["prior"]) == (card["sha256"], 0.8)
    assert (search["shared"], search["recipe"]["precision"]) == (True, "bfloat16")
    found = json.loads(done.out)
    assert found["is_the_model"] == (found["genotype"] == str(MRMS_GENOTYPE))
    only = hmseg(*SEARCH, "--data", data, "-o", tmp_path / "one", "--budget", "1GMACs",
                 "--space", "depth", "--prior", "0.999", "--no-measure")  # fmt: skip
    assert str(MRMS_GENOTYPE) in only.err
    assert "that is the network of --model itself" in only.err
    *runs, taken, _ = Checkpoint.load(tmp_path / "inherited.safetensors").as_history()
    assert (runs, taken["released"]) == (card["runs"], "tiny-mrms")
    request.getfixturevalue("undrawn")
    again = hmseg(*arguments, "--pretrained", "--resume")
    assert json.loads(again.out) == json.loads(done.out)
    other = hmseg(*arguments, "--resume")
    assert (other.code, "a search with other settings" in other.err) == (2, True)


@LITE0.mark
def test_it_begins_with_lite0_learns_from_a_teacher_and_is_refined(
    found, data, tmp_path: Path, request
):
    teacher = found[0] / "inherited.safetensors"
    arguments = (*SEARCH, "--data", data, "-o", tmp_path, "--budget", "0.3GMACs", "--init", "lite0",
                 "--backbone-rate", "0.33", "--teacher", teacher, "--soft-weight", "0.5",
                 "--refine", "evolution", "--population", "2", "--generations", "2",
                 "--batches", "1", "--json")  # fmt: skip
    done = hmseg(*arguments)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["refinement"]["evaluated"] == 4
    assert report["estimate"]["value"] <= 0.3e9
    assert "network 4 of 4: mIoU " in done.err
    assert "about 0 min left" in done.err
    config = read_search(tmp_path / "genotype.json")["config"]
    assert config["init"].startswith("lite0 ")
    assert (config["recipe"]["soft_weight"], config["recipe"]["backbone_rate"]) == (0.5, 0.33)
    lite0, taught, _ = Checkpoint.load(tmp_path / "inherited.safetensors").as_history()
    assert (lite0["init"], taught["sha256"]) == ("lite0", config["recipe"]["teacher"].split()[-1])
    request.getfixturevalue("undrawn")
    again = hmseg(*arguments, "--resume")
    assert json.loads(again.out) == report


def edited(path: Path, change) -> Path:
    write_network(path, MRMS_GENOTYPE, 0.5, 11, {})
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    return path


def unknown(fields: dict) -> None:
    fields["ops"]["s3"][1] = "e4k3"


def illegal(fields: dict) -> None:
    fields["ops"]["s2"][0] = "skip"


def wide(fields: dict) -> None:
    fields["width"] = 0.75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "{out}", "--budget", "fast"), "budget 'fast': write a latency, MACs or"),
        (("-o", "{out}", "--budget", "1ms"),
         "table: --cost TABLE.jsonl names one, hmseg-deploy lut build makes one"),
        (("-o", "{out}", "--budget", "1ms", "--cost", "{out}/no.jsonl"), "no such table"),
        (("-o", "{out}", "--budget", "0.01GMACs"),
         "nothing in this space meets it; its networks take"),
        (("-o", "{out}", "--budget", "1M", "--space", "width"), "unknown dimension 'width'"),
        (("-o", "{out}", "--budget", "1M", "--model", "mrms-a"), "at the width of tiny-mrms or"),
        (("-o", "{out}", "--budget", "1M", "--estimator", "guess"), "unknown estimator 'guess'"),
        (("-o", "{out}", "--budget", "1M", "--warmup", "1"), "warmup 1: the share must be at"),
        (("-o", "{out}", "--budget", "1M", "--warmup", "nan"), "warmup nan: the share must be"),
        (("-o", "{out}", "--budget", "1M", "--prior", "1"), "prior 1: a probability must be at"),
        (("-o", "{out}", "--budget", "1M", "--data", "{city}", "--dataset", "cityscapes",
          "--pretrained"), "or train them: hmseg train --model tiny-mrms --dataset cityscapes"),
        (("-o", "{out}", "--budget", "1M", "--init", "x"), "unknown initialisation 'x': there"),
        (("-o", "{out}", "--budget", "1M", "--soft-weight", "2"), "of a teacher: name one, or"),
        (("-o", "{out}", "--budget", "1M", "--refine", "x"), "--refine x: there is evolution"),
        (("-o", "{out}", "--budget", "1M", "--leaders", "2"), "need --refine evolution"),
        (("-o", "{out}", "--budget", "1M", "--stage", "64x64:5:1"), "has 4 images, too few"),
        (("-o", "{run}", "--budget", "1M"), "or go on with it: hmseg search --resume"),
        (("-o", "{run}", "--budget", "1M", "--resume"), "a search with other settings"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_2(found, data, tmp_path, arguments, message):
    city = make_cityscapes(tmp_path / "city")
    places = {"out": tmp_path / "out", "run": found[0], "city": city}
    done = hmseg(*SEARCH, "--data", data, *(argument.format(**places) for argument in arguments))
    assert done.code == 2
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown, "unknown operator e4k3 in s3"),
        (illegal, "the first layer of s2 changes the shape and cannot be skipped"),
        (wide, "the width is 0.75, not 0.5 or 1.0"),
    ],
)
def test_a_wrong_genotype_file_is_one_line_and_exit_2(data: Path, tmp_path: Path, change, message):
    path = edited(tmp_path / "genotype.json", change)
    done = hmseg("train", "--data", data, "-o", tmp_path / "run", "--model", path)
    assert done.code == 2
    assert f"{path}: genotype: {message}" in done.err
    assert done.err.count("\n") == 1


@pytest.fixture(scope="module")
def made_up_once(cpu: Target, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete table of this machine in which every entry takes 5 to 6 us."""
    KERNELS.require()
    space, rng = Space((64, 64), 0.5), random.Random(9)
    calibration = [
        visit(str(g), {key: 5.5 for key in set(space.keys(g))}, role="calibration",
              whole=5.5 * len(space.keys(g)) + rng.random())
        for g in (random_genotype(rng) for _ in range(6))
    ]  # fmt: skip
    identity = replace(IDENTITY, target=cpu.key, resolution="64x64")
    provenance = provenance_of(
        LocalDevice(2).info, cpu, schedules_of(space, cpu, 2), VisitProtocol()
    )
    entries = {key: 5 + rng.random() for key in space.all_keys()}
    path = tmp_path_factory.mktemp("table") / "t.jsonl"
    made = table(visit("e", entries), *calibration, identity=identity, provenance=provenance)
    save_table(made, path)
    return path


@pytest.fixture
def made_up(made_up_once: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change."""
    return Path(shutil.copy(made_up_once, tmp_path))


def test_the_network_found_is_compiled_and_measured(made_up: Path, data: Path, tmp_path: Path):
    arguments = (*SEARCH, "--data", data, "--cost", made_up, "--budget", "0.2ms")
    done = hmseg(*arguments, "-o", tmp_path / "a")
    assert done.code == 0, done.err
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines() if "ms" in line)
    assert {"estimate", "measured"} <= set(lines)
    assert float(lines["estimate"].removesuffix("ms")) <= 0.2
    assert float(lines["measured"].removesuffix("ms")) > 0
    search = json.loads((tmp_path / "a" / "genotype.json").read_text())["search"]
    assert search["cost"]["identity"]["resolution"] == "64x64"
    assert len(search["cost"]["sha256"]) == 64
    measured = search["measured"]
    assert len(measured["occasions_us"]) == 5
    assert measured["measured_us"] == sorted(measured["occasions_us"])[2]
    assert measured["error"] == pytest.approx(
        search["estimate"]["value"] / measured["measured_us"] - 1
    )
    assert float(lines["measured"].removesuffix("ms")) == pytest.approx(
        measured["measured_us"] / 1e3, abs=1e-3
    )
    assert search["estimate"]["upper"] <= 200
    assert f"{made_up} was measured on now; its estimates may be off" in done.err
    assert f"hmseg-deploy lut calibrate {made_up} -o CALIBRATED.jsonl" in done.err
    # A search is not another's because its table was moved, but because it says something else.
    with made_up.open("a") as file:
        file.write(made_up.read_text().splitlines()[-1] + "\n")
    changed = hmseg(*arguments, "-o", tmp_path / "a", "--resume")
    assert (changed.code, "a search with other settings" in changed.err) == (2, True)


@pytest.mark.usefixtures("undrawn")
def test_a_table_of_another_machine_is_refused_before_the_search(
    made_up: Path, data: Path, tmp_path: Path
):
    read = load_table(made_up)
    ((provenance, visits),) = read.runs
    save_table(replace(read, runs=((replace(provenance, cpu="A CPU"), visits),)), made_up)
    arguments = (*SEARCH, "--data", data, "--cost", made_up, "--budget", "0.2ms")
    done = hmseg(*arguments, "-o", tmp_path / "a")
    assert done.code == 2
    assert "cannot be checked here and now" in done.err
    assert "or search with --no-measure" in done.err
    assert not (tmp_path / "a").exists()
    assert hmseg(*arguments, "-o", tmp_path / "a", "--no-measure").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--resolution", "64x128"), "--resolution 64x128 --width 0.5"),
        (("--model", "mrms"), "--resolution 64x64 --width 1 "),
    ],
)
def test_a_table_of_other_networks_names_the_command(made_up, data, tmp_path, options, message):
    done = hmseg(*SEARCH, "--data", data, "-o", tmp_path / "a", "--cost", made_up, "--budget",
                 "1ms", *options)  # fmt: skip
    assert done.code == 2
    assert "is for other networks than these" in done.err
    assert f"hmseg-deploy lut build --target cpu {message}" in done.err
