"""What C and C++ programs are built with: compiled by this machine's compiler, linked, run."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.backends import backend_of
from deploy.build import build_artifact
from deploy.cpu import source
from deploy.cpu.link import host_compiler
from deploy.cpu.package import classes_text, header_text, package_name
from deploy.graph.job import Job
from deploy.runtime import open_artifact
from deploy.targets import resolve_target
from hmseg.data.classes import ClassSet
from lut.errors import UserError
from tests.conditions import AVX2, CMAKE, VALGRIND
from tests.deploy.graphs import deployable, photo, segmenter

TARGET = "x86-64-v3"  # what valgrind knows
THREADED = (Path(__file__).parent / "threaded.c").read_text()
NEEDED = {"libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2", "linux-vdso.so.1"}


@pytest.fixture(scope="module")
def built(small_graph):
    AVX2.require()
    return build_artifact(small_graph, resolve_target(TARGET), threads=2, measured={})[0]


def write(graph, artifact, folder: Path) -> Path:
    target = artifact.target
    kernels = backend_of(target).kernels(target, 2, {})
    backend_of(target).package(Job(graph, target, kernels), artifact, folder)
    return folder


@pytest.fixture(scope="module")
def package(small_graph, built, tmp_path_factory) -> Path:
    return write(small_graph, built, tmp_path_factory.mktemp("packages") / "Small-1")


def compile_program(folder: Path, name: str, text: str, *words: str, language: str = "c") -> Path:
    compiler = host_compiler()
    assert compiler is not None
    (folder / f"{name}.{language}").write_text(text)
    command = [*compiler, "-Wall", "-Wextra", "-Werror", "-g", "-O1", f"{name}.{language}"]
    done = subprocess.run(
        [*command, "-o", name, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / name


def run(*command: object, **options) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=120, **options
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def test_the_files(package):
    names = {path.name for path in package.iterdir()}
    assert {
        "libsmall_1.so", "libsmall_1.a", "small_1.h", "CMakeLists.txt", "example.c"
    } <= names  # fmt: skip
    text = "".join((package / name).read_text() for name in names if name.endswith((".h", ".txt")))
    assert "@" not in text
    assert "hmseg_" not in text


def test_the_example_labels_as_the_artifact_does(package, built):
    text = (package / "example.c").read_text()
    program = compile_program(
        package, "static", text, "-std=c99", "libsmall_1.a", "-lm", "-pthread"
    )
    image = photo()
    (package / "in.rgb").write_bytes(image.tobytes())
    run(program, package / "in.rgb", package / "out.ppm")
    head, size, most, body = (package / "out.ppm").read_bytes().split(b"\n", 3)
    assert (head, size, most) == (b"P6", b"64 64", b"255")
    palette = np.array(built.metadata.classes.palette, np.uint8)
    expected = palette[open_artifact(built, "a")(image)]
    np.testing.assert_array_equal(np.frombuffer(body, np.uint8).reshape(64, 64, 3), expected)
    needed = {line.split()[0].rpartition("/")[2] for line in run("ldd", program).splitlines()}
    assert needed <= NEEDED


@CMAKE.mark
def test_cmake_builds_it(package, tmp_path):
    run("cmake", "-S", package, "-B", tmp_path)
    run("cmake", "--build", tmp_path)
    assert (tmp_path / "example").exists()


CPP = """
#include "small_1.h"
#include <cstdio>
#include <vector>
int main() {
    small_1_network *network = nullptr;
    std::vector<unsigned char> image(SMALL_1_HEIGHT * SMALL_1_WIDTH * SMALL_1_CHANNELS, 90);
    std::vector<small_1_label> labels(SMALL_1_HEIGHT * SMALL_1_WIDTH);
    if (int code = small_1_create(2, &network)) return std::puts(small_1_error_text(code)), 1;
    if (small_1_run(network, image.data(), 0, labels.data(), 0)) return 2;
    small_1_destroy(&network);
    std::puts(small_1_classes[labels[0]]);
    return small_1_run(network, image.data(), 0, labels.data(), 0) != SMALL_1_BAD_ARGUMENT;
}
"""


def test_a_program_in_cpp_with_the_shared_library(package, built):
    words = ("-L.", "-lsmall_1", f"-Wl,-rpath,{package}", "-lstdc++")
    found = run(compile_program(package, "shared", CPP, *words, language="cpp"))
    assert found.strip() in built.metadata.classes.names


def test_two_networks_in_one_program(small_graph, built, package, tmp_path):
    """Of equal kernels, whose symbols would meet."""
    other = write(small_graph, built, tmp_path / "other")
    text = """
