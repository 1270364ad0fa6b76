"""Which wheels' headers NVRTC gets; that it compiles with CUDA 12's, test_build.py shows."""

import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest

from deploy.gpu import nvrtc
from deploy.gpu.targets import CUDA_ARCHITECTURES
from deploy.object_cache import ObjectCache
from deploy.targets import resolve_target
from lut.errors import UserError

DONE = SimpleNamespace(name="NVRTC_SUCCESS")


def of_version(major, numbers=()):
    return SimpleNamespace(
        nvrtcResult=SimpleNamespace(NVRTC_SUCCESS=DONE),
        nvrtcVersion=lambda: (DONE, major, 0),
        nvrtcGetSupportedArchs=lambda: (DONE, list(numbers)),
    )


def imported():
    """Modules of NVIDIA's wheels."""
    return [name for name in sys.modules if name.partition(".")[0] == "nvidia"]


@pytest.fixture
def wheels(monkeypatch, tmp_path):
    """Only those whose files a test makes, as another toolkit's number says."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in imported():
        monkeypatch.delitem(sys.modules, name)

    def make(major, *files):
        monkeypatch.setattr(nvrtc, "_import", lambda: of_version(major))
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("")
        return tmp_path / "nvidia"

    yield make
    # What was found here is not for later tests; what was before comes back.
    for name in imported():
        del sys.modules[name]


def test_headers_of_cuda_12(wheels):
    root = wheels(
        12,
        "nvidia/cuda_runtime/include/cuda_fp16.h",
        "nvidia/cuda_cccl/include/cuda/std/cstdint",
        "nvidia/cu13/include/cuda_fp16.h",
    )
    assert nvrtc._include_folders() == [root / "cuda_runtime/include", root / "cuda_cccl/include"]


def test_headers_of_cuda_13(wheels):
    """One folder for all packages, the headers of C++ in one of their own."""
    root = wheels(
        13,
        "nvidia/cuda_runtime/include/cuda_fp16.h",
        "nvidia/cu13/include/cuda_fp16.h",
        "nvidia/cu13/include/cccl/cuda/std/cstdint",
    )
    assert nvrtc._include_folders() == [root / "cu13/include", root / "cu13/include/cccl"]


@pytest.mark.parametrize(
    ("major", "files", "advice"),
    [
        (12, [], r"CUDA 12's headers: pip install 'hmseg\[cuda\]'"),
        (12, ["nvidia/cuda_runtime/include/cuda_fp16.h"], r"CUDA 12's headers"),
        # What a torch for CUDA 13 brings.
        (13, ["nvidia/cu13/include/cuda_fp16.h"], r"CUDA 13's headers: .*'hmseg\[cuda13\]'"),
    ],
)
def test_missing_headers(wheels, major, files, advice):
    wheels(major, *files)
    with pytest.raises(UserError, match=advice):
        nvrtc._include_folders()


def test_default_architectures_are_those_that_the_toolkit_knows(monkeypatch):
    monkeypatch.setattr(nvrtc, "_import", lambda: of_version(13, (75, 80, 86, 90, 100)))
    assert resolve_target("cuda").features == ("sm_75", "sm_80", "sm_86", "sm_90")
    with pytest.raises(UserError, match=r"architecture 'sm_61': CUDA 13\.0 knows sm_75"):
        resolve_target("cuda", "sm_61")
    monkeypatch.setattr(nvrtc, "_import", lambda: of_version(12, (61, 75, 80, 86, 90)))
    assert resolve_target("cuda").features == CUDA_ARCHITECTURES


SOURCE = 'extern "C" __global__ void k(float* x) { x[0] = 1.0f; }'


@pytest.fixture
def compiled(monkeypatch):
    """What the compiler is asked for."""
    asked: list[tuple[str, ...]] = []
    real = nvrtc._compile

    def compile_(*given):
        asked.append(given)
        return real(*given)

    monkeypatch.setattr(nvrtc, "_compile", compile_)
    return asked


def test_the_cache_gives_what_the_compiler_gave(compiled, tmp_path):
    for work in (nvrtc.compile_cubin, nvrtc.compile_ptx):
        first = work(SOURCE, "sm_90", ObjectCache(tmp_path))
        again = work(SOURCE, "sm_90", ObjectCache(tmp_path))
        assert again == first == work(SOURCE, "sm_90")
        assert len(compiled) == 2  # with an empty cache and with none
        compiled.clear()


def test_the_cache_tells_apart_what_the_compiler_makes(compiled, tmp_path, monkeypatch):
    def ask(work=nvrtc.compile_cubin, source=SOURCE, architecture="sm_90"):
        compiled.clear()
        work(source, architecture, ObjectCache(tmp_path))
        return len(compiled)

    cases = [{}, {"work": nvrtc.compile_ptx}, {"source": SOURCE + "\n"}, {"architecture": "sm_80"}]
    assert [ask(**case) for case in cases] == [1, 1, 1, 1]
    assert [ask(**case) for case in cases] == [0, 0, 0, 0]
    monkeypatch.setattr(nvrtc, "_OPTIONS", (*nvrtc._OPTIONS, "--fmad=false"))
    assert (ask(), ask()) == (1, 0)
    monkeypatch.setattr(nvrtc, "version", lambda name: "99")
    assert (ask(), ask()) == (1, 0)


def test_no_cache_where_it_is_not_known_what_compiles(compiled, tmp_path, monkeypatch):
    """A toolkit that is not in wheels."""

    def unknown(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(nvrtc, "version", unknown)
    for _ in range(2):
        nvrtc.compile_cubin(SOURCE, "sm_90", ObjectCache(tmp_path))
    assert len(compiled) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("major", "suffix"), [(12, "-cu12"), (13, "")])
def test_the_wheels_of_a_toolkit(monkeypatch, major, suffix):
    monkeypatch.setattr(nvrtc, "_import", lambda: of_version(major))
    monkeypatch.setattr(nvrtc, "version", lambda name: "7")
    wheels = [f"nvidia-cuda-{part}{suffix} 7" for part in ("nvrtc", "runtime", "cccl")]
    assert nvrtc._packages() == tuple(wheels)
