"""CPUs as targets: by alias, x86-64 level, LLVM's name, TVM's tag or JSON."""

import difflib
from dataclasses import replace
from typing import Any

from deploy import host
from deploy.cpu.cpu_names import CPU_NAMES
from deploy.precision import BF16
from deploy.target import Target
from lut.errors import UserError

X86_64_LEVELS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")

# TVM's JSON by alias. Cortex-A73: the big cores of the Snapdragon 835, ARMv8.0; what is compiled
# for it runs on every 64-bit ARM CPU of a phone or a board with the same extensions.
ARM_MCPU = "cortex-a73"
ALIASES: dict[str, dict[str, Any]] = {
    "arm": {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": ARM_MCPU},
    "android": {"kind": "llvm", "mtriple": "aarch64-linux-android", "mcpu": ARM_MCPU},
}
ARCHITECTURES = ("x86_64", "aarch64")  # as ``uname -m`` prints them
WORDS = ("cpu", *ALIASES, *X86_64_LEVELS)

# The features, in LLVM's names, that sums of products of bfloat16 need.
_BFLOAT16 = {"x86_64": ("avx512f", "avx512bf16"), "aarch64": ("neon", "bf16")}

# Processor families by the first word of LLVM's triple, and what stands where `mcpu` is missing.
_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_DEFAULTS = {
    "x86_64": ("x86_64-linux-gnu", "x86-64"),
    "aarch64": ("aarch64-linux-gnu", ARM_MCPU),
}


def check_cpu(text: str, config: dict[str, Any] | None, known: str) -> None:
    """Raise UserError, as `resolve_cpu`, for what is known to be none without TVM's help: it is
    asked for tags, and for features in JSON."""
    if config is not None:
        _named(config, "json", known)
    elif text != "cpu" and text not in ALIASES and not text.startswith("arm/"):
        _named({"mtriple": _triple_of(text), "mcpu": text}, text, known)


def resolve_cpu(text: str, config: dict[str, Any] | None, known: str) -> Target:
    """The target of an alias, a name, a tag, or of TVM's JSON, read as `config`; `known` names all
    words that stand for a target. Raises UserError for anything else."""
    if config is not None:
        return _cpu_target("json", config, known)
    if text == "cpu":
        return host_target()
    if text in ALIASES:
        return _cpu_target(text, ALIASES[text], known)
    if text.startswith("arm/"):
        return _target_from_tag(text)
    return _cpu_target(text, {"kind": "llvm", "mtriple": _triple_of(text), "mcpu": text}, known)


def with_bfloat16(target: Target) -> Target:
    """The target with maps of bfloat16; raises UserError where its CPU does not compute with it."""
    if missing := _missing_for_bfloat16(target):
        raise UserError(
            f"--precision bf16: {target.machine} has no {' and no '.join(missing)}, the "
            "instructions for it; leave --precision out for fp32, or compile for a CPU that has "
            "them, such as znver4, sapphirerapids or neoverse-v1"
        )
    return replace(target, precision=BF16)


def _missing_for_bfloat16(target: Target) -> list[str]:
    needed = _BFLOAT16[target.architecture]
    return [feature for feature in needed if feature not in target.features]


def host_target() -> Target:
    """This machine's CPU, with features that the hypervisor hides switched off."""
    if host.architecture() not in _DEFAULTS:
        raise UserError(
            f"target cpu: this machine is {host.architecture()}; this version compiles for "
            f"{' and '.join(_DEFAULTS)}"
        )
    from tvm.target import codegen

    triple, _ = _DEFAULTS[host.architecture()]
    config = {"kind": "llvm", "mtriple": triple, "mcpu": codegen.llvm_get_system_cpu()}
    plain = _cpu_target("cpu", config)
    hidden = host.missing_features(plain.features, host.cpu_flags())
    if not hidden:
        return plain
    config = {**plain.config, "mattr": [f"-{name}" for name in hidden]}
    return _cpu_target("cpu", config)


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
    known = [family for family in _DEFAULTS if mcpu in CPU_NAMES[family]]
    return _DEFAULTS[(known or list(_DEFAULTS))[0]][0]


def _named(config: dict[str, Any], name: str, known: str) -> tuple[str, str, str]:
    """The triple, architecture and CPU that TVM's JSON names or leaves out."""
    triple = config.get("mtriple", _DEFAULTS["x86_64"][0])
    architecture = _ARCHITECTURES.get(str(triple).partition("-")[0])
    if architecture is None:
        raise UserError(
            f"target {name!r}: this version compiles for x86_64 and aarch64, not {triple!r}"
        )
    mcpu = config.get("mcpu", _DEFAULTS[architecture][1])
    if not isinstance(mcpu, str) or mcpu not in CPU_NAMES[architecture]:
        words = [*known.split(", "), *sorted(CPU_NAMES[architecture])]
        near = difflib.get_close_matches(str(mcpu), words, n=1, cutoff=0.7)  # a gpu is no cpu
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(
            f"unknown target {mcpu!r}: {hint}use {known}, "
            "a CPU name of LLVM such as skylake-avx512 or cortex-a76, or TVM's JSON"
        )
    return str(triple), architecture, mcpu


def _cpu_target(name: str, config: dict[str, Any], known: str = "") -> Target:
    triple, architecture, mcpu = _named(config, name, known)
    import tvm
    from tvm.target import codegen

    config = {"mtriple": triple, **config, "mcpu": mcpu}
    try:
        target = tvm.target.Target(config)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        line = str(error).strip().splitlines()[-1]
        raise UserError(f"target {name!r}: TVM does not take it: {line}") from error
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
