import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from deploy.graph.export import (
    export_network,
    fold_batch_norm,
    import_onnx,
    read_metadata,
    save_onnx,
)
from deploy.resolution import Resolution
from hmseg.blocks import InvertedResidual
from hmseg.data.classes import CAMVID, CITYSCAPES, classes_for
from hmseg.data.normalise import MEAN, STD
from hmseg.mrms import MRMSConfig
from hmseg.testing import randomise_batch_norm
from hmseg.train.quantise import FixedMap, MapQuantiser, fixed, quantise
from lut.errors import UserError
from tests.deploy import graphs
from tests.deploy.graphs import photo, segmenter, write


def normalised(image: np.ndarray) -> torch.Tensor:
    """As in training, in float64 so that it is an independent reference."""
    scaled = image.astype(np.float64) / 255
    values = (scaled - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(values.transpose(2, 0, 1)[None])


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image})
    return output


def signature(value: onnx.ValueInfoProto) -> tuple:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, [d.dim_value for d in tensor.shape.dim]


class TestFolding:
    @pytest.mark.parametrize("head", ["lcf-lge", "lcf", "concat-lge", "concat"])
    def test_folded_and_unfolded_networks_agree(self, head):
        model = graphs.network(MRMSConfig(width=0.5, head=head, num_classes=5))
        folded = fold_batch_norm(model)
        assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
        assert [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]  # a copy was folded
        image = torch.rand(1, 3, 70, 91)
        with torch.no_grad():
            torch.testing.assert_close(folded(image), model(image), rtol=1e-5, atol=1e-4)

    def test_the_randomised_statistics_matter(self):
        """Else the test above would pass on a folding that forgets them."""
        plain = graphs.network()
        with torch.no_grad():
            before = plain(torch.ones(1, 3, 64, 64))
            for module in plain.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.zero_()
            assert (plain(torch.ones(1, 3, 64, 64)) - before).abs().max() > 0.1

    def test_a_batch_norm_without_a_convolution_before_it_is_refused(self):
        with pytest.raises(UserError, match="batch norm '1' does not follow a convolution"):
            fold_batch_norm(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))

    def test_a_model_in_training_mode_stays_in_it(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
        assert not fold_batch_norm(model).training
        assert model.training


class TestExport:
    def test_numbers_against_the_unfolded_network(self, network):
        model = export_network(network, "n", graphs.SIZE, output="logits", num_classes=19)
        image = photo()
        with torch.no_grad():
            expected = network(normalised(image).float()).numpy()
        got = run(model, image[None])
        assert got.shape == (1, 19, 64, 64)
        assert np.abs(got - expected).max() < 1e-4 * max(1, np.abs(expected).max())

    def test_labels_are_the_arg_max_of_the_network(self, network, graph):
        image = photo(seed=1)
        with torch.no_grad():
            expected = network(normalised(image).float()).argmax(1).numpy()
        got = run(graph, image[None])
        assert (got != expected).mean() < 1e-3

    def test_structure(self, graph):
        operators = {node.op_type for node in graph.graph.node}
        assert "BatchNormalization" not in operators
        assert signature(graph.graph.input[0]) == ("image", TensorProto.UINT8, [1, 64, 64, 3])
        assert [signature(v) for v in graph.graph.output] == [
            ("labels", TensorProto.UINT8, [1, 64, 64])
        ]
        onnx.checker.check_model(graph, full_check=True)

    def test_logits_end(self, network):
        model = export_network(network, "n", Resolution(64, 96), output="logits", num_classes=19)
        assert [signature(v) for v in model.graph.output] == [
            ("logits", TensorProto.FLOAT, [1, 19, 64, 96])
        ]
        assert "ArgMax" not in {node.op_type for node in model.graph.node}

    def test_auxiliary_classifiers_are_not_exported(self, network, graph):
        weights = {tuple(t.dims) for t in graph.graph.initializer}
        for classifier in (network.aux_medium, network.aux_low):
            assert tuple(classifier.weight.shape) not in weights
        total = sum(int(np.prod(t.dims)) for t in graph.graph.initializer)
        kept = sum(
            p.numel() for name, p in network.named_parameters() if not name.startswith("aux")
        )
        assert total < kept  # folding leaves one bias where a batch norm had two numbers

    def test_metadata(self, graph):
        fields = {prop.key: prop.value for prop in graph.metadata_props}
        assert json.loads(fields["names"]) == list(CITYSCAPES.names)
        assert json.loads(fields["palette"]) == [list(c) for c in CITYSCAPES.palette]
        assert json.loads(fields["mean"]) == list(MEAN)
        assert json.loads(fields["std"]) == list(STD)
        assert fields["resolution"] == "64x64"
        assert fields["license"] == "MIT"
        assert fields["version"]
        assert read_metadata(graph).model == "tiny-mrms"

    def test_the_file_tells_nothing_of_the_machine_that_made_it(self, graph, tmp_path):
        save_onnx(graph, tmp_path / "n.onnx")
        content = (tmp_path / "n.onnx").read_bytes()
        for trace in (b".py", b"/home", b"/root", b"site-packages", b"Traceback", b"stack_trace"):
            assert trace not in content

    def test_the_file_loads_back_equal(self, graph, tmp_path):
        save_onnx(graph, tmp_path / "n.onnx")
        assert onnx.load(tmp_path / "n.onnx") == graph

    def test_exporting_prints_nothing_on_stdout(self, network, capsys):
        export_network(network, "n", graphs.SIZE, num_classes=19)
        assert capsys.readouterr().out == ""


class TestImport:
    @pytest.mark.parametrize("stride", [8, 1])
    @pytest.mark.parametrize("end", ["scores", "argmax", "argmax-cast", "argmax-squeeze"])
    @pytest.mark.parametrize("layout", ["float", "uint8"])
    def test_every_accepted_form(self, stride, end, layout, tmp_path):
        """Against the user's own graph, run by onnxruntime as it came."""
        user = segmenter(stride=stride, end="scores", layout=layout)
        image = photo()
        given = normalised(image).numpy().astype(np.float32) if layout == "float" else image[None]
        scores = torch.from_numpy(run(user, given))
        full = nn.functional.interpolate(scores, size=(64, 64), mode="bilinear")
        path = write(segmenter(stride=stride, end=end, layout=layout), tmp_path / "user.onnx")

        logits = run(import_onnx(path, output="logits", mean=None, std=None), image[None])
        np.testing.assert_allclose(logits, full, atol=2e-5)
        labels = import_onnx(path, output="labels", mean=None, std=None)
        got = run(labels, image[None])
        assert got.dtype == np.uint8
        assert (got != full.argmax(1).numpy()).mean() < 1e-3
        onnx.checker.check_model(labels, full_check=True)

    def test_mean_and_std_of_the_user(self, tmp_path):
        path = write(segmenter(), tmp_path / "user.onnx")
        mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 1.0)
        model = import_onnx(path, output="logits", mean=mean, std=std)
        image = photo()
        given = ((image / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
        scores = torch.from_numpy(run(segmenter(), given))
        expected = nn.functional.interpolate(scores, size=(64, 64), mode="bilinear")
        np.testing.assert_allclose(run(model, image[None]), expected, atol=2e-5)
        assert read_metadata(model).mean == mean
        assert read_metadata(model).std == std

    def test_metadata_of_a_foreign_file(self, tmp_path):
        path = write(segmenter(classes=11, stride=1), tmp_path / "their network.onnx")
        metadata = read_metadata(import_onnx(path, mean=None, std=None))
        assert metadata.model == "their network"
        assert metadata.classes == CAMVID
        assert metadata.license == "unknown"
        assert metadata.mean == MEAN
        assert classes_for(5).name == "generic"

    @pytest.mark.parametrize("output", ["labels", "logits"])
    def test_our_own_export_comes_back_as_it_was(self, network, output, tmp_path):
        first = export_network(
            network, "mine", graphs.SIZE, output=output, num_classes=19, classes=CITYSCAPES
        )
        save_onnx(first, tmp_path / "first.onnx")
        image = photo()
        for kind in ("labels", "logits"):
            again = import_onnx(tmp_path / "first.onnx", output=kind, mean=None, std=None)
            assert read_metadata(again).model == "mine"
            assert read_metadata(again).mean == MEAN
            if kind == output:
                np.testing.assert_array_equal(run(again, image[None]), run(first, image[None]))
            else:
                assert again.graph.output[0].name == kind

    def test_a_uint8_graph_takes_no_mean(self, tmp_path):
        path = write(segmenter(layout="uint8"), tmp_path / "u.onnx")
        with pytest.raises(UserError, match="leave them out"):
            import_onnx(path, mean=(0.5, 0.5, 0.5), std=None)

    def test_metadata_that_contradicts_the_graph(self, tmp_path, graph):
        model = segmenter(classes=5, layout="uint8")
        helper.set_model_props(model, {p.key: p.value for p in graph.metadata_props})
        with pytest.raises(UserError, match="names 19 classes, the graph gives 5"):
            import_onnx(write(model, tmp_path / "u.onnx"), mean=None, std=None)

    @pytest.mark.parametrize("opset", [11, 12, 13, 17, 20])
    def test_opsets_in_use(self, opset, tmp_path):
        model = segmenter(opset=opset)
        got = import_onnx(write(model, tmp_path / "u.onnx"), output="logits", mean=None, std=None)
        image = photo()
        scores = torch.from_numpy(run(model, normalised(image).numpy().astype(np.float32)))
        full = nn.functional.interpolate(scores, size=(64, 64), mode="bilinear")
        np.testing.assert_allclose(run(got, image[None]), full, atol=2e-5)

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (segmenter(input_dims=[2, 3, 64, 64]), "2 images at once"),
            (segmenter(input_dims=[1, 3, "h", "w"]), "give --resolution"),
            (segmenter(classes=65536, stride=32), "65536 classes"),
        ],
    )
    def test_graphs_that_are_not_accepted(self, model, message, tmp_path):
        with pytest.raises(UserError, match=message) as caught:
            import_onnx(write(model, tmp_path / "u.onnx"), mean=None, std=None)
        assert "\n" not in str(caught.value)


