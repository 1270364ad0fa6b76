"""Targets as data: what a binary is compiled for and what a machine must have to run it."""

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from deploy import host
from deploy.precision import Precision, parse_precision
from lut.errors import UserError

X86_64_LEVELS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")

# TVM's JSON by alias. Cortex-A73: the big cores of the Snapdragon 835, ARMv8.0; what is compiled
# for it runs on every 64-bit ARM CPU of a phone or a board with the same extensions.
ARM_MCPU = "cortex-a73"
ALIASES: dict[str, dict[str, Any]] = {
    "arm": {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": ARM_MCPU},
    "android": {"kind": "llvm", "mtriple": "aarch64-linux-android", "mcpu": ARM_MCPU},
}

# What GPUs of CUDA and OpenCL allow a kernel: TVM's rules for loops that are not ours ask for it.
_GPU_LIMITS = {
    "cuda": {"max_threads_per_block": 1024, "max_shared_memory_per_block": 49152},
    "opencl": {"max_threads_per_block": 256, "max_shared_memory_per_block": 32768},
}
# One of each generation since the paper's card, a GTX 1080 Ti (sm_61), which CUDA 13 does not know;
# later ones compile the last one's PTX when they load it.
CUDA_ARCHITECTURES = ("sm_61", "sm_75", "sm_80", "sm_86", "sm_90")
_LEAST_FP16 = 53  # GPUs before sm_53 have no half
_GPU_ALIASES = ("cuda", "adreno")
_ADRENO_HOST = "aarch64-linux-android"

# Processor families by the first word of LLVM's triple, and what stands where `mcpu` is missing.
_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_DEFAULTS = {
    "x86_64": ("x86_64-linux-gnu", "x86-64"),
    "aarch64": ("aarch64-linux-gnu", ARM_MCPU),
}


@dataclass(frozen=True)
class Target:
    """A named compilation target.

    `config` is TVM's own JSON form; `architecture` as ``uname -m`` prints it; `features` the CPU
    features, in LLVM's names, that the generated code may use. Of a GPU, `architecture` is ``cuda``
    or ``opencl``, and `features` are the architectures that machine code is made for. `precision`
    is another than ``fp32`` for CUDA only.
    """

    name: str
    config: dict[str, Any] = field(hash=False)
    architecture: str
    features: tuple[str, ...]
    precision: Precision = "fp32"

    @property
    def key(self) -> str:
        """A short text that identifies equal code generation: records are filtered by it."""
        config = self.config
        if self.precision != "fp32":
            config = config | {"precision": self.precision}
        return json.dumps(config, sort_keys=True, separators=(",", ":"))

    @property
    def gpu(self) -> bool:
        """Whether kernels run on a GPU."""
        return bool(self.config["kind"] != "llvm")

    @property
    def machine(self) -> str:
        """What code is made for, in a word or two."""
        if self.gpu:
            return ", ".join(self.features) or self.name
        return str(self.config["mcpu"])

    @property
    def android(self) -> bool:
        """Whether it links against Android's C library, bionic."""
        return "android" in self.config["mtriple"]


def resolve_target(text: str, architectures: str | None = None, precision: str = "fp32") -> Target:
    """Turn an alias (``cpu``, ``arm``, ``android``, ``cuda``, ``adreno``), an x86-64 level or CPU
    name of LLVM (``x86-64-v3``, ``skylake-avx512``, ``cortex-a76``), an ``arm/``, ``nvidia/`` or
    ``qcom/`` tag of TVM, or TVM's JSON into a Target. `architectures` are those that CUDA's machine
    code is made for, such as ``sm_61,sm_90``; `precision` is ``fp32`` or, for CUDA, ``fp16``.

    Raises UserError, naming what there is, for anything else.
    """
    target = replace(_resolve(text, architectures), precision=parse_precision(precision))
    if architectures is not None and target.architecture != "cuda":
        raise UserError(f"--arch is for --target cuda, not for {text}")
    if precision != "fp32" and target.architecture != "cuda":
        raise UserError(
            f"--precision {precision} is for --target cuda, not for {text}, which is fp32 only"
        )
    if target.architecture == "cuda":
        from deploy.gpu.nvrtc import check_architectures

        check_architectures(target.features)
        old = [name for name in target.features if int(name[3:]) < _LEAST_FP16]
        if precision == "fp16" and old:
            raise UserError(f"--precision fp16 needs sm_{_LEAST_FP16} or later, not {old[0]}")
    return target


def _resolve(text: str, architectures: str | None) -> Target:
    if text == "cpu":
        return host_target()
    if text in ALIASES:
        return _cpu_target(text, ALIASES[text])
    if text == "cuda" or text.startswith("nvidia/"):
        return _cuda_target(text, architectures)
    if text == "adreno" or text.startswith("qcom/"):
        return _adreno_target(text)
    if text.startswith("arm/"):
        return _target_from_tag(text)
    if text.lstrip().startswith("{"):
        return _target_from_json(text, architectures)
    return _cpu_target(text, {"kind": "llvm", "mtriple": _triple_of(text), "mcpu": text})


def _cuda_target(text: str, architectures: str | None) -> Target:
    if architectures is not None:
        names = tuple(name.strip() for name in architectures.split(","))
    elif text == "cuda":
        from deploy.gpu.nvrtc import known_architectures

        names = tuple(name for name in CUDA_ARCHITECTURES if name in known_architectures())
    else:
        # A suffix (sm_90a) allows instructions that no kernel here uses.
        names = (str(_tag(text, "nvidia/geforce-gtx-1080-ti")["arch"]).rstrip("af"),)
    bad = [name for name in names if not re.fullmatch(r"sm_[1-9]\d{1,2}", name)]
    if bad:
        raise UserError(f"unknown GPU architecture {bad[0]!r}: write such as --arch sm_61,sm_90")
    names = tuple(sorted(set(names), key=lambda name: int(name[3:])))
    config = {"kind": "cuda", "arch": names[0], "thread_warp_size": 32, **_GPU_LIMITS["cuda"]}
    return Target(text, config, "cuda", names)


def _adreno_target(text: str) -> Target:
    if text != "adreno" and str(_tag(text, "adreno")["kind"]) != "opencl":
        raise UserError(f"target {text!r}: GPU code for phones is OpenCL; use adreno")
    config = {"kind": "opencl", "device": "adreno", **_GPU_LIMITS["opencl"]}
    return Target(text, config, "opencl", ())


def _tag(text: str, example: str) -> dict[str, Any]:
    """What one of TVM's tags stands for."""
    import tvm

    try:
        config: dict[str, Any] = json.loads(str(tvm.target.Target(text)))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"target {text!r}: TVM has no such tag; use {example}, or JSON") from error
    return config


