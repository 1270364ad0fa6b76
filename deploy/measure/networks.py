"""Networks of the search space, built for measuring: each kernel is compiled once for all of them.

The graph takes the real pipeline (export, import, every pass), so kernels, schedules, layouts and
the memory plan are those of `deploy.build.build_artifact`. Only machine code is shared: a
kernel becomes an object file when a network first calls it, and later networks are linked with it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import onnx
import tvm
from tvm import relax

from deploy.artifact import Artifact, ArtifactTarget, Golden
from deploy.build import TOOLS
from deploy.cpu.machine_code import (
    compile_kernel,
    link_objects,
    on_all_cores,
    write_object,
)
from deploy.cpu.passes.insert_clock import TICK, InsertClock, called_functions, calls_kernel
from deploy.cpu.pipeline import lower_graph, make_kernels
from deploy.graph.export import export_network, read_metadata
from deploy.graph.place import OPERATION
from deploy.measure.entries import entries_of
from deploy.resolution import Resolution
from deploy.schedules import Fields
from deploy.street import draw_street
from deploy.targets import Target
from hmseg.genotype import Genotype
from hmseg.mrms import MRMS, MRMSConfig
from hmseg.operators import Space
from lut.errors import UserError, WorkError
from lut.ops import Operation


@dataclass(frozen=True)
class TimedNetwork:
    """An artifact with the entry ``timed``.

    `keys` are the table's entries that the network is the sum of, one for each of their calls;
    `calls` the entry of each kernel call, in order: an entry may have two kernels.
    """

    genotype: Genotype
    artifact: Artifact
    keys: tuple[Operation, ...]
    calls: tuple[Operation, ...]


class Factory(Protocol):
    """What builds networks for measuring; a context, whose end frees what it holds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...  # fmt: skip

    def build_ahead(self, genotypes: Sequence[Genotype]) -> None:
        """Say which networks will be asked for, in which order."""

    def build(self, genotype: Genotype) -> TimedNetwork:
        """Build one network with random weights; several threads may call.

        Raises WorkError where it calls other kernels than `Space.keys` says.
        """


class NetworkFactory:
    """Builds networks of one space for one target; a context, whose end deletes the objects.

    Raises UserError for a target without kernels of ours.
    """

    def __init__(
        self, space: Space, target: Target, threads: int, measured: Mapping[str, Fields]
    ) -> None:
        self.space, self.target, self.threads = space, target, threads
        kernels = make_kernels(target, threads, measured)
        if kernels is None:
            raise UserError(
                f"lut: there are no kernels for {target.config.get('mcpu')}: no latency table"
            )
        self._kernels = kernels
        self._folder = tempfile.TemporaryDirectory(prefix="hmseg-lut-")
        self._lock = Lock()
        self._objects: dict[str, Path] = {}  # by spec, as text, or TICK; the stem is the symbol

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._folder.cleanup()

    @property
    def compiled(self) -> int:
        """How many kernels have been compiled so far."""
        return len(self._objects.keys() - {TICK})

    def build_ahead(self, genotypes: Sequence[Genotype]) -> None:
        """Nothing is: compiling would disturb what is measured on the same cores."""

    def build(self, genotype: Genotype) -> TimedNetwork:
        """As `Factory.build`; calls from several threads wait for each other."""
        with self._lock:
            return self._build(genotype)

    def _build(self, genotype: Genotype) -> TimedNetwork:
        graph = export_genotype(genotype, self.space)
        module = lower_graph(graph, self.target, kernels=self._kernels)
        specs = {
            var.name_hint: str(function.attrs[OPERATION])
            for var, function in module.functions.items()
            if isinstance(function, tvm.tirx.PrimFunc)
        }
        calls = self._calls(module, specs, genotype)
        clock: tvm.transform.Pass = InsertClock()
        module, specs = clock(module), specs | {TICK: TICK}
        self._compile(module, specs)
        objects = {name: self._objects[spec] for name, spec in specs.items()}
        module = _renamed(module, {name: path.stem for name, path in objects.items()})
        library = Path(self._folder.name) / "network.so"
        link_objects(module, [*dict.fromkeys(objects.values())], self.target, library)
        artifact = replace(
            unchecked_artifact(graph, self.target, self.threads),
            library=library.read_bytes(), calls=tuple(called_functions(module["main"])),
        )  # fmt: skip
        return TimedNetwork(genotype, artifact, tuple(self.space.keys(genotype)), calls)

    def _calls(
        self, module: tvm.IRModule, specs: Mapping[str, str], genotype: Genotype
    ) -> tuple[Operation, ...]:
        called = [specs[name] for name in called_functions(module["main"])]
        entries = self.space.keys(genotype)
        try:
            found = entries_of(called, entries, self._kernels.has)
        except WorkError as error:
            raise WorkError(f"'{genotype}' is not compiled to its entries: {error}") from error
        return tuple(entry for entry, calls in found for _ in range(calls))

    def _compile(self, module: tvm.IRModule, specs: Mapping[str, str]) -> None:
        """Make an object file of every kernel that has none yet."""
        new = {spec: name for name, spec in specs.items() if spec not in self._objects}
        paths = {
            spec: Path(self._folder.name) / f"kernel{len(self._objects) + index}.o"
            for index, spec in enumerate(new)
        }

        def compile_one(spec: str) -> None:
            path = paths[spec]
            write_object(compile_kernel(path.stem, module[new[spec]], self.target), path)

        on_all_cores(compile_one, paths)
        self._objects |= paths


