"""The gate's tolerance: what it must let pass, and what not, at any scale of the scores."""

import copy

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from deploy.graph import expected as module
from deploy.graph.expected import Expectations, Noise, noise_between, pooled
from deploy.graph.float64_resize import NoTruthError
from deploy.graph.reference import OnnxSession
from deploy.noise import UNIT, Deviation
from deploy.precision import FP32
from deploy.verify import compare
from lut.errors import UserError
from tests.deploy.graphs import model_of

SCALES = (1e-6, 1e-3, 1.0, 1e6)
SHAPE = (32, 48)


def weights(scale: float) -> dict[str, np.ndarray]:
    """Scores are proportional to the scale."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)  # noqa: E731
    found = {
        "w1": draw(24, 3, 3, 3), "b1": rng.normal(0, 0.2, 24), "w2": draw(32, 24, 3, 3),
        "b2": rng.normal(0, 0.2, 32), "w3": draw(7, 32, 1, 1) * scale,
    }  # fmt: skip
    return {name: value.astype(np.float32) for name, value in found.items()}


def network(scale: float, **resize: str) -> onnx.ModelProto:
    """Conv /2 - Relu - Conv /2 - Relu - Resize - Conv 1x1: class scores at half the size."""
    modes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"} | resize
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2", "b2"], ["c"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Resize", ["d", "", "", "sizes"], ["e"], **modes),
        helper.make_node("Conv", ["e", "w3"], ["y"]),
    ]
    height, width = SHAPE[0] // 2, SHAPE[1] // 2
    model = model_of(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 7, height, width])],
        weights(scale) | {"sizes": np.array([1, 32, height, width])},
    )
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def in_torch(scale: float, image: np.ndarray) -> np.ndarray:
    """Another float32 evaluation of it."""
    w = {name: torch.from_numpy(value) for name, value in weights(scale).items()}
    x = F.relu(F.conv2d(torch.from_numpy(image)[None], w["w1"], w["b1"], 2, 1))
    x = F.relu(F.conv2d(x, w["w2"], w["b2"], 2, 1))
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return F.conv2d(x, w["w3"])[0].numpy()


def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "golden": rng.normal(0, 1, (3, *SHAPE)).astype(np.float32),
        "noise": rng.normal(0, 2, (3, *SHAPE)).astype(np.float32),
        "black": np.full((3, *SHAPE), -2, np.float32),
    }


def accepted(expectations: Expectations, outputs: dict[str, np.ndarray]) -> bool:
    return all(
        compare("tvm", name, expectations[name], logits.argmax(0), logits).passed
        for name, logits in outputs.items()
    )


def run(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    session = OnnxSession(model)
    return {name: session.run(image)[0] for name, image in images().items()}


@pytest.fixture(scope="module", params=[1e9, 0], ids=["in double", "without double"])
def expectations(request) -> dict[float, Expectations]:
    return {s: Expectations(network(s), images(), most=request.param) for s in SCALES}


class TestTheVerdict:
    """The same at every scale."""

    def test_a_network_that_is_right_is_accepted(self, expectations):
        for scale in SCALES:
            outputs = {name: in_torch(scale, image) for name, image in images().items()}
            assert accepted(expectations[scale], outputs)

    @pytest.mark.parametrize(("layer", "index"), [("w1", 5), ("w2", 4000), ("w3", 100)])
    def test_one_weight_off_by_a_hundredth_is_refused(self, expectations, layer, index):
        for scale in SCALES:
            wrong = network(scale)
            (tensor,) = (t for t in wrong.graph.initializer if t.name == layer)
            values = numpy_helper.to_array(tensor).copy()
            values.flat[index] *= np.float32(1.01)
            tensor.CopyFrom(numpy_helper.from_array(values, layer))
            assert not accepted(expectations[scale], run(wrong))

    @pytest.mark.parametrize(
        "modes",
        [
            {"coordinate_transformation_mode": "align_corners"},
            {"coordinate_transformation_mode": "asymmetric"},
            {"mode": "nearest"},
            {"mode": "cubic"},
        ],
    )
    def test_a_resize_of_another_mode_is_refused(self, expectations, modes):
        for scale in SCALES:
            assert not accepted(expectations[scale], run(network(scale, **modes)))

    def test_one_wrong_pixel_is_refused(self, expectations):
        for scale in SCALES:
            outputs = {name: in_torch(scale, image) for name, image in images().items()}
            outputs["golden"] = outputs["golden"].copy()
            outputs["golden"][3, -1, -1] += 1e-3 * np.abs(outputs["golden"]).max()
            assert not accepted(expectations[scale], outputs)


class TestExpectations:
    def test_the_noise_follows_the_scores(self, expectations):
        one = expectations[1.0]["golden"].noise
        for scale in SCALES:
            noise = expectations[scale]["golden"].noise
            assert noise.rms == pytest.approx(scale * one.rms, rel=0.3)
            assert noise.largest == pytest.approx(scale * one.largest, rel=0.5)

    def test_the_first_input_is_evaluated_in_double(self, expectations):
        image = images()["golden"]
        model = network(1.0)
        given = {"golden": image, "noise": images()["noise"]}
        truth, scores = (Expectations(model, given, most=m)["golden"].scores for m in (1e9, 0))
        np.testing.assert_array_equal(scores, OnnxSession(model).run(image)[0])
        assert (truth != scores).any()
        np.testing.assert_allclose(truth, scores, atol=1e-5)

    def test_both_evaluations_further_from_the_truth_than_from_each_other(self, monkeypatch):
        """As where both of onnxruntime's sum in the same order."""
        model, given = network(1.0), images()
        near = Expectations(model, given)
        evaluate = module.evaluate

        def shifted(*args):
            truth = evaluate(*args)
            return [truth[0] + 5 * near["golden"].noise.rms]

        monkeypatch.setattr(module, "evaluate", shifted)
        far = Expectations(model, given)
        for name in ("golden", "noise"):
            assert 3 < far[name].noise.rms / near[name].noise.rms < 12

    @pytest.mark.parametrize("fails", [False, True])
    def test_double_that_is_something_else_is_not_believed(self, monkeypatch, fails):
        def wrong(graph, given, names):
            if fails:
                raise NoTruthError("no such operator")
            return [OnnxSession(graph).run_batch(given, names)[0] * 1.001]

        model, given = network(1.0), images()
        without = Expectations(model, given, most=0)
        monkeypatch.setattr(module, "evaluate", wrong)
        found = Expectations(model, given)
        for name in given:
            assert found[name].noise == without[name].noise
            np.testing.assert_array_equal(found[name].scores, without[name].scores)

    def test_an_image_is_looked_at_closer_once(self, monkeypatch):
        """Where onnxruntime is further from the truth there than on the first."""
        model, given = network(1.0), images()
        found = Expectations(model, given)
        before, evaluate = found["black"], module.evaluate

        def shifted(*args):
            truth = evaluate(*args)
            return [truth[0] + 8 * before.noise.rms]

        monkeypatch.setattr(module, "evaluate", shifted)
        assert not found.look_closer("golden")
        assert found.look_closer("black")
        assert not found.look_closer("black")
        after = found["black"]
        assert 4 < after.noise.rms / before.noise.rms < 16
        assert (after.scores != before.scores).any()
        without = Expectations(model, given, most=0)
        assert not without.look_closer("black")

    @pytest.mark.parametrize("share", [0.9, 2])
    def test_two_evaluations_that_stray_alike(self, monkeypatch, share):
        """As group norm makes them on a map without variance: believed up to some roundings."""
        model, given = network(1.0), images()
        found, evaluate = Expectations(model, given), module.evaluate
        size = Deviation.size(found["black"].scores)
        shift = share * size.rms * module.TRUSTED_ROUNDINGS * UNIT
        assert shift > module.TRUST * found["black"].noise.largest
        monkeypatch.setattr(module, "evaluate", lambda *args: [evaluate(*args)[0] + shift])
        assert found.look_closer("black") == (share < 1)

    def test_nan_is_expected_of_nothing(self):
        model = network(np.nan)
        expected = Expectations(model, images())["golden"]
        scores = run(model)["golden"]
        assert not compare("tvm", "golden", expected, scores.argmax(0), scores).passed

    def test_onnxruntime_that_contradicts_itself_is_an_error(self, monkeypatch):
        monkeypatch.setattr(module, "MOST_NOISE", 1e-9)
        with pytest.raises(UserError, match="nothing to compare with"):
            Expectations(network(1.0), images())

    @pytest.mark.parametrize("most", [1e9, 0])
    def test_an_image_on_which_roundings_are_amplified(self, monkeypatch, most):
        """Evaluated in double, or allowed `TRUST` times what onnxruntime shows."""
        model, given = network(1.0), images()
        own = Expectations._seen

        def amplified(self, image):
            seen = own(self, image)
            times = 1000 if image is given["noise"] else 1
            return seen._replace(noise=seen.noise * times)

        monkeypatch.setattr(Expectations, "_seen", amplified)
        without, asked = Expectations(model, given, most), []
        evaluate = module.evaluate

        def shifted(graph, image, names):
            asked.append(image)
            truth = evaluate(graph, image, names)[0]
            return [truth + 1e-3 * (image == given["noise"]).all()]

        monkeypatch.setattr(module, "evaluate", shifted)
        found = Expectations(model, given, most)
        assert len(asked) == (2 if most else 0)
        for name in ("golden", "black"):
            assert found[name].noise == without[name].noise
        seen = amplified(found, given["noise"]).noise
        if most:
            assert found["noise"].noise.rms == pytest.approx(1e-3, rel=0.1)
            assert without["noise"].noise.rms == pytest.approx(seen.rms)
        else:
            assert found["noise"].noise.rms == pytest.approx(module.TRUST * seen.rms)


