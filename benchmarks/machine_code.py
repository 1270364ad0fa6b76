"""Whether a change of the source changed the machine code: hashes of every kernel of many frames.

    python -m benchmarks.machine_code                       # write results/machine-code.json
    python -m benchmarks.machine_code --compare results.json [--networks mrms --targets neon]

Networks of the zoo and random genotypes (seeds 1 to 3, half width), 19 classes, 256x512, weights of
one seed; AVX2, AVX-512 and NEON for two threads, and CUDA in both precisions; schedules are the
rule's, without tuning records. For each network and target there are lists of SHA-256:

- ``main`` and ``logits``: what a frame calls, in order. On a CPU a call is the kernel's object
  file, compiled under the name k; on a GPU it is the launch: the kernel's source, grid, block, and
  the regions of its arguments.
- ``program``, one: what calls the kernels. On a CPU the lowered entries, line by line, with the
  plan of the memory and the buffers of each call; on a GPU the source in front of the kernels, the
  input, the outputs and the arena.
- ``constants``, one: the packed weights and tables, in the order of the calls.

Kernels and buffers are numbered as they first come: what they are called is not seen. The names of
the kernels' parameters are: object files hold them in their messages and debug information, and
TVM sorts the pointers of a GPU's kernel by them. So `code` has, for each object file, the SHA-256
of its instructions and vector constants alone (``.text*`` and ``.rodata.cst*``), and a comparison
says where these are the same.

With --compare the networks are compiled as always, what differs from the file is printed, and the
exit code is 1 if anything does; nothing is written then but for --json. --objects FOLDER keeps each
object file as SHA256.o, to be disassembled where one differs. About five minutes on one core; no
GPU is needed.
"""

import argparse
import hashlib
import json
import random
import re
import shlex
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deploy.cli.console import run_main
from deploy.graph.job import Job
from lut.errors import UserError
from lut.files import check_writable, read_file, write_atomic

RESULTS = Path(__file__).parent / "results" / "machine-code.json"
ZOO = ("mrms", "tiny-mrms", "tiny-hmseg", "mrms-a", "mrms-b", "mrms-c")
SEEDS = (1, 2, 3)
NETWORKS = (*ZOO, *(f"genotype-{seed}" for seed in SEEDS))
CPUS = {"avx2": "x86-64-v3", "avx512": "x86-64-v4", "neon": "arm"}
GPUS = {"cuda-fp32": "fp32", "cuda-fp16": "fp16"}
TARGETS = (*CPUS, *GPUS)
THREADS, SIZE, CLASSES = 2, (256, 512), 19
ENTRIES = ("main", "logits")

Hashes = dict[str, list[str]]  # of a network for a target: by the names in the docstring


@dataclass(frozen=True)
class GpuFrame:
    """What each entry launches, as the plan's JSON has it, the source, and the constants."""

    source: str
    plan: Mapping[str, Any]
    constants: bytes


# All that is the project's, but for errors, files and how a program ends.


def network_graph(name: str) -> Any:
    """The deployable ONNX graph of one of `NETWORKS`, the same in every process."""
    import torch

    from deploy.graph.export import export_network
    from deploy.resolution import Resolution
    from hmseg import zoo
    from hmseg.genotype import random_genotype
    from hmseg.mrms import MRMS, MRMSConfig

    if name in ZOO:
        config = zoo.entry(name).config
    else:
        seed = int(name.rpartition("-")[2])
        config = MRMSConfig(random_genotype(random.Random(seed)), 0.5)
    assert config.num_classes == CLASSES
    torch.manual_seed(0)
    return export_network(MRMS(config), name, Resolution(*SIZE), num_classes=CLASSES)


def cpu_target(name: str) -> Any:
    """A target of `CPUS`."""
    from deploy.targets import resolve_target

    return resolve_target(CPUS[name])


def cpu_frame(graph: Any, target: Any) -> Any:
    """What `graph` is lowered to: a module of kernels and of the entries that call them."""
    from deploy.cpu.pipeline import lower_graph, make_kernels

    return lower_graph(Job(graph, target, make_kernels(target, THREADS, {})))


def object_code(function: Any, target: Any) -> bytes:
    """The object file of one kernel."""
    from deploy.cpu.machine_code import compile_kernel

    return compile_kernel("k", function, target)


def cuda_frame(graph: Any, precision: str) -> GpuFrame:
    """The CUDA source and the plan of `graph`."""
    from deploy.gpu.pipeline import compile_source
    from deploy.targets import resolve_target

    lowered = compile_source(Job(graph, resolve_target("cuda", "sm_90", precision))).lowered
    return GpuFrame(lowered.source, json.loads(lowered.plan.to_json()), lowered.constants)


