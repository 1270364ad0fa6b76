import pytest

from deploy.report.kinds.training import KIND
from lut.errors import UserError
from tests.deploy.report.kinds.reading import result, section

STEP = {"step": 20, "loss": 2.5, "learning_rate": 0.1, "trainer_images_per_s": 8.0,
        "loader_images_per_s": 9.0, "waited_share": 0.1,
        "time": "2026-11-23T03:48:59+0000"}  # fmt: skip
MIOU = {"step": 40, "miou": 0.5, "iou": {"road": 0.75, "pole": 0.25, "void": None}, "time": "later"}
BEST = MIOU | {"step": 60, "miou": 0.625, "iou": {"road": 1.0, "pole": 0.25, "void": None}}
LAST = MIOU | {"step": 80, "miou": 0.6}
LOG = (STEP, MIOU, BEST, LAST)


def test_the_best_evaluation_counts():
    text = section(KIND, *LOG, name="runs/a/log.jsonl")
    assert '<td class="number" data-value="0.625">62.50%</td>' in text
    assert '<td>road</td><td class="number" data-value="1.0">100.0%</td>' in text
    assert ">void<" not in text
    assert "runs/a, step 80: 60" in text
    assert "2026-11-23 03:48 to later" in text


def test_runs_are_in_one_picture():
    runs = [result(KIND, *LOG, name="a/log.jsonl"), result(KIND, STEP, name="b.jsonl")]
    text = KIND.draw(runs)
    assert text.count("<figure") == 2
    assert [text.count(f"</svg>{name}</li>") for name in "ab"] == [1, 1]  # no mIoU of b
    assert "<td>b.jsonl</td>" in text


def test_what_is_wrong_is_named():
    with pytest.raises(UserError, match="line 2: 'loss' is nan, not a number"):
        result(KIND, STEP, STEP | {"loss": float("nan")})
