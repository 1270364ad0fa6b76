from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from deploy.graph.ends import with_logits_output
from deploy.graph.expected import Expectations, Expected
from deploy.noise import Deviation
from deploy.precision import BF16, FP16, FP32
from deploy.resolution import Resolution
from deploy.runtime import load, open_artifact
from deploy.verify import (
    Comparison,
    compare,
    probe_images,
    replay_golden,
    require,
    verify_network,
    verify_torch,
)
from lut.errors import WorkError
from tests.deploy.graphs import SIZE, photo


def scores(*planes: float) -> np.ndarray:
    """Class scores (K, 2, 2), the same at every pixel."""
    return np.array(planes, np.float32).reshape(-1, 1, 1).repeat(2, 1).repeat(2, 2)


def labels_of(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(0).astype(np.uint8)


NOISE = Deviation(rms=1e-6, largest=3e-6)
ALLOWED = FP32.allowed(NOISE, 1)


def compared(
    reference: np.ndarray, logits: np.ndarray, labels: np.ndarray | None = None,
    threshold: float | None = None,
) -> Comparison:  # fmt: skip
    found = labels_of(logits) if labels is None else labels
    return compare("tvm", "noise", Expected(reference, NOISE), found, logits, threshold=threshold)


class TestCompare:
    def test_equal(self):
        result = compared(scores(1, 2, 3), scores(1, 2, 3))
        assert result.passed
        assert (result.max_logit_error, result.rms_error, result.differing_share) == (0, 0, 0)

    def test_the_tolerance_is_a_multiple_of_the_noise_whatever_the_scores_are(self):
        for size in (1e-6, 1.0, 1e6):
            result = compared(scores(0, size), scores(0, size))
            assert (result.tolerance, result.rms_tolerance) == (ALLOWED.largest, ALLOWED.rms)
            assert (result.noise, result.rms_noise) == (NOISE.largest, NOISE.rms)

    def test_a_small_error_everywhere_is_found_by_the_mean(self):
        error = 1.1 * ALLOWED.rms
        assert error < ALLOWED.largest
        result = compared(scores(0, 1), scores(error, 1 + error).astype(np.float64))
        assert result.max_logit_error < result.tolerance
        assert not result.passed

    def test_an_error_in_one_place_is_found_by_the_largest(self):
        reference = np.zeros((2, 300, 300))
        wrong = reference.copy()
        wrong[0, 299, 7] = 1.1 * ALLOWED.largest
        result = compared(reference, wrong)
        assert result.rms_error < result.rms_tolerance
        assert not result.passed

    def test_fp16_is_allowed_a_share_of_the_largest_score(self):
        for size in (1e-5, 100.0):
            reference = scores(0, size)
            labels = labels_of(reference)
            near, too_far = (
                compare("tvm", "noise", Expected(reference, NOISE), labels, scores(0, score), FP16)
                for score in (1.03 * size, 1.04 * size)
            )
            assert near.tolerance == pytest.approx(size * FP16.relative_tolerance)
            assert near.passed
            assert not too_far.passed

    def test_bf16_is_judged_by_labels_that_are_no_tie(self):
        """99% of them must be equal; and labels must be those of the side's own scores."""
        noise = Deviation(rms=0.05, largest=0.2)
        reference = np.zeros((2, 100, 100))
        reference[1] = 1
        reference[1, 0, :50] = 2.1 * noise.rms  # no tie
        reference[1, 1:3] = 1.9 * noise.rms  # a tie
        for wrong, passed in ((50, True), (100, True), (101, False)):
            scores, flipped = reference.copy(), np.zeros((100, 100), bool)
            flipped[1:3] = True
            flipped.flat[:50], flipped.flat[500 : 500 + wrong - 50] = True, True
            scores[0][flipped] = scores[1][flipped] + 1e-3
            found = compare("tvm", "noise", Expected(reference, Deviation(1, 1)), labels_of(scores),
                            scores, BF16)  # fmt: skip
            assert found.unexplained_share == 0  # with so much noise all are ties
            found = compare(
                "tvm", "noise", Expected(reference, noise), labels_of(scores), scores, BF16
            )
            assert found.unexplained_share == wrong / 10_000
            assert found.unexplained_allowed == 0.01
            assert (found.unexplained_share <= found.unexplained_allowed) == passed
        labels = labels_of(reference)
        labels[50, 50] = 0  # one wrong label of scores that are right
        found = compare("tvm", "noise", Expected(reference, noise), labels, reference, BF16)
        assert (found.stray_share, found.passed) == (1e-4, False)
        with pytest.raises(WorkError, match=r"not those of its own scores, in 0\.010%"):
            require([found])

    def test_a_wrong_kernel_breaks_the_bound_on_scores_in_bf16(self):
        noise, reference = Deviation(rms=0.01, largest=0.04), scores(0, 1)
        for error, passed in ((0.019, True), (0.021, False)):
            moved = reference + np.float32(error)
            found = compare(
                "tvm", "noise", Expected(reference, noise), labels_of(moved), moved, BF16
            )
            assert found.passed == passed, found

    def test_a_label_may_differ_where_the_reference_is_undecided(self):
        reference, close = scores(1, 1 + 1e-6), scores(1 + 1e-6, 1)
        result = compared(reference, close)
        assert result.passed
        assert result.differing_share == 1
        assert result.unexplained_share == 0

    def test_a_label_that_differs_by_more_fails_even_where_scores_agree(self):
        """Then the arg max is wrong: scores alone do not show it."""
        for size in (1e-3, 1.0):
            reference = scores(size, 2 * size, 3 * size)
            labels = labels_of(reference)
            labels[0, 1] = 1
            result = compared(reference, reference, labels)
            assert not result.passed
            assert result.max_logit_error == 0
            assert result.differing_share == result.unexplained_share == 0.25

    def test_a_label_of_no_class_fails(self):
        reference = scores(1, 1)
        labels = np.full((2, 2), 255, np.uint8)
        assert compared(reference, reference, labels).unexplained_share == 1

    @pytest.mark.parametrize("classes", [1, 2])
    def test_a_mask_may_differ_where_its_score_is_at_the_threshold(self, classes):
        reference = scores(*[0.5] * classes)
        reference[0, 0, 0] += 0.9 * ALLOWED.largest
        reference[0, 1, 1] += 1.1 * ALLOWED.largest + 1e-7
        masks = np.zeros((2, 2) if classes == 1 else (2, 2, 2), np.uint8)
        result = compared(reference, reference, masks, threshold=0.5)
        assert result.differing_share == 2 / reference.size
        assert result.unexplained_share == 1 / reference.size
        found = (reference > 0.5).reshape(masks.shape)
        assert compared(reference, reference, found, threshold=0.5).passed

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_nan_never_passes_and_infinity_only_where_it_is_expected(self, value):
        wrong = scores(1, 2)
        wrong[1, 0, 0] = value
        assert not compared(scores(1, 2), wrong).passed
        assert not compared(wrong, scores(1, 2)).passed
        assert compared(wrong, wrong).passed == np.isinf(value)

    def test_json(self):
        json = compared(scores(1, 2), scores(1, 2)).to_json()
        assert json["passed"] is True
        assert set(json) == {
            "side", "image", "max_logit_error", "tolerance", "differing_share",
            "unexplained_share", "noise", "rms_error", "rms_tolerance", "rms_noise", "passed",
            "unexplained_allowed", "stray_share",
        }  # fmt: skip


def comparison(error: float, image: str = "noise", **more: float) -> Comparison:
    return Comparison("tvm", image, error, 1e-4, 0.25, 0, **more)


def test_require_names_the_worst():
    require([comparison(0), comparison(1e-5)])
    with pytest.raises(WorkError, match=r"on the black image: logit error 0\.5 .*25\.000%"):
        require([comparison(0), comparison(0.1), comparison(0.5, "black")])
    with pytest.raises(WorkError, match="white image: logit error nan"):
        require([comparison(9.0), comparison(np.nan, "white")])
    with pytest.raises(WorkError, match="black image: root mean square logit error 2 "):
        require([comparison(0.1), comparison(0, "black", rms_error=2, rms_tolerance=1e-4)])


def test_probe_images_differ_and_are_the_same_every_time():
    golden = photo(Resolution(75, 125))
    images = probe_images(Resolution(75, 125), golden)
    again = probe_images(Resolution(75, 125), golden)
    assert len(images) >= 5
    for name, image in images.items():
        assert (image.dtype, image.shape) == (np.uint8, (75, 125, 3))
        np.testing.assert_array_equal(image, again[name])
    assert len({image.tobytes() for image in images.values()}) == len(images)
    assert images["golden"] is golden


def test_all_three_sides_agree(network, graph, artifact):
    images = probe_images(SIZE, artifact.golden.image)
    expectations = Expectations(with_logits_output(graph), images)
    ours = verify_network(open_artifact(artifact, "a"), expectations, images)
    theirs = verify_torch(network, graph, images)
    for result in (*ours, *theirs):
        assert result.passed, result
    assert [r.side for r in theirs] == ["torch"] * 5
    assert [r.image for r in ours] == [c["image"] for c in artifact.parity["comparisons"]]
    assert len({result.tolerance for result in ours}) > 1  # the images were not one image


def test_every_class_occurs_in_what_is_compared(artifact):
    """Else the arg max would be compared on constants."""
    assert len(np.unique(artifact.golden.labels)) >= 15


def test_a_changed_torch_network_is_noticed(network, graph):
    import copy

    changed = copy.deepcopy(network)
    norm = next(m for m in changed.modules() if isinstance(m, nn.BatchNorm2d))
    with torch.no_grad():
        norm.running_mean[0] += 0.05
    results = verify_torch(changed, graph, {"noise": photo()})
    assert not results[0].passed


class TestGolden:
    def test_it_passes_where_it_was_built(self, artifact_path):
        assert replay_golden(load(artifact_path)).passed

    def replayed(self, artifact, **golden) -> Comparison:
        changed = replace(artifact, golden=replace(artifact.golden, **golden))
        return replay_golden(open_artifact(changed, "a"))

    @pytest.mark.parametrize("old", [False, True])
    def test_other_logits_are_noticed(self, artifact, old):
        if old:  # made before the noise was measured
            parity = {"comparisons": artifact.parity["comparisons"]}
            artifact = replace(artifact, parity=parity)
            assert self.replayed(artifact).passed
        logits = artifact.golden.logits.copy()
        logits[3, 4, 5] += 0.01
        assert not self.replayed(artifact, logits=logits).passed
        logits[3, 4, 5] = np.nan
        assert not self.replayed(artifact, logits=logits).passed

    def test_it_is_judged_by_the_noise_of_when_it_was_made(self, artifact):
        result = self.replayed(artifact)
        (made,) = (
            c
            for c in artifact.parity["comparisons"]
            if (c["side"], c["image"]) == ("tvm", "golden")
        )
        for field in ("noise", "rms_noise", "tolerance", "rms_tolerance"):
            assert getattr(result, field) == made[field]
        assert result.rms_error <= result.rms_tolerance

    def test_other_labels_are_noticed(self, artifact):
        labels = artifact.golden.labels.copy()
        labels[0, 0] = (labels[0, 0] + 1) % 19
        result = self.replayed(artifact, labels=labels)
        assert not result.passed
        assert result.differing_share == 1 / 4096
        # One pixel in a hundred may differ in fp16.
        half = replace(artifact, target=replace(artifact.target, precision=FP16))
        assert self.replayed(half, labels=labels).passed

    def test_bf16_is_replayed_by_its_own_noise(self, small_bf16):
        result = self.replayed(small_bf16)
        assert result.passed
        assert result.unexplained_allowed == BF16.most_unexplained
        size = Deviation.size(small_bf16.golden.logits)
        assert BF16.unit * size.rms <= result.rms_noise < 16 * BF16.unit * size.rms
        assert not self.replayed(small_bf16, logits=small_bf16.golden.logits * 1.2).passed
        assert not self.replayed(small_bf16, image=255 - small_bf16.golden.image).passed

    def test_another_image_is_noticed(self, artifact):
        assert not self.replayed(artifact, image=255 - artifact.golden.image).passed
