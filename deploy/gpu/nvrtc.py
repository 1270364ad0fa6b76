"""Machine code for NVIDIA's GPUs, ahead of time, on any machine: NVRTC from PyPI's wheels.

One program is compiled once for each architecture that is named, to a cubin, and once to PTX, from
which the driver of a later architecture makes its machine code when it loads the network. The
wheels are CUDA 12's (the extra ``cuda``) or, beside a torch for CUDA 13, CUDA 13's (``cuda13``).
"""

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

from deploy.object_cache import ObjectCache, key_of
from lut.errors import UserError, WorkError

INSTALL = "pip install 'hmseg[cuda]'"
INSTALL_13 = "pip install 'hmseg[cuda13]'"

# Fused multiply-add as everywhere; no fast-math: NaN and infinity keep their meaning, division is
# exact, and fp32 products are never rounded to TF32, which takes an instruction of its own.
_OPTIONS = ("--std=c++17", "--device-as-default-execution-space")

_HEADERS = ("cuda_fp16.h", "cuda/std/cstdint")
_ONE_FOLDER = 13  # the first CUDA whose wheels all lie in one


def known_architectures() -> tuple[str, ...]:
    """Those that the installed toolkit compiles for, such as ``sm_61``. Raises UserError without
    the extra."""
    nvrtc = _import()
    return tuple(f"sm_{number}" for number in _done(nvrtc, nvrtc.nvrtcGetSupportedArchs()))


def toolkit_version() -> str:
    """Such as ``12.9``."""
    nvrtc = _import()
    major, minor = _done(nvrtc, nvrtc.nvrtcVersion())
    return f"{major}.{minor}"


def check_architectures(names: tuple[str, ...]) -> None:
    """Raise UserError for an architecture that the toolkit does not know."""
    known = known_architectures()
    for name in names:
        if name not in known:
            raise UserError(
                f"unknown GPU architecture {name!r}: CUDA {toolkit_version()} knows "
                f"{', '.join(known)}"
            )


def compile_cubin(source: str, architecture: str, cache: ObjectCache | None = None) -> bytes:
    """Machine code (an ELF file) for ``sm_...``: out of the cache, or compiled and put into it.
    Raises WorkError where the compiler refuses."""
    return _cached(source, architecture, "CUBIN", cache)


def compile_ptx(source: str, architecture: str, cache: ObjectCache | None = None) -> bytes:
    """PTX for ``sm_...`` and every later architecture, as `compile_cubin`."""
    return _cached(source, architecture.replace("sm_", "compute_"), "PTX", cache)


def _cached(source: str, architecture: str, kind: str, cache: ObjectCache | None) -> bytes:
    if cache is None or (packages := _packages()) is None:
        return _compile(source, architecture, kind)
    key = key_of(kind, source, architecture, *_OPTIONS, toolkit_version(), *packages)
    found = cache.get(key)
    if found is None:
        found = _compile(source, architecture, kind)
        cache.put(key, found)
    return found


def _packages() -> tuple[str, ...] | None:
    """The wheels of the compiler and of the headers that it reads, with their versions; None where
    they are not all there: then it is not known what a key would have to hold."""
    major = toolkit_version().partition(".")[0]
    suffix = f"-cu{major}" if int(major) < _ONE_FOLDER else ""
    names = [f"nvidia-cuda-{part}{suffix}" for part in ("nvrtc", "runtime", "cccl")]
    try:
        return tuple(f"{name} {version(name)}" for name in names)
    except PackageNotFoundError:
        return None


def _compile(source: str, architecture: str, kind: str) -> bytes:
    nvrtc = _import()
    options = [f"--gpu-architecture={architecture}", *_OPTIONS]
    options += [f"--include-path={folder}" for folder in _include_folders()]
    program = _done(nvrtc, nvrtc.nvrtcCreateProgram(source.encode(), b"hmseg.cu", 0, [], []))
    raw = [option.encode() for option in options]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(raw), raw)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = bytearray(_done(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
        nvrtc.nvrtcGetProgramLog(program, log)
        lines = [line for line in log.decode(errors="replace").splitlines() if "error" in line]
        raise WorkError(f"NVRTC refused the kernels for {architecture}: {(lines or ['?'])[0]}")
    data = bytearray(_done(nvrtc, getattr(nvrtc, f"nvrtcGet{kind}Size")(program)))
    _done(nvrtc, getattr(nvrtc, f"nvrtcGet{kind}")(program, data))
    nvrtc.nvrtcDestroyProgram(program)
    return bytes(data)


def _done(nvrtc: Any, result: tuple[Any, ...]) -> Any:  # noqa: ANN401
    status, *values = result
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise WorkError(f"NVRTC failed: {status.name}")
    return values[0] if len(values) == 1 else values


def _import() -> Any:  # noqa: ANN401 - a module
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()  # finds the library, or raises
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(f"compiling for CUDA needs NVRTC: {INSTALL}") from error
    return nvrtc


def _include_folders() -> list[Path]:
    """Of the headers that the generated source asks for: half precision, fixed-width integers.

    They are those of the NVRTC that compiles: up to CUDA 12 each package has a folder of its own,
    later one folder is all packages'.
    """
    nvrtc = _import()
    major, _ = _done(nvrtc, nvrtc.nvrtcVersion())
    old = major < _ONE_FOLDER
    packages = ("nvidia.cuda_runtime", "nvidia.cuda_cccl") if old else (f"nvidia.cu{major}",)
    places = [place for package in packages for place in _places(package)]
    folders = [place / name for place, name in product(places, ("include", "include/cccl"))]
    found = []
    for header in _HEADERS:
        having = [folder for folder in folders if (folder / header).is_file()]
        if not having:
            raise UserError(
                f"compiling for CUDA needs CUDA {major}'s headers: {INSTALL if old else INSTALL_13}"
            )
        found.append(having[0])
    return found


def _places(package: str) -> list[Path]:
    """The folders of a package; none where it is not installed."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # not even the package that it is in
        return []
    return [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
