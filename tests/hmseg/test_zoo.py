import random
import subprocess
import sys

import pytest

import hmseg
from hmseg import zoo
from hmseg.families import list_networks
from hmseg.families.fast_scnn import FastSCNN
from hmseg.genotype import random_genotype
from hmseg.mend import Resume
from hmseg.mrms import MRMSConfig
from hmseg.network_file import add_measurement, write_network
from lut.errors import UserError


def test_names():
    assert {"mrms", "tiny-mrms", "mrms-a", "mrms-b", "mrms-c"} <= set(hmseg.list_models())


def test_unknown_name_says_the_nearest():
    with pytest.raises(UserError, match="did you mean tiny-mrms"):
        hmseg.create_model("tinymrms")


def test_the_peers_come_by_the_same_door():
    assert set(list_networks()) | set(zoo.list_own()) == set(hmseg.list_models())
    model = hmseg.create_model("fast-scnn", num_classes=5)
    assert isinstance(model, FastSCNN)
    assert model.training
    assert model.classify[-1].out_channels == 5
    assert hmseg.create_model("fast-scnn").classify[-1].out_channels == 19
    with pytest.raises(UserError, match="did you mean bisenetv1-x39"):
        hmseg.create_model("bisenetv1-x38")
    with pytest.raises(UserError, match="num_classes is 1; labels are uint8"):
        hmseg.create_model("fast-scnn", num_classes=1)
    with pytest.raises(UserError, match="no 'camvid' weights of fast-scnn"):
        hmseg.create_model("fast-scnn", pretrained="camvid")
    with pytest.raises(UserError, match="fast-scnn is not of our search space: choose one of mrms"):
        zoo.network_config("fast-scnn")


def test_a_name_is_registered_once():
    with pytest.raises(UserError, match="registered"):
        zoo.register("mrms", MRMSConfig(), "again")


def test_weights_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="imagenet"):
        hmseg.create_model("tiny-mrms", pretrained="imagenet")


def test_importing_hmseg_does_not_import_torch():
    code = "import sys, hmseg; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_attribute():
    with pytest.raises(AttributeError):
        _ = hmseg.nothing


def test_what_the_search_found_is_registered_by_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_ENTRIES", dict(zoo._ENTRIES))
    search = {"config": {"budget": "1.7ms"}}
    genotype = random_genotype(random.Random(2))
    write_network(tmp_path / "small-hmseg.json", genotype, 0.5, 11, search)
    with pytest.raises(UserError, match=r"small-hmseg\.json: not measured") as caught:
        zoo.register_found(tmp_path)
    assert caught.value.mend == Resume("search", tmp_path)
    add_measurement(tmp_path / "small-hmseg.json", {"measured_us": 1650.0})
    zoo.register_found(tmp_path)
    assert zoo.entry("small-hmseg").config == MRMSConfig(genotype, 0.5)
    assert zoo.entry("small-hmseg").summary == "found by the search within 1.7ms"
    write_network(tmp_path / "mine.json", genotype, 0.5, 11, search)
    with pytest.raises(UserError, match="names of found networks end in hmseg"):
        zoo.register_found(tmp_path)


def test_a_network_by_its_file_and_by_its_line(tmp_path):
    genotype, path = random_genotype(random.Random(3)), tmp_path / "genotype.json"
    write_network(path, genotype, 0.5, 11, {})
    by_file = zoo.create_model(str(path))
    assert by_file.config == MRMSConfig(genotype, 0.5, 11)
    line = zoo.lasting_name(str(path))
    assert zoo.create_model(line, num_classes=11).config == by_file.config
    assert zoo.lasting_name(line) == line
    assert zoo.lasting_name("tiny-mrms") == "tiny-mrms"
    for text in ("width 0.7 | s1 e1k3", "width 0.5 | s1"):
        with pytest.raises(UserError, match=r"not a network|genotype: expected"):
            zoo.create_model(text)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"genotype\.json: not a text file"):
        zoo.create_model(str(path))
    with pytest.raises(UserError, match="no such file"):
        zoo.create_model(str(tmp_path / "none.json"))
