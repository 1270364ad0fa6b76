"""A network as a folder that a C or C++ program is built with."""

import re
from pathlib import Path

import numpy as np

from deploy.artifact import Artifact
from deploy.cpu import source
from deploy.cpu.library import PREFIX, check_machine
from deploy.cpu.link import archive, compile_c, link_shared, tools_of
from deploy.cpu.loaded import LoadedLibrary, ends_of
from deploy.cpu.network_library import network_objects
from deploy.cpu.pipeline import compile_graph
from deploy.graph.job import Job
from deploy.metadata import Metadata
from deploy.object_cache import ObjectCache
from lut.errors import UserError, WorkError
from lut.files import check_writable, write_atomic

_RESERVED = re.compile(r"^(tvm|ffi|main|std|int|char|float|void)$")


def package_name(folder: Path) -> str:
    """The prefix of a package's names, after its folder. Raises UserError where no name in C can
    be made of it, and where the folder cannot be written to or holds something else."""
    name = re.sub(r"\W+", "_", folder.resolve().name.lower(), flags=re.ASCII).strip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or _RESERVED.match(name):
        raise UserError(
            f"{folder}: --format c names functions after the folder, and {name or 'this'} is no "
            "name in C; choose letters, such as tiny/"
        )
    check_writable(folder / f"{name}.h")
    _check_own(folder, name)
    return name


def _check_own(folder: Path, name: str) -> None:
    """Raise UserError for a folder with files, none of which is the header that tells a package of
    this name; hidden ones do not count."""
    try:
        if not any(not path.name.startswith(".") for path in folder.iterdir()):
            return
        with (folder / f"{name}.h").open("rb") as file:
            if file.readline().strip() == _first_line(name).encode():
                return
    except FileNotFoundError:
        if not folder.exists():
            return
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    raise UserError(
        f"{folder}: there are files in it, and no C package {name} that this command wrote; name a "
        "new or an empty folder"
    )


def _first_line(name: str) -> str:
    with (source.RUNTIME / "hmseg.h").open() as file:
        return file.readline().strip().replace("@NAME@", name)


def write_package(job: Job, artifact: Artifact, folder: Path, version: str) -> list[Path]:
    """Write the package of a graph that was compiled, and checked, into `artifact`; the files.

    The machine code comes out of the job's cache. Where this machine runs it, its library must give
    the labels that the artifact gives for the golden image: WorkError else. Raises UserError as
    `package_name` does.
    """
    name, cache = package_name(folder), job.cache or ObjectCache(None)
    compiled = compile_graph(Job(job.graph, job.target, job.kernels, job.passes, None, cache))
    tools, metadata = tools_of(job.target), artifact.metadata
    header = header_text(metadata, job.target.machine, name, version)
    objects = network_objects(
        compiled.frame, compiled.objects, job.target, name, cache, served=False
    )
    files = {f"{name}.h": header, "classes.c": classes_text(metadata, name)}
    objects += compile_c(tools, files, ("classes.c",)).values()
    shared = link_shared(tools, objects, (f"{name}_*",))
    _check(shared, artifact, name)
    contents = {  # the header first: by it a package that was interrupted is known as ours
        f"{name}.h": header.encode(), f"lib{name}.so": shared,
        f"lib{name}.a": archive(tools, objects),
        "CMakeLists.txt": _example("CMakeLists.txt").replace("@NAME@", name).encode(),
    }  # fmt: skip
    if metadata.input == "image" and metadata.output == "labels":
        contents["example.c"] = _renamed(_example("example.c"), name).encode()
    for file, data in contents.items():
        write_atomic(folder / file, data)
    return [folder / file for file in contents]


def header_text(metadata: Metadata, machine: str, name: str, version: str) -> str:
    """The public header."""
    height, width = metadata.resolution
    constants = {
        "HEIGHT": height, "WIDTH": width, "CHANNELS": metadata.channels,
        "CLASSES": len(metadata.classes), "PLANES": metadata.num_scores,
        "VERSION": f'"{version}"',
    }  # fmt: skip
    kind = {"uint8": "unsigned char", "uint16": "unsigned short", "float32": "float"}
    label = kind[np.dtype(metadata.found_dtype).name]
    lines = [f"#define HMSEG_{key} {value}" for key, value in constants.items()]
    lines.append(f"typedef {label} hmseg_label;")
    description = (
        f"{_plain(metadata.model)}, {height}x{width}, {len(metadata.classes)} classes, made by "
        f"hmseg {version} for {machine}."
    )
    text = (source.RUNTIME / "hmseg.h").read_text()
    for word, value in {
        "/* @CONSTANTS@ */": "\n".join(lines), "@NAME@": name, "@DESCRIPTION@": description,
        "@RUN@": _run_text(metadata),
    }.items():  # fmt: skip
        text = text.replace(word, value)
    return _renamed(text, name)


def _run_text(metadata: Metadata) -> str:
    channels = {1: "grey", 3: "red, green, blue", 4: "red, green, blue, alpha"}[metadata.channels]
    given = (
        f"unsigned char [HMSEG_HEIGHT][HMSEG_WIDTH][HMSEG_CHANNELS], {channels}"
        if metadata.input == "image"
        else "float [HMSEG_CHANNELS][HMSEG_HEIGHT][HMSEG_WIDTH], normalised"
    )
    found = {
        "labels": "hmseg_label [HMSEG_HEIGHT][HMSEG_WIDTH], the class of each pixel",
        "masks": "hmseg_label [HMSEG_PLANES][HMSEG_HEIGHT][HMSEG_WIDTH], 1 where a class is",
        "logits": "float [HMSEG_PLANES][HMSEG_HEIGHT][HMSEG_WIDTH], the class scores",
    }[metadata.output]
    return f"One image. image: {given}.\n * output: {found}."


def classes_text(metadata: Metadata, name: str) -> str:
    """The C file with the names and colours of the classes."""
    colours = ", ".join(
        "{" + ", ".join(map(str, colour)) + "}" for colour in metadata.classes.palette
    )
    names = ", ".join(f'"{_plain(each)}"' for each in metadata.classes.names)
    return (
        f'#include "{name}.h"\n'
        f"const unsigned char {name}_colours[][3] = {{{colours}}};\n"
        f"const char *const {name}_classes[] = {{{names}}};\n"
    )


def _plain(text: str) -> str:
    """A user's text where C reads it: printable ASCII that ends neither a comment nor a string."""
    return re.sub(r'[^ -~]|["\\*?]', "_", text)


def _renamed(text: str, name: str) -> str:
    return source.with_prefix(text, name).replace('"hmseg.h"', f'"{name}.h"')


def _example(file: str) -> str:
    return (source.RUNTIME / "example" / file).read_text()


def _check(shared: bytes, artifact: Artifact, name: str) -> None:
    try:
        check_machine(artifact.target, name)
    except UserError:
        return  # made for another machine; the artifact says whether it was checked there
    golden = artifact.golden_input
    found = []
    for data, prefix in ((artifact.code.members()["lib.so"], PREFIX), (shared, name)):
        with LoadedLibrary(data, ends_of(artifact.metadata), artifact.threads, prefix) as library:
            found.append(library.run("main", golden))
    if not np.array_equal(found[0], found[1]):
        raise WorkError(f"lib{name}.so does not give what the artifact gives; this is a bug")
