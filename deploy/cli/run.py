"""hmseg-deploy run."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli import options, places
from deploy.cli.console import print_json, say
from lut.errors import UserError


def run(
    artifact: Annotated[Path, typer.Argument(help="An artifact made by hmseg-deploy compile.")],
    images: Annotated[list[Path], typer.Argument(help="PNG or JPEG files, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("out"),
    overlay: Annotated[bool, typer.Option(help="Write coloured overlays too.")] = True,
    threads: places.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Segment images: NAME-labels.png (class indices) and NAME-overlay.png (with a legend).

    Where a network finds masks, NAME-CLASS.png for each class instead of the labels.
    """
    from deploy.images import find_images
    from deploy.runtime import load
    from deploy.segment import OVERLAY, output_names, result_kinds, segment_file

    paths = find_images(images)
    names = output_names(paths)
    inputs = {path.resolve() for path in paths}
    network = load(artifact, threads=places.read_threads(threads))
    kinds = [*result_kinds(network.metadata), OVERLAY]
    for result in (out / f"{name}-{kind}.png" for name in names for kind in kinds):
        if result.resolve() in inputs:
            raise UserError(f"{result} would be overwritten; name another folder with --out")
        inputs.add(result.resolve())
    if out.exists() and not out.is_dir():
        raise UserError(f"cannot write into {out}: it is a file; name a folder with --out")
    done = []
    for index, (path, name) in enumerate(zip(paths, names, strict=True)):
        written = segment_file(network, path, out, name, overlay=overlay)
        done.append({"image": str(path), **written})
        say(f"{index + 1}/{len(paths)} {path}")
        if not as_json:
            print("\n".join(written.get("masks", [written.get("labels")])))
    if as_json:
        print_json(done)
