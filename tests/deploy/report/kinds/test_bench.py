import pytest

from deploy.report.kinds.bench import KIND
from lut.errors import UserError
from tests.deploy.report.kinds.reading import result, section
from tests.deploy.report.samples import PROFILE, bench_json


def test_figures_and_what_is_said_of_them():
    text = section(KIND, bench_json())
    for words in (
        "tiny-hmseg 64x128, 2 threads", "<code>a.json</code>", "a CPU, x86_64",
        "the file names no versions and no date", "3.00 [3.00..3.00]",
        "hmseg: median 1.100 ms, fastest 1.000", "onnxruntime, round 3: median 3.300 ms",
        "the time includes the copy of the image in", "TensorRT is not timed: there is no GPU",
        "onnxruntime: 0.0100% of the labels differ from hmseg&#x27;s",
        '<td class="number" data-value="80.0">80</td>',
    ):  # fmt: skip
        assert words in text, words
    assert "EMULATED" not in text


def test_an_emulated_machine_is_marked():
    data = bench_json()
    data["machine"] = data["machine"] | {"emulated": True}
    assert "<strong>EMULATED" in section(KIND, data)


def test_a_profile_inside():
    assert "A frame takes 2.000 ms" in section(KIND, bench_json(PROFILE))


def test_several_files_have_a_table_in_common():
    one = result(KIND, bench_json())
    other = result(KIND, bench_json() | {"model": "other", "ratios": {}}, name="b.json")
    text = KIND.draw([one, other])
    assert "<td>b.json</td><td>other 64x128, 2 threads</td>" in text
    assert text.index("onnxruntime / hmseg") < text.index("<article>")


def test_a_gpu_has_no_threads():
    assert result(KIND, bench_json() | {"threads": 0}).source.what == "tiny-hmseg 64x128"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, "'model' is 3, not a text"),
        ({"samples_ns": {"hmseg": []}}, "samples, round by round"),
        ({"machine": {}}, "machine: 'machine' is missing"),
        ({"ratios": {"x": {"median": 1, "low": 1, "high": 1}}}, "ratios: x: 'rounds' is missing"),
        ({"profile": {"kernels": {}}}, "profile: "),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(UserError, match=message):
        result(KIND, bench_json() | change)