def test_equal_evaluations_still_have_the_noise_of_a_few_roundings():
    scores = np.array([[[1.0, 2.0, 4.0]]], np.float32)
    noise = noise_between(scores, scores)
    assert noise.largest == 4 * 4 * UNIT
    assert noise.rms == pytest.approx(4 * np.sqrt(7) * UNIT)
    assert noise_between(scores * 0, scores * 0) == Deviation(0, 0)


class TestPooled:
    def of(self, *noises: float, sizes=(1, 1, 1), shape=(4, 4, 3)) -> dict[str, Deviation]:
        """Of three images, the last of one colour; the largest error is twice the mean."""
        many = np.random.default_rng(0).integers(0, 9, (4, 4, 3))
        colour = np.array([1, 2, 3]).reshape([3 if side == 3 else 1 for side in shape])
        found = {
            name: Noise(Deviation(n, 2 * n), Deviation(s, s))
            for name, n, s in zip("abc", noises, sizes, strict=True)
        }
        return pooled(found, {"a": many, "b": many, "c": np.broadcast_to(colour, shape)})

    @pytest.mark.parametrize("shape", [(4, 4, 3), (3, 4, 4)])
    def test_an_image_of_one_colour_has_no_mean(self, shape):
        found = self.of(1, 1, 1, sizes=(99, 99, 99), shape=shape)
        assert found == {"a": Deviation(1, 2), "b": Deviation(1, 2), "c": Deviation(2, 2)}

    def test_one_of_one_colour_is_not_believed_to_have_little(self):
        found = self.of(2, 3, 0.1, sizes=(100, 100, 100))
        assert found == {"a": Deviation(2, 4), "b": Deviation(3, 6), "c": Deviation(4, 4)}
        # Of scores that are small, the share of the scores.
        found = self.of(2, 3, 1e-5, sizes=(100, 100, 1e-2))
        assert found["c"].rms == pytest.approx(2 * 2e-2 * 1e-2)

    def test_it_is_a_share_of_the_scores_at_most(self):
        found = self.of(1e-6, 1e-4, 5.0)
        assert found["c"].rms == module.MOST_NOISE
        with pytest.raises(UserError, match="more than 12% on every image"):
            self.of(0.2, 0.3, 0.4)


