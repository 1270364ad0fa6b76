import json

from hmseg import zoo


def test_table(cli):
    done = cli("models").succeeded()
    rows = {line.split()[0]: line.split() for line in done.out.splitlines() if line}
    assert set(zoo.list_models()) <= set(rows)
    assert rows["mrms"][1:3] == ["2.056", "7.327"]
    assert rows["tiny-mrms"][1:3] == ["0.622", "2.801"]
    assert rows["fast-scnn"][1:3] == ["1.138", "3.774"]
    own, _, peers = done.out.partition("Peers")
    assert "tiny-mrms" in own
    assert "bisenetv1-x39" not in own
    assert "without released weights" in peers
    assert "768x1536" in done.out
    assert done.err == ""


def test_an_unknown_model(cli):
    done = cli("models", "fastscnn")
    assert (done.code, done.out) == (2, "")
    assert "did you mean fast-scnn" in done.error


def test_json(cli):
    names = ("mrms", "tiny-mrms", "fast-scnn")
    data = json.loads(cli("models", *names, "--json", "-r", "256x512").succeeded().out)
    assert data["resolution"] == "256x512"
    models = {row["model"]: row for row in data["models"]}
    assert tuple(models) == names
    assert models["fast-scnn"]["group"] == "peers"
    assert models["fast-scnn"]["summary"] == "Fast-SCNN (Poudel et al., 2019)"
    assert models["mrms"]["group"] == "own"
    assert models["mrms"]["parameters"] == 2_055_795
    assert round(models["tiny-mrms"]["macs"] / 1e9, 3) == 0.311


def test_a_bad_resolution(cli):
    done = cli("models", "-r", "256")
    assert (done.code, done.out) == (2, "")
    assert "HEIGHTxWIDTH" in done.error
