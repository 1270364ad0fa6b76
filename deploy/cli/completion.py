"""What a shell offers behind an option. Light: each press of the key starts the program anew."""

from collections.abc import Iterator
from pathlib import Path

# Those of the zoo's own figures, and of the data sets' frames.
RESOLUTIONS = ("256x512", "360x480", "512x1024", "720x960", "768x1536", "1024x2048")


def networks(incomplete: str) -> list[str]:
    """Names of the zoo."""
    from hmseg import zoo

    return [name for name in zoo.list_models() if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Names of the zoo, checkpoints, ONNX files, and folders that may hold some."""
    return [*networks(incomplete), *_files(incomplete, (".onnx", ".safetensors"))]


def targets(incomplete: str) -> list[str]:
    """The words that stand for a target; LLVM's names of CPUs once one is begun."""
    from deploy.targets import WORDS, list_cpu_names

    names = list_cpu_names() if incomplete else []
    return [word for word in (*WORDS, *names) if word.startswith(incomplete)]


def resolutions(incomplete: str) -> list[str]:
    """Usual ones."""
    return [size for size in RESOLUTIONS if size.startswith(incomplete)]


def _files(incomplete: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    folder, _, begun = incomplete.rpartition("/")
    inside = Path(folder or ("/" if incomplete.startswith("/") else "."))
    try:
        found = sorted(path for path in inside.iterdir() if path.name.startswith(begun))
    except OSError:  # no such folder, or one that may not be read
        return
    prefix = incomplete[: len(incomplete) - len(begun)]
    for path in found:
        if path.is_dir() and (begun or not path.name.startswith(".")):
            yield f"{prefix}{path.name}/"
        elif path.suffix in suffixes:
            yield f"{prefix}{path.name}"