#include "other.h"
#include "small_1.h"
#include <string.h>
static unsigned char image[OTHER_HEIGHT * OTHER_WIDTH * 3];
static other_label a[OTHER_HEIGHT * OTHER_WIDTH], b[OTHER_HEIGHT * OTHER_WIDTH];
int main(void)
{
    other_network *one = 0;
    small_1_network *two = 0;
    for (unsigned i = 0; i < sizeof image; i++)
        image[i] = (unsigned char)(i * 2654435761u >> 9);
    int code = other_create(2, &one) + small_1_create(2, &two);
    code += other_run(one, image, 0, a, 0) + small_1_run(two, image, 0, b, 0);
    code += memcmp(a, b, sizeof a) != 0;
    other_destroy(&one);
    small_1_destroy(&two);
    return code;
}
"""
    words = (f"-I{package}", "-I.", "libother.a", str(package / "libsmall_1.a"), "-lm", "-pthread")
    run(compile_program(other, "both", text, *words))


@pytest.fixture(scope="module")
def threaded(package) -> Path:
    """A program with threads, pools, strides, bad arguments and, where it is told so, a fork."""
    text = THREADED.replace("NAME", "small_1").replace("CONSTANT", "SMALL_1")
    return compile_program(package, "threaded", text, "libsmall_1.a", "-lm", "-pthread")


def test_threads_pools_strides_and_forks(threaded):
    assert run(threaded, "fork") == "fine\n"


@VALGRIND.mark
def test_memory_is_used_as_it_should_be(threaded):
    run("valgrind", "-q", "--error-exitcode=9", "--leak-check=full", threaded)


def test_there_are_no_races(package, tmp_path):
    """The runtime is compiled for ThreadSanitizer; kernels are as they are."""
    run("ar", "x", package / "libsmall_1.a", cwd=tmp_path)
    for name in (*source.HEADERS, *source.SOURCES):
        (tmp_path / name).write_text(source.runtime_text(name, "small_1"))
    parts = sorted(tmp_path.glob("part*.o"))
    own = {b"small_1_cpu_fits", b"small_1_run_timed", b"small_1_pool_create"}
    kernels = [
        part.name
        for part in parts
        if not any(b" T " + name in subprocess.check_output(["nm", part]) for name in own)
    ]
    assert len(parts) - len(kernels) == 3
    text = THREADED.replace("NAME", "small_1").replace("CONSTANT", "SMALL_1")
    program = compile_program(
        tmp_path, "races", text, "-std=gnu11", "-fsanitize=thread", f"-I{package}",
        *source.SOURCES, *kernels, "-lm", "-pthread",
    )  # fmt: skip
    run(program)


def test_names(tmp_path):
    assert package_name(tmp_path / "My net-2") == "my_net_2"
    for folder in ("2nd", "...", "std", "_"):
        with pytest.raises(UserError, match="is no name in C"):
            package_name(tmp_path / folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        package_name(tmp_path / "file" / "tiny")


def test_texts_of_users_end_neither_comments_nor_strings(built):
    classes = built.metadata.classes
    names = ('a"b', "*/ int x;", *classes.names[2:])
    nasty = replace(
        built.metadata, model='*/ #error "x', classes=ClassSet("x", names, classes.palette)
    )
    header = header_text(nasty, "cpu", "n", "1")
    assert header.count("*/") == header.count("/*")
    assert '"a_b", "_/ int x;"' in classes_text(nasty, "n")


@pytest.mark.parametrize("output", ["logits", "masks"])
def test_other_outputs_are_described(built, output):
    text = header_text(replace(built.metadata, output=output), "cpu", "n", "1")
    assert {"logits": "the class scores", "masks": "1 where a class is"}[output] in text


@pytest.mark.parametrize("target", ["arm", "android"])
def test_for_64_bit_arm(target, tmp_path):
    graph, resolved = deployable(segmenter(), tmp_path), resolve_target(target)
    artifact = build_artifact(graph, resolved, threads=2, measured={})[0]
    assert not artifact.parity["checked"]  # nothing here runs it
    folder = write(graph, artifact, tmp_path / "n")
    assert (folder / "libn.so").read_bytes()[18:20] == b"\xb7\x00"
    assert (folder / "libn.a").read_bytes().startswith(b"!<arch>")


def test_only_a_folder_of_its_own_is_written_to(package, tmp_path):
    """A package that is there already, one that is none, and an empty folder."""
    target = resolve_target(TARGET)
    check = backend_of(target).check_package
    check(target, package)
    (tmp_path / ".hidden").touch()
    check(target, tmp_path / "new")
    folder = tmp_path / "photos"
    folder.mkdir()
    check(target, folder)
    for file, text in (("a.png", "a"), ("photos.h", "#define MINE\n"), ("CMakeLists.txt", "")):
        (folder / file).write_text(text)
        with pytest.raises(UserError, match="photos: there are files in it, and no C package"):
            check(target, folder)
    (folder / "photos.h").write_bytes((package / "small_1.h").read_bytes())  # of another name
    with pytest.raises(UserError, match="no C package photos that this command wrote"):
        check(target, folder)


def test_a_gpu_has_none(tmp_path):
    target = resolve_target("cuda")
    with pytest.raises(UserError, match="--format c is for CPUs"):
        backend_of(target).check_package(target, tmp_path)