def versions() -> dict[str, str]:
    """Of what has a part in the code."""
    from tvm.target import codegen

    tools = ("hmseg", "torch", "onnx", "onnxscript", "apache-tvm", "apache-tvm-ffi", "numpy")
    found = {tool: version(tool) for tool in tools}
    return found | {"llvm": str(codegen.llvm_version_major()), "python": sys.version.split()[0]}


# From here on nothing is the project's.


class Transcript:
    """An entry of a lowered module as text without names, and what it calls.

    `calls` are the names of the kernels, in order; `lines` the bindings; `constants` the bytes of
    the calls' constants, with their types and shapes.
    """

    def __init__(self, function: Any) -> None:
        import tvm

        self._ir, self._call, self._tensor = tvm.ir, tvm.relax.Call, tvm.runtime.Tensor
        self.calls: list[str] = []
        self.constants = b""
        self._variables: dict[Any, str] = {}
        self._kernels: dict[str, str] = {}
        self.lines = [", ".join(self._text(parameter) for parameter in function.params)]
        for block in function.body.blocks:
            self.lines += [self._line(binding) for binding in block.bindings]
        self.lines.append(self._text(function.body.body))

    def _line(self, binding: Any) -> str:
        value = binding.value
        if not isinstance(value, self._call):
            return f"{self._text(binding.var)} = {self._text(value)}"
        given, name = value.args, getattr(value.op, "name", str(value.op))
        if name == "relax.call_tir":
            kernel, given = value.args[0].name_hint, value.args[1].fields
            self.calls.append(kernel)
            name = self._kernels.setdefault(kernel, f"k{len(self._kernels)}")
        arguments = ", ".join(self._text(argument) for argument in given)
        types = [str(type_) for type_ in value.ty_args]
        return f"{self._text(binding.var)} = {name}({arguments}) {types} {value.attrs}"

    def _text(self, value: Any) -> str:
        if isinstance(value, self._ir.Var):
            if value not in self._variables:
                self._variables[value] = f"v{len(self._variables)}: {value.ty}"
            return self._variables[value]
        if not isinstance(value, self._ir.GenericConst):
            return str(value)
        if not isinstance(value.value, self._tensor):
            return str(value.value)
        array = value.value.numpy()
        self.constants += f"{array.dtype}{array.shape}".encode() + array.tobytes()
        return f"constant {array.dtype}{array.shape}"


def sha(data: bytes | str) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def code_of(object_file: bytes) -> bytes:
    """The instructions and vector constants of an ELF file, with their sections' names."""
    assert object_file[:6] == b"\x7fELF\x02\x01", "64 bits, little endian"
    (start,) = struct.unpack_from("<Q", object_file, 0x28)
    size, count, names = struct.unpack_from("<HHH", object_file, 0x3A)
    sections = [
        struct.unpack_from("<IIQQQQ", object_file, start + number * size) for number in range(count)
    ]
    parts = []
    for name, _, _, _, offset, length in sections:
        label = object_file[sections[names][4] + name :].split(b"\0", 1)[0]
        if label.startswith((b".text", b".rodata.cst")):
            parts.append(label + b"\0" + object_file[offset : offset + length])
    return b"".join(parts)


def split_source(source: str) -> tuple[str, dict[str, str]]:
    """What stands in front of the kernels, and the source of each, called k there."""
    heads = list(re.finditer(r'^extern "C" __global__ .*?(\w+)\([^()]*\)\s*([;{])', source, re.M))
    ends = [head.start() for head in heads[1:]] + [len(source)]
    kernels = {
        head[1]: re.sub(rf"\b{head[1]}\b", "k", source[head.start() : end]).strip()
        for head, end in zip(heads, ends, strict=True)
        if head[2] == "{"
    }
    assert len(kernels) == source.count('extern "C" __global__') / 2, "each declared and defined"
    return source[: heads[0].start()], kernels


class Objects:
    """Object files of one target; equal kernels are compiled once."""

    def __init__(self, target: Any, folder: Path | None) -> None:
        self.target, self.folder = target, folder
        self.code: dict[str, str] = {}  # by the SHA-256 of the file: that of `code_of` it
        self._known: dict[str, str] = {}

    def sha(self, function: Any) -> str:
        """Of the object file of a kernel."""
        text = function.without_attr("global_symbol").script()
        if text not in self._known:
            data = object_code(function, self.target)
            self._known[text] = sha(data)
            self.code[sha(data)] = sha(code_of(data))
            if self.folder:
                (self.folder / f"{sha(data)}.o").write_bytes(data)
        return self._known[text]


