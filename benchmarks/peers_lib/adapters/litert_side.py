"""LiteRT (TensorFlow Lite) with XNNPACK: the torch module converted by litert-torch."""

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("ai-edge-litert", "litert-torch")
PER_THREADS = False
SETTINGS = "XNNPACK delegate (its default), num_threads, logits in NHWC, its own buffers shared"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph", "numpy")


def prepare(work: Work) -> None:
    import litert_torch
    import torch

    from benchmarks.peers_lib.network import torch_network

    network = torch_network(work.config, channels_last=True)
    example = torch.from_numpy(work.given())[None]
    litert_torch.convert(network, (example,)).export(str(work.folder / "network.tflite"))


def load_runtime(threads: int) -> None:
    import ai_edge_litert.interpreter

    assert ai_edge_litert


def open_network(work: Work) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(work.folder / "network.tflite"), num_threads=work.config.threads)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    logits = work.config.output == "logits"
    given = work.given()

    def call():  # noqa: ANN202
        # Views of its own memory, made anew in each call as its documentation asks: get_tensor
        # would copy 90 MB of logits at 768x1536.
        interpreter.tensor(source)()[0] = given
        interpreter.invoke()
        out = interpreter.tensor(target)()[0]
        return out.transpose(2, 0, 1) if logits else out

    return call