def export_genotype(genotype: Genotype, space: Space) -> onnx.ModelProto:
    """The graph of a network with random weights, with both ends."""
    model = MRMS(MRMSConfig(genotype, space.width, space.num_classes))
    size = Resolution(*space.resolution)
    return export_network(model, "search-space", size, num_classes=space.num_classes)


def unchecked_artifact(graph: onnx.ModelProto, target: Target, threads: int) -> Artifact:
    """An artifact without its code, and without what the reference makes of the golden image."""
    metadata = read_metadata(graph)
    height, width = metadata.resolution
    return Artifact(
        library=b"",
        target=ArtifactTarget(
            target.name, target.config, target.architecture, target.features, target.precision
        ),
        metadata=metadata,
        golden=Golden.sampled(
            draw_street(metadata.resolution),
            np.zeros((height, width), np.uint8),
            np.zeros((len(metadata.classes), height, width), np.float32),
        ),
        parity={"checked": False, "reason": "built for measuring latency only"},
        versions={tool: version(tool) for tool in TOOLS},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kernels=(),
        threads=threads,
    )


def _renamed(module: tvm.IRModule, symbols: Mapping[str, str]) -> tvm.IRModule:
    """The module with its kernels under other names."""
    renamed = tvm.IRModule(attrs=module.attrs)
    for var, function in module.functions.items():
        if isinstance(function, tvm.tirx.PrimFunc):
            symbol = symbols[var.name_hint]
            renamed[symbol] = function.with_attr("global_symbol", symbol)
    variables = {name: renamed.get_global_var(symbol) for name, symbol in symbols.items()}
    for var, function in module.functions.items():
        if isinstance(function, relax.Function):
            renamed[var.name_hint] = _calling(function, variables)
    return renamed


def _calling(function: relax.Function, variables: Mapping[str, tvm.ir.GlobalVar]) -> relax.Function:
    blocks = [
        relax.BindingBlock([_binding(binding, variables) for binding in block.bindings])
        for block in function.body.blocks
    ]
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(
        function.params, body, function.ret_ty, is_pure=bool(function.is_pure)
    ).with_attrs(dict(function.attrs.items()))


def _binding(binding: relax.Binding, variables: Mapping[str, tvm.ir.GlobalVar]) -> relax.Binding:
    value = binding.value
    if not calls_kernel(value):
        return binding
    arguments: Sequence[Any] = value.args
    call = relax.Call(variables[value.op.name_hint], arguments, value.attrs, value.ty_args)
    return relax.VarBinding(binding.var, call)
