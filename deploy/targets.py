"""Targets as data: what a binary is compiled for and what a machine must have to run it."""

import json
from dataclasses import dataclass, field
from typing import Any

from deploy import host
from lut.errors import UserError

X86_64_LEVELS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")

# Aliases that the design names, with what they will stand for; these are not built yet and say so.
NOT_BUILT_YET = ("cuda", "arm", "android", "adreno")


@dataclass(frozen=True)
class Target:
    """A named compilation target.

    `config` is TVM's own JSON form; `architecture` as ``uname -m`` prints it; `features` the CPU
    features, in LLVM's names, that the generated code may use.
    """

    name: str
    config: dict[str, Any] = field(hash=False)
    architecture: str
    features: tuple[str, ...]

    @property
    def key(self) -> str:
        """A short text that identifies equal code generation: records are filtered by it."""
        return json.dumps(self.config, sort_keys=True, separators=(",", ":"))


def resolve_target(text: str) -> Target:
    """Turn an alias (``cpu``), an x86-64 level or CPU name of LLVM (``x86-64-v3``,
    ``skylake-avx512``), or TVM's JSON into a Target.

    Raises UserError, naming what there is, for anything else.
    """
    if text == "cpu":
        return host_target()
    if text in NOT_BUILT_YET or text.startswith(("nvidia/", "arm/", "qcom/")):
        raise UserError(
            f"target {text!r} is not built in this version; it compiles for CPUs of x86-64: "
            f"cpu, {', '.join(X86_64_LEVELS)}, or a CPU name of LLVM such as skylake-avx512"
        )
    if text.lstrip().startswith("{"):
        return _target_from_json(text)
    return _x86_target(text, {"kind": "llvm", "mcpu": text})


def host_target() -> Target:
    """This machine's CPU, with features that the hypervisor hides switched off."""
    from tvm.target import codegen

    if host.architecture() != "x86_64":
        raise UserError(
            f"target cpu: this machine is {host.architecture()}; this version compiles for x86-64"
        )
    mcpu = codegen.llvm_get_system_cpu()
    plain = _x86_target("cpu", {"kind": "llvm", "mcpu": mcpu})
    hidden = host.missing_features(plain.features, host.cpu_flags())
    if not hidden:
        return plain
    config = {**plain.config, "mattr": [f"-{name}" for name in hidden]}
    return _x86_target("cpu", config)


def _target_from_json(text: str) -> Target:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UserError(f"target: not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("kind") != "llvm":
        raise UserError('target: this version compiles for {"kind": "llvm", "mcpu": ...} only')
    return _x86_target("json", config)


def _x86_target(name: str, config: dict[str, Any]) -> Target:
    import tvm
    from tvm.target import codegen

    mcpu, triple = config.get("mcpu", "x86-64"), config.get("mtriple", "x86_64-linux-gnu")
    if not isinstance(mcpu, str) or not str(triple).startswith("x86_64"):
        raise UserError(f"target {name!r}: this version compiles for x86-64 only, not {triple!r}")
    if not codegen.llvm_is_valid_cpu(mcpu, triple):
        raise UserError(
            f"unknown target {mcpu!r}: use cpu (this machine), {', '.join(X86_64_LEVELS)}, "
            "a CPU name of LLVM such as skylake-avx512, or TVM's JSON"
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
    features = tuple(f for f in host.X86_FEATURE_FLAGS if f in available - switched_off)
    return Target(name, config, "x86_64", features)


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
