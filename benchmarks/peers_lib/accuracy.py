"""How far our binary and onnxruntime are from double precision, on the five images of the gate."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.peers_lib.adapters.hmseg_side import ARTIFACT
from benchmarks.peers_lib.job import Config
from benchmarks.peers_lib.run import Runner
from deploy.graph.ends import with_logits_output
from deploy.graph.export import read_metadata
from deploy.graph.float64 import evaluate
from deploy.graph.float64_resize import NoTruthError
from deploy.graph.reference import OnnxSession
from deploy.images import to_channels
from deploy.noise import Deviation
from deploy.street import draw_street
from deploy.verify import probe_images
from lut.errors import WorkError

Images = Mapping[str, NDArray[Any]]


def measure_errors(
    runner: Runner, config: Config, side: str, truths: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    """A record's `images`: of each the errors of both and the shares of labels that double gives
    too. `side` is ours, as it is compiled by default or exactly. What double precision says takes
    longest: `truths` keeps it, by image, for the network's other side.

    Raises WorkError where it does not compile or run, and where an operator has no truth.
    """
    work = runner.prepare(side, config)
    graph = with_logits_output(onnx.load(work.onnx))
    metadata, name = read_metadata(graph), graph.graph.output[-1].name
    golden = to_channels(draw_street(metadata.resolution), metadata.channels)
    given = {
        image: metadata.network_input(pixels)
        for image, pixels in probe_images(metadata.resolution, golden).items()
    }
    ours = _apart(work.folder / ARTIFACT, config.threads, given)
    session, images = OnnxSession(graph), {}
    for image, pixels in given.items():
        if image not in truths:
            runner.say(f"{config}: {image} in double precision")
            try:
                (truths[image],) = evaluate(graph, pixels[None], [name])
            except NoTruthError as error:
                raise WorkError(f"there is no truth to compare with: {error}") from error
        truth = truths[image]
        theirs = session.run_batch(pixels[None], [name])[0]
        images[image] = {
            "ours": compare_with_truth(ours[image], truth[0]),
            "onnxruntime": compare_with_truth(theirs[0], truth[0]),
            "size": Deviation.size(truth[0]).rms,
            "classes": len(np.unique(truth[0].argmax(0))),
        }
    return images


def compare_with_truth(scores: NDArray[Any], truth: NDArray[Any]) -> dict[str, float]:
    """Scores (K, H, W): how far they are off, and the share of the labels that are right."""
    error = Deviation.between(scores, truth)
    equal = float((scores.argmax(0) == truth.argmax(0)).mean())
    return {"rms": error.rms, "largest": error.largest, "labels_equal": equal}


def _apart(artifact: Path, threads: int, given: Images) -> Images:
    """Our scores, from a process of their own: a kernel that crashes ends that one alone."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(_scores, artifact, threads, given).result()
        except BrokenProcessPool as error:
            raise WorkError(f"{artifact.name} ended its process") from error


def _scores(artifact: Path, threads: int, given: Images) -> Images:
    from deploy.runtime import load

    network = load(artifact, threads=threads)
    return {name: np.array(network.logits(pixels)) for name, pixels in given.items()}