def test_what_is_allowed_is_a_multiple():
    noise = Deviation(1e-6, 1e-5)
    allowed = FP32.allowed(noise, 1.0)
    assert noise.rms < allowed.rms < 10 * noise.rms
    assert noise.largest < allowed.largest < 10 * noise.largest
    assert FP32.allowed(None, 7.0).largest == 7 * FP32.relative_tolerance


def test_nothing_is_changed():
    model = network(1.0)
    before = copy.deepcopy(model)
    Expectations(model, images())
    assert model == before


def quantised(scale: float) -> onnx.ModelProto:
    """`network` with its second map in steps of 1/64, so that a rounding may be a whole step."""
    model = network(scale)
    conv = next(node for node in model.graph.node if list(node.output) == ["c"])
    steps = {"steps": np.float32([64]), "step": np.float32([1 / 64])}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in steps.items())
    conv.input[0] = "stepped"
    nodes = [
        helper.make_node("Mul", ["b", "steps"], ["many"]),
        helper.make_node("Round", ["many"], ["whole"]),
        helper.make_node("Mul", ["whole", "step"], ["stepped"]),
    ]
    for number, node in enumerate(nodes, 2):
        model.graph.node.insert(number, node)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def test_what_may_jump_before_the_scores_is_seen():
    assert module.jumps(quantised(1.0))
    assert not module.jumps(network(1.0))
    beside = network(1.0)  # a decision behind the scores is none before them
    beside.graph.node.append(helper.make_node("ArgMax", ["y"], ["labels"], axis=1))
    assert not module.jumps(beside)


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_a_few_jumps_of_a_network_in_steps_are_noise_on_every_image(monkeypatch, scale, heavy):
    """Another float32 evaluation, with its own jumps, passes; a channel off by a fifth does not:
    also where there are fewer evaluations, as each takes long."""
    if heavy:
        monkeypatch.setattr(module, "HEAVY_MULTIPLY_ADDS", 0)
    model, given = quantised(scale), images()
    expectations = Expectations(model, given)
    other, wrong = copy.deepcopy(model), copy.deepcopy(model)
    for changed, factor in ((other, 1 + 2 * UNIT), (wrong, 1.2)):
        tensor = next(t for t in changed.graph.initializer if t.name == "w1")
        values = numpy_helper.to_array(tensor).copy()
        values[3] *= np.float32(factor)
        tensor.CopyFrom(numpy_helper.from_array(values, "w1"))
    for name, image in given.items():
        expected = expectations[name]
        for changed, verdict in ((other, True), (wrong, False)):
            scores = OnnxSession(changed).run_batch(image[None])[0][0]
            found = Deviation.between(scores, expected.scores)
            peak = Deviation.size(expected.scores).largest
            assert found.within(FP32.allowed(expected.noise, peak)) == verdict, name


