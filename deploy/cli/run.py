"""hmseg-deploy run."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import options, places
from deploy.cli.console import Step, print_json, print_line, say, step
from lut.errors import HmsegError, UserError, WorkError
from lut.files import check_writable

if TYPE_CHECKING:
    from deploy.metadata import Metadata
    from deploy.runtime import Network
    from deploy.video import VideoReport
    from deploy.video_file import Source

    Input = Path | Source


def run(
    artifact: Annotated[Path, typer.Argument(help="An artifact made by hmseg-deploy compile.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="PNG, JPEG, WebP, BMP or TIFF files, folders of them, and videos: files, "
            "addresses such as rtsp://HOST/PATH, cameras such as /dev/video0."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder to write to (out); of a single video the file to write."
        ),
    ] = None,
    overlay: Annotated[bool, typer.Option(help="Write coloured overlays of images too.")] = True,
    live: Annotated[
        bool, typer.Option("--live", help="Of a video: drop frames instead of falling behind.")
    ] = False,
    threads: places.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Segment images and videos.

    Of an image: NAME-labels.png (class indices) and NAME-overlay.png (with a legend). Where a
    network finds masks, NAME-CLASS.png for each class instead of the labels.

    Of a video, for which pip install 'hmseg[video]': its overlays as a video, --out, or where it is
    one of several inputs NAME-overlay.mp4. Frame rate and time stamps are kept. Ctrl-C ends it
    there; what is written by then can be played.

    One broken file of several does not stop the others: each is named, and the exit code is 1. A
    single input that is broken gives 2.
    """
    from deploy.runtime import load
    from deploy.video import find_inputs

    found, broken = find_inputs(inputs)
    for error in broken:
        say(f"failed: {error}")
    count = len(found) + len(broken)
    results = _plan(found, out, several=count > 1, overlay=overlay, live=live)
    network = load(artifact, threads=places.read_threads(threads))
    _check_not_overwritten(found, results, network.metadata)
    done: list[dict[str, Any]] = []
    failed, interrupted = len(broken), False
    for number, (item, result) in enumerate(zip(found, results, strict=True), 1 + failed):
        place = f"{number}/{count} {_name(item)}"
        try:
            written = _segment(network, item, result, place, overlay=overlay, live=live)
        except HmsegError as error:
            if count == 1:
                raise
            failed += 1
            say(f"{place} failed: {str(error).removeprefix(f'{_name(item)}: ')}")
            continue
        done.append(written)
        if not as_json:
            print_line("\n".join(_files(written)))
        if interrupted := written.get("interrupted", False):
            break
    if as_json:
        print_json(done)
    if interrupted:
        raise KeyboardInterrupt
    if failed:
        raise WorkError(f"{failed} of {count} inputs failed")


def _files(written: dict[str, Any]) -> list[str]:
    """The files of one input, as they are listed: what was found, then the overlay."""
    labels = [written["labels"]] if "labels" in written else []
    overlay = [written["overlay"]] if "overlay" in written else []
    return [*written.get("masks", labels), *overlay]


def _plan(
    found: "Sequence[Input]", out: Path | None, *, several: bool, overlay: bool, live: bool
) -> list[Path]:
    """Where each result goes: a video's file, an image's FOLDER/NAME, which "-labels.png" and the
    like are added to. Raises UserError for options that do not go with these inputs."""
    from deploy.segment import OVERLAY, output_names
    from deploy.video import check_video_name
    from deploy.video_file import SUFFIXES, Source, check_is_video
    from hmseg.data.image_file import SUFFIXES as PICTURES

    videos = [item for item in found if isinstance(item, Source)]
    if live and not videos:
        raise UserError("--live is for videos; leave it out")
    if videos and not overlay:
        raise UserError("of a video the overlays are written; leave --no-overlay out")
    if videos and not several:
        check_is_video(videos[0])  # what is none needs no other name to write to
        if out is None:
            name = f"{videos[0].path.stem}-{OVERLAY}.mp4"
            raise UserError(f"name the video to write with --out, such as --out {name}")
        check_video_name(out)
        return [out]
    folder = Path("out") if out is None else out
    if folder.exists() and not folder.is_dir():
        raise UserError(f"cannot write into {out}: it is a file; name a folder with --out")
    if not folder.exists() and folder.suffix.lower() in PICTURES:
        raise UserError(
            f"--out {out}: name a folder, such as --out {folder.with_suffix('')}; what is written "
            "there has the image's name"
        )
    if videos and not folder.exists() and folder.suffix in SUFFIXES:
        raise UserError(f"--out {out}: there are several inputs; name a folder")
    check_writable(folder / OVERLAY)
    names = output_names([_path(item) for item in found])
    return [
        folder / (f"{name}-{OVERLAY}.mp4" if isinstance(item, Source) else name)
        for item, name in zip(found, names, strict=True)
    ]


def _check_not_overwritten(
    found: "Sequence[Input]", results: Sequence[Path], metadata: "Metadata"
) -> None:
    """Raise UserError where a result would replace an input, or another result."""
    from deploy.segment import OVERLAY, result_kinds

    taken = {_path(item).resolve() for item in found}
    for item, result in zip(found, results, strict=True):
        files = [result]
        if isinstance(item, Path):
            kinds = [*result_kinds(metadata), OVERLAY]
            files = [result.with_name(f"{result.name}-{kind}.png") for kind in kinds]
        for file in files:
            if file.resolve() in taken:
                raise UserError(f"{file} would be overwritten; name another place with --out")
            taken.add(file.resolve())


def _segment(
    network: "Network", item: "Input", result: Path, place: str, *, overlay: bool, live: bool
) -> dict[str, Any]:
    """Segment one input; what was written, as the JSON has it."""
    from deploy.segment import segment_file
    from deploy.video import segment_video

    if isinstance(item, Path):
        written = segment_file(network, item, result.parent, result.name, overlay=overlay)
        say(place)
        return {"image": str(item), **written}
    with step(place) as current:
        report = segment_video(network, item, result, live=live, watch=_teller(current))
        current.result = f"{report.frames} frames, {_pace(report)}"
    return {"video": item.name, "overlay": str(result), **asdict(report)}


def _teller(current: Step) -> "Callable[[VideoReport], None]":
    """Shows how far a video is: a line that changes, or every few seconds another."""
    every = 0.1 if sys.stderr.isatty() else 10.0
    last = time.monotonic()

    def tell(report: "VideoReport") -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            frames = f"{report.frames}/{report.expected}" if report.expected else report.frames
            current.tell(f"frame {frames}, {_pace(report)}")

    return tell


def _pace(report: "VideoReport") -> str:
    dropped = f", {report.dropped} dropped" if report.dropped else ""
    return (
        f"{report.fps:.1f} FPS, latency {report.latency_ms:.0f} ms "
        f"(network {report.network_ms:.1f} ms){dropped}"
    )


def _name(item: "Input") -> str:
    return str(item) if isinstance(item, Path) else item.name


def _path(item: "Input") -> Path:
    return item if isinstance(item, Path) else item.path