def cpu_hashes(graph: Any, objects: Objects) -> Hashes:
    module = cpu_frame(graph, objects.target)
    entries = {entry: Transcript(module[entry]) for entry in ENTRIES}
    calls = {
        entry: [objects.sha(module[name]) for name in transcript.calls]
        for entry, transcript in entries.items()
    }
    program = "\n".join(line for transcript in entries.values() for line in transcript.lines)
    constants = b"".join(transcript.constants for transcript in entries.values())
    return calls | {"program": [sha(program)], "constants": [sha(constants)]}


def gpu_hashes(graph: Any, precision: str) -> Hashes:
    frame = cuda_frame(graph, precision)
    head, kernels = split_source(frame.source)
    plan = dict(frame.plan)
    entries = plan.pop("entries")
    calls = {
        entry: [
            sha(json.dumps([kernels[kernel], *launch]))
            for kernel, *launch in entries[entry]["launches"]
        ]
        for entry in ENTRIES
    }
    outputs = [entries[entry]["output"] for entry in ENTRIES]
    program = json.dumps([head, plan, outputs], sort_keys=True)
    return calls | {"program": [sha(program)], "constants": [sha(frame.constants)]}


def measure(
    networks: Sequence[str], targets: Sequence[str], folder: Path | None
) -> tuple[dict[str, Hashes], dict[str, str]]:
    """The hashes by network/target, and those of the code by object file."""
    stores = {name: Objects(cpu_target(name), folder) for name in targets if name in CPUS}
    frames: dict[str, Hashes] = {}
    for network in networks:
        graph = network_graph(network)
        for target in targets:
            start = time.perf_counter()
            if target in CPUS:
                hashes = cpu_hashes(graph, stores[target])
            else:
                hashes = gpu_hashes(graph, GPUS[target])
            frames[f"{network}/{target}"] = hashes
            seconds = time.perf_counter() - start
            print(f"{seconds:6.1f} s  {network}/{target}", file=sys.stderr, flush=True)
    code = {key: value for store in stores.values() for key, value in store.code.items()}
    return frames, dict(sorted(code.items()))


def differences(
    frames: Mapping[str, Hashes], others: Mapping[str, Hashes], code: Mapping[str, str]
) -> list[str]:
    """A line for each that differs from `others`, for each that only one side has; `code` is that
    of both sides."""
    lines = []
    for key in dict.fromkeys((*others, *frames)):
        if key not in frames or key not in others:
            lines.append(f"{key}: only in the {'other file' if key in others else 'new one'}")
            continue
        for name in dict.fromkeys((*others[key], *frames[key])):
            old, new = others[key].get(name, []), frames[key].get(name, [])
            if len(old) != len(new):
                lines.append(f"{key}: {name} has {len(new)} calls, had {len(old)}")
            lines += [
                f"{key}: {name}[{position}] was {a}, is {b}{_how(a, b, code)}"
                for position, (a, b) in enumerate(zip(old, new, strict=False))
                if a != b
            ]
    return lines


def _how(old: str, new: str, code: Mapping[str, str]) -> str:
    if not {old, new} <= set(code):
        return ""
    return " (the same instructions)" if code[old] == code[new] else " (other instructions)"


def read_results(path: Path) -> dict[str, Any]:
    """What this script wrote; raises UserError for anything else."""
    text = read_file(path)
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict) or not {"frames", "code", "versions"} <= set(data):
        raise UserError(f"{path}: not written by benchmarks.machine_code")
    return data


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--compare", type=Path, metavar="JSON", help="with what was found before")
    parser.add_argument("--json", type=Path, help=f"where to write; else, not comparing, {RESULTS}")
    parser.add_argument("--objects", type=Path, metavar="FOLDER", help="keep the object files")
    options = parser.parse_args()
    other = read_results(options.compare) if options.compare else None
    chosen = {f"{network}/{target}" for network in options.networks for target in options.targets}
    if not (options.json or options.compare) and len(chosen) < len(NETWORKS) * len(TARGETS):
        raise UserError(f"{RESULTS} holds all networks and targets: name another file with --json")
    output = options.json or (None if other else RESULTS)
    if output:
        check_writable(output)
    if options.objects:
        options.objects.mkdir(parents=True, exist_ok=True)
    frames, code = measure(options.networks, options.targets, options.objects)
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.machine_code", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "frames": frames,
        "code": code,
    }
    if output:
        write_atomic(output, json.dumps(result, indent=1) + "\n")
    if other is None:
        print(f"{len(frames)} frames, {len(code)} object files; written to {output}")
        return 0
    for tool, now in versions().items():
        if (before := other["versions"].get(tool)) != now:
            print(f"note: {tool} was {before}, is {now}", file=sys.stderr)
    others = {key: value for key, value in other["frames"].items() if key in chosen}
    lines = differences(frames, others, other["code"] | code)
    print("\n".join([*lines, f"{len(frames)} frames compared, {len(lines)} differences"]))
    return 1 if lines else 0


if __name__ == "__main__":
    run_main(main)