def test_saving_to_a_place_that_cannot_be_written(graph, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        save_onnx(graph, tmp_path / "file" / "n.onnx")


class TestTensorInput:
    def test_numbers_and_signature_of_a_zoo_network(self, network):
        model = export_network(
            network, "n", graphs.SIZE, input_kind="tensor", output="logits", num_classes=19
        )
        (taken,) = model.graph.input
        assert signature(taken) == ("tensor", TensorProto.FLOAT, [1, 3, *graphs.SIZE])
        assert read_metadata(model).input == "tensor"
        image = photo()
        given = read_metadata(model).network_input(image)[None]
        with torch.no_grad():
            expected = network.double()(normalised(image)).numpy()
        network.float()
        np.testing.assert_allclose(run(model, given), expected, atol=1e-3)

    def test_a_file_of_ours_keeps_its_mean_and_std(self, tmp_path):
        first = import_onnx(
            write(segmenter(), tmp_path / "a.onnx"), input_kind="tensor",
            mean=(0.1, 0.2, 0.3), std=(1.0, 0.2, 0.3),
        )  # fmt: skip
        save_onnx(first, tmp_path / "b.onnx")
        again = import_onnx(tmp_path / "b.onnx", mean=None, std=None)
        assert read_metadata(again).input == "image"
        assert read_metadata(again).mean == (0.1, 0.2, 0.3)
        assert read_metadata(again).std == (1.0, 0.2, 0.3)

    def test_a_graph_of_images_has_no_tensor(self, tmp_path):
        path = write(segmenter(layout="uint8"), tmp_path / "u.onnx")
        with pytest.raises(UserError, match="has no float tensor to start from"):
            import_onnx(path, input_kind="tensor", mean=None, std=None)

    def test_the_name_is_free(self, tmp_path):
        names = {"features": "tensor"}
        path = write(segmenter(names=lambda n: names.get(n, n)), tmp_path / "u.onnx")
        model = import_onnx(path, input_kind="tensor", mean=None, std=None)
        assert [value.name for value in model.graph.input] == ["tensor"]
        onnx.checker.check_model(model, full_check=True)


class TestQuantised:
    """A network with simulated quantisation, tiny as all here, and its QDQ graph in onnxruntime."""

    @pytest.fixture(scope="class")
    def network(self) -> nn.Module:
        layers = (
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            InvertedResidual(8, 8, expansion=2, kernel=3, stride=1, dilation=1),
            nn.Conv2d(8, 19, 1),
        )  # fmt: skip
        torch.manual_seed(0)
        plain = nn.Sequential(*layers)
        randomise_batch_norm(plain)
        quantised = quantise(plain, "small")
        with torch.no_grad():
            quantised(normalised(photo()).float())
        return quantised.eval()

    @pytest.fixture(scope="class")
    def graph(self, network: nn.Module) -> onnx.ModelProto:
        return export_network(
            network, "n", graphs.SIZE, output="logits", input_kind="tensor", num_classes=19
        )

    def test_every_map_agrees_to_a_quantum(self, network: nn.Module, graph: onnx.ModelProto):
        image = normalised(photo(seed=1)).float()
        watched = onnx.ModelProto()
        watched.CopyFrom(graph)
        nodes = [n for n in graph.graph.node if n.op_type == "QuantizeLinear"]
        values = [
            helper.make_tensor_value_info(n.output[0], TensorProto.UINT8, None) for n in nodes
        ]
        watched.graph.output.extend(values)
        # As it is written: onnxruntime's kernels of 8 bits saturate on some CPUs.
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(watched.SerializeToString(), options)
        scores, *integers = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        seen: list[np.ndarray] = []
        constant = fixed(network)
        for module in constant.modules():
            if isinstance(module, FixedMap):
                module.register_forward_hook(
                    lambda m, _, y: seen.append(np.rint(y.numpy() / m.scale + m.zero))
                )
        with torch.no_grad():
            expected = constant(image)
        assert len(seen) == len(integers) == 4  # stem, expansion, depthwise window, sum
        for mine, theirs in zip(seen, integers, strict=True):
            assert theirs.dtype == np.uint8
            difference = np.abs(mine - theirs.astype(np.float64))
            assert difference.max() <= 1
            assert (difference > 0).mean() < 0.002
        resized = nn.functional.interpolate(expected, (64, 64), mode="bilinear").numpy()
        assert (np.abs(scores - resized) > 1e-4).mean() < 0.05

    def test_weights_are_int8_and_scales_are_those_of_the_network(
        self, network: nn.Module, graph: onnx.ModelProto
    ):
        constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}
        reads = [n for n in graph.graph.node if n.op_type == "DequantizeLinear"]
        weights = [constants[n.input[0]] for n in reads if n.input[0] in constants]
        assert [w.dtype for w in weights] == [np.int8] * 5
        assert all(np.abs(w.astype(int)).max((1, 2, 3)).tolist() == [127] * len(w) for w in weights)
        maps = [n for n in graph.graph.node if n.op_type == "QuantizeLinear"]
        found = [(float(constants[n.input[1]]), int(constants[n.input[2]])) for n in maps]
        expected = [
            tuple(float(v) for v in m.scale_and_zero())
            for m in network.modules() if isinstance(m, MapQuantiser)
        ]  # fmt: skip
        np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-6)
