"""The most memory that `hmseg-deploy run` takes for a large picture, in bytes a pixel.

    python -m benchmarks.big_picture --artifact a.hmseg --folder out/big
    python -m benchmarks.big_picture --artifact a.hmseg --folder out/big --side 7000 --only palette

A square picture of each form is written to the folder, given to the program in a process of its
own, which makes its overlay too, and deleted. The figure is the process's largest resident size,
the program's own with it. A line of JSON for each goes to FOLDER/rows.jsonl. Exits with 1 where one
took --most bytes a pixel or more, or failed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

_ORIENTATION, _TURNED = 0x0112, 6


def _picture(side: int) -> Image.Image:
    """Stripes: what no encoder makes a single block of."""
    row = np.arange(side) * 7 % 256
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[:] = np.stack([row, row[::-1], 255 - row], -1)
    return Image.fromarray(pixels)


def _turned(side: int, path: Path) -> None:
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURNED
    _picture(side).save(path, "JPEG", quality=80, exif=exif)


def _deep(side: int, path: Path) -> None:
    pixels = np.empty((side, side), np.uint16)
    pixels[:] = np.arange(side) * 5
    Image.fromarray(pixels).save(path, "PNG", compress_level=1)


FORMS: dict[str, Callable[[int, Path], None]] = {
    "JPEG": lambda side, path: _picture(side).save(path, "JPEG", quality=80),
    "JPEG, turned": _turned,
    "CMYK": lambda side, path: _picture(side).convert("CMYK").save(path, "JPEG", quality=80),
    "PNG with alpha": lambda side, path: (
        _picture(side).convert("RGBA").save(path, "PNG", compress_level=1)
    ),
    "palette": lambda side, path: _picture(side).quantize(16, method=2).save(path, "PNG"),
    "grey of 16 bits": _deep,
    "TIFF": lambda side, path: _picture(side).save(path, "TIFF"),
}


def _write(form: str, side: int, path: Path) -> None:
    FORMS[form](side, path)


def measure(artifact: Path, picture: Path, folder: Path) -> tuple[int, int]:
    """The exit code, and the largest resident size in bytes, of the program with a picture."""
    command = [sys.executable, "-m", "deploy.cli.hmseg_deploy", "run", str(artifact), str(picture)]
    process = subprocess.Popen(
        [*command, "-o", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024  # of which Linux counts KiB


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--side", type=int, default=11000, help="of the picture, in pixels")
    parser.add_argument("--most", type=float, default=30.0, help="bytes a pixel")
    parser.add_argument("--only", nargs="*", default=list(FORMS), choices=list(FORMS))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    picture, results, missed = options.folder / "big.png", options.folder / "results", 0
    for form in options.only:
        # Apart: what is started by a process that was large counts as large as that. The content
        # counts, not the name.
        writer = get_context("spawn").Process(target=_write, args=(form, options.side, picture))
        writer.start()
        writer.join()
        code, peak = measure(options.artifact, picture, results)
        picture.unlink()
        shutil.rmtree(results, ignore_errors=True)
        a_pixel = peak / options.side**2
        good = code == 0 and a_pixel < options.most
        missed += not good
        row = {
            "form": form, "MP": round(options.side**2 / 1e6, 1), "code": code,
            "MiB": peak >> 20, "bytes_a_pixel": round(a_pixel, 1), "good": good,
        }  # fmt: skip
        with (options.folder / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{form:<18}{row['MP']:>7} MP{row['MiB']:>7} MiB{a_pixel:>7.1f} bytes a pixel"
              f"{'' if good else f'  MISSED, exit code {code}'}", flush=True)  # fmt: skip
    print(f"{missed} of {len(options.only)} failed or took {options.most:g} bytes a pixel or more")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
