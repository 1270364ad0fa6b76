"""hmseg-deploy quickstart."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli import options, places
from deploy.cli.console import say, step
from lut.files import check_writable


def quickstart(
    model: options.Model = options.DEFAULT_MODEL,
    resolution: options.ResolutionText = None,
    image: Annotated[
        Path | None, typer.Option(help="An image; default: a street drawn by our own code.")
    ] = None,
    threads: places.Threads = None,
    no_cache: options.NoCache = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("out"),
) -> None:
    """From a network to labels.png.

    Export, compile, check, time, segment.
    """
    from deploy.images import read_image, resize_image

    if image:
        read_image(image)  # before anything is compiled
    check_writable(out / "labels.png")
    cache = options.CacheOptions(no_cache).open()
    workers = places.read_threads(threads)
    with step(f"exporting {model}") as progress:
        source = options.open_model(model, options.SourceOptions(resolution))
        size = source.metadata.resolution
        progress.result = f"{size}, {len(source.metadata.classes)} classes"
    from deploy.artifact_file import save_artifact
    from deploy.bench import bench
    from deploy.build import build_source
    from deploy.cli.bench import print_result
    from deploy.compile import default_path
    from deploy.images import to_channels
    from deploy.measure.interleave import Protocol
    from deploy.runtime import load
    from deploy.segment import segment_image
    from deploy.street import draw_street
    from deploy.targets import resolve_target
    from deploy.verify import probe_images, require, verify_torch

    target = resolve_target("cpu")
    with step(f"compiling for {target.machine}, parity gate") as progress:
        artifact, comparisons = build_source(
            source, target, threads=workers, cache=cache, on_step=progress.at
        )
        worst = max(c.max_logit_error for c in comparisons if c.side == "tvm")
        progress.result = f"logit error {worst:.1e} against onnxruntime"
    if source.network is not None:
        with step("checking against torch") as progress:
            images = probe_images(size, artifact.golden.image)
            checked = verify_torch(source.network, source.graph, images)
            require(checked)
            progress.result = f"logit error {max(c.max_logit_error for c in checked):.1e}"
    path = out / default_path(source)
    save_artifact(artifact, path)
    channels = source.metadata.channels
    seen = read_image(image) if image else draw_street(size)
    given = read_image(image, channels) if image else to_channels(seen, channels)
    network_image = resize_image(given, size)
    with step("timing beside onnxruntime") as progress:
        protocol = Protocol(warmup=2, repeat=10, rounds=5)
        result = bench(
            artifact, source, network_image, protocol, threads=workers,
            on_round=lambda n: progress.at(f"round {n} of {protocol.rounds}"),
        )  # fmt: skip
    with step("segmenting"):
        written = segment_image(load(path), given, seen, out, "")
    print_result(result, [])
    say(f"weights: {source.weights}")
    for file in (path, *written.get("masks", [written.get("labels")]), written["overlay"]):
        print(file)
