import json

from hmseg import zoo


def test_table(cli):
    done = cli("models").succeeded()
    rows = {line.split()[0]: line.split() for line in done.out.splitlines() if line}
    assert set(zoo.list_models()) <= set(rows)
    assert rows["mrms"][1:3] == ["2.056", "7.327"]
    assert rows["tiny-mrms"][1:3] == ["0.622", "2.801"]
    assert "768x1536" in done.out
    assert done.err == ""


def test_json(cli):
    data = json.loads(cli("models", "--json", "-r", "256x512").succeeded().out)
    assert data["resolution"] == "256x512"
    models = {row["model"]: row for row in data["models"]}
    assert models["mrms"]["parameters"] == 2_055_795
    assert round(models["tiny-mrms"]["macs"] / 1e9, 3) == 0.311


def test_a_bad_resolution(cli):
    done = cli("models", "-r", "256")
    assert (done.code, done.out) == (2, "")
    assert "HEIGHTxWIDTH" in done.error