def test_what_takes_onnxruntime_a_second_is_heavy():
    graph = network(1.0)
    many = module.multiply_adds(graph)
    assert not module.is_heavy(graph)
    # As many rows and columns: the multiply-adds grow with the area.
    for value in (*graph.graph.value_info, *graph.graph.output, *graph.graph.input):
        for size in value.type.tensor_type.shape.dim[2:]:
            size.dim_value *= int((module.HEAVY_MULTIPLY_ADDS / many) ** 0.5) + 1
    assert module.is_heavy(graph)
    graph.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "rows"
    del graph.graph.value_info[:]
    assert not module.is_heavy(graph)  # who knows


def test_of_several_evaluations_of_a_graph_that_jumps_the_furthest_counts():
    """A number lies some roundings away from where it becomes another: weights that are off by more
    of them are off enough."""
    near = np.float32(0.5 * (1 + 24 * UNIT)) * np.ones((1, 1, 4, 4), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("Round", ["y"], ["scores"]),
    ]
    ends = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, near.shape)] for n in ("x", "scores")
    ]
    graph = model_of(nodes, *ends, {"w": np.ones((1, 1, 1, 1), np.float32)})
    found, other = module.TwoSessions(graph, jumps=True).run(near)
    assert (found[0] == 1).all()
    assert (other[0] == 0).all()  # the fourth, by up to 64 roundings
    found, other = module.TwoSessions(graph).run(near)
    np.testing.assert_array_equal(found[0], other[0])