def host_target() -> Target:
    """This machine's CPU, with features that the hypervisor hides switched off."""
    from tvm.target import codegen

    if host.architecture() not in _DEFAULTS:
        raise UserError(
            f"target cpu: this machine is {host.architecture()}; this version compiles for "
            f"{' and '.join(_DEFAULTS)}"
        )
    triple, _ = _DEFAULTS[host.architecture()]
    config = {"kind": "llvm", "mtriple": triple, "mcpu": codegen.llvm_get_system_cpu()}
    plain = _cpu_target("cpu", config)
    hidden = host.missing_features(plain.features, host.cpu_flags())
    if not hidden:
        return plain
    config = {**plain.config, "mattr": [f"-{name}" for name in hidden]}
    return _cpu_target("cpu", config)


def _known() -> str:
    return ", ".join(("cpu", *ALIASES, *_GPU_ALIASES, *X86_64_LEVELS))


def _target_from_json(text: str, architectures: str | None) -> Target:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UserError(f"target: not JSON ({error})") from error
    if isinstance(config, dict) and config.get("kind") == "cuda":
        named = str(config["arch"]) if "arch" in config else None
        return replace(_cuda_target("cuda", architectures or named), name="json")
    if not isinstance(config, dict) or config.get("kind") != "llvm":
        raise UserError(
            'target: this version compiles for {"kind": "llvm", "mcpu": ...} and '
            '{"kind": "cuda", "arch": ...} only'
        )
    return _cpu_target("json", config)


def _target_from_tag(tag: str) -> Target:
    """The machine of one of TVM's tags; the CPU is the alias's where the tag does not name it."""
    import tvm

    try:
        attrs = tvm.target.Target(tag).attrs
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(
            f"target {tag!r}: TVM has no such tag; use arm, arm/pixel2, or TVM's JSON"
        ) from error
    words = str(attrs["mtriple"]).split("-")
    words[0] = _ARCHITECTURES.get(words[0], words[0])
    mcpu = str(attrs.get("mcpu", ARM_MCPU))
    return _cpu_target(tag, {"kind": "llvm", "mtriple": "-".join(words), "mcpu": mcpu})


def _triple_of(mcpu: str) -> str:
    """The family that knows a CPU's name; x86-64's for a name that none knows."""
    from tvm.target import codegen

    triples = [triple for triple, _ in _DEFAULTS.values()]
    known = [triple for triple in triples if codegen.llvm_is_valid_cpu(mcpu, triple)]
    return (known or triples)[0]


def _cpu_target(name: str, config: dict[str, Any]) -> Target:
    import tvm
    from tvm.target import codegen

    triple = config.get("mtriple", _DEFAULTS["x86_64"][0])
    architecture = _ARCHITECTURES.get(str(triple).partition("-")[0])
    if architecture is None:
        raise UserError(
            f"target {name!r}: this version compiles for x86_64 and aarch64, not {triple!r}"
        )
    mcpu = config.get("mcpu", _DEFAULTS[architecture][1])
    if not isinstance(mcpu, str) or not codegen.llvm_is_valid_cpu(mcpu, triple):
        raise UserError(
            f"unknown target {mcpu!r}: use {_known()}, "
            "a CPU name of LLVM such as skylake-avx512 or cortex-a76, or TVM's JSON"
        )
    config = {"mtriple": triple, **config, "mcpu": mcpu}
    try:
        target = tvm.target.Target(config)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"target {name!r}: TVM does not take it: {_last_line(error)}") from error
    available = {str(feature) for feature in codegen.llvm_get_cpu_features(target)}
    attributes = config.get("mattr", [])
    for attribute in attributes:
        _check_feature(name, mcpu, triple, attribute)
    switched_off = {attribute[1:] for attribute in attributes if attribute.startswith("-")}
    flags = host.FEATURE_FLAGS[architecture]
    features = tuple(f for f in flags if f in available - switched_off)
    return Target(name, config, architecture, features)


def _check_feature(name: str, mcpu: str, triple: str, attribute: str) -> None:
    """LLVM ignores a feature it does not know; a binary without it would be a surprise."""
    import tvm
    from tvm.target import codegen

    feature = attribute[1:]
    probe = {"kind": "llvm", "mcpu": mcpu, "mtriple": triple, "mattr": ["+" + feature]}
    known = codegen.llvm_get_cpu_features(tvm.target.Target(probe))
    if attribute[:1] not in ("+", "-") or feature not in {str(found) for found in known}:
        raise UserError(
            f"target {name!r}: {attribute!r} in mattr is no CPU feature of LLVM with + or - before "
            "it, such as -avx512f"
        )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
