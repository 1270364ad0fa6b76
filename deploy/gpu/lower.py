"""From a module of scheduled kernels to their source and the plan of a frame."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from numpy.typing import NDArray
from tvm import relax

from deploy.gpu.plan import Entry, Extents, Launch, Life, Plan, Region, aligned, place
from lut.errors import UserError

_AXES = {f"{index}.{axis}" for index in ("blockIdx", "threadIdx") for axis in "xyz"}


@dataclass(frozen=True)
class KernelCode:
    """A PrimFunc as the device sees it: the kernel's name, the PrimFunc's parameters that its
    pointers are, by number, and its launch."""

    kernel: str
    arguments: tuple[int, ...]
    grid: Extents
    block: Extents


@dataclass(frozen=True)
class Lowered:
    """Source for the device, the plan, and the bytes of the constants."""

    source: str
    plan: Plan
    constants: bytes


def lower_module(module: tvm.IRModule, target: tvm.target.Target) -> Lowered:
    """Lower every function of a module whose ``main`` (and other entries) call PrimFuncs only.

    Raises UserError for an operator that became no PrimFunc.
    """
    functions = {
        var.name_hint: function
        for var, function in module.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    }
    source, codes = lower_kernels(functions, target)
    constants = _Constants()
    drafts = {
        var.name_hint: _Draft(function, codes, constants)
        for var, function in module.functions.items()
        if isinstance(function, relax.Function)
    }
    head = constants.size
    draft = next(iter(drafts.values()))
    input_ = Region(head, draft.input_bytes)
    base = head + aligned(draft.input_bytes)
    entries, end = {}, base
    for name, draft in drafts.items():
        entries[name], used = draft.finish(base, input_)
        end = max(end, base + used)
    plan = Plan(end, head, input_, entries)
    return Lowered(source, plan, constants.data())


def lower_kernels(
    functions: dict[str, Any], target: tvm.target.Target
) -> tuple[str, dict[str, list[KernelCode]]]:
    """Source of all the kernels, and what each PrimFunc launches, in order."""
    split: dict[str, tvm.IRModule] = {}

    @tvm.instrument.pass_instrument
    class Watch:
        def run_before_pass(self, module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
            # Here kernels and the host's functions, which only launch them, are apart.
            if info.name.endswith("MakePackedAPI"):
                split["module"] = module

    named = {name: f.with_attr("global_symbol", name) for name, f in functions.items()}
    context = tvm.transform.PassContext.current()
    with tvm.transform.PassContext(opt_level=context.opt_level, instruments=[Watch()]):
        built = tvm.tirx.build(tvm.IRModule(named), target=target)
    codes = {
        var.name_hint: _launches(function)
        for var, function in split["module"].functions.items()
        if var.name_hint in functions
    }
    return str(built.imports[0].inspect_source()), codes


def _launches(function: tvm.tirx.PrimFunc) -> list[KernelCode]:
    numbers = {parameter: number for number, parameter in enumerate(function.params)}
    found: list[KernelCode] = []
    missing: list[str] = []  # raised behind the walk, which would make another error of it

    def declare(node: tvm.tirx.DeclBuffer) -> None:
        if not missing:  # else it may be a view of what is refused
            numbers[node.buffer] = numbers[node.data.args[0]]  # a view of a parameter

    def refuse(_node: tvm.tirx.AllocBuffer) -> None:
        missing.append("memory between two kernels")

    def read(call: tvm.ir.Call) -> None:
        if call.op.name != "tirx.call_ffi_kernel":
            return
        axes = [str(axis) for axis in call.attrs["launch_params"]]
        missing.extend(axis for axis in axes if axis not in _AXES)
        if missing:
            return
        name, *pointers = call.args[: len(call.args) - len(axes)]
        sizes = dict(zip(axes, map(int, call.args[len(call.args) - len(axes) :]), strict=True))
        found.append(
            KernelCode(
                str(name.value),
                tuple(numbers[pointer.args[0]] for pointer in pointers),
                _extents(sizes, "blockIdx"),
                _extents(sizes, "threadIdx"),
            )
        )

    tvm_ffi.structural_walk(
        function.body,
        [(tvm.tirx.DeclBuffer, declare), (tvm.tirx.AllocBuffer, refuse), (tvm.ir.Call, read)],
    )
    if missing:
        raise UserError(
            f"the operator {function.attrs['global_symbol']} needs {missing[0]}, which GPU targets "
            "do not plan; replace it in the network"
        )
    return found


def _extents(sizes: dict[str, int], prefix: str) -> Extents:
    x, y, z = (sizes.get(f"{prefix}.{axis}", 1) for axis in "xyz")
    return x, y, z


class _Draft:
    """The launches of one entry, before its maps have their places."""

    def __init__(
        self,
        function: relax.Function,
        codes: dict[str, list[KernelCode]],
        constants: "_Constants",
    ) -> None:
        (image,) = function.params
        self.input_bytes = _bytes_of(image.ty)
        self._places: dict[relax.Var, Region | int] = {image: -1}  # a number: that of a map
        self._calls: list[tuple[KernelCode, list[Region | int]]] = []
        self._sizes: list[int] = []
        self._codes, self._constants = codes, constants
        for block in function.body.blocks:
            for binding in block.bindings:
                self._read(binding.var, binding.value)
        result = self._places[function.body.body]
        assert isinstance(result, int)
        self._result = result

    def _read(self, var: relax.Var, value: relax.Expr) -> None:
        if isinstance(value, relax.Var):
            self._places[var] = self._places[value]
            return
        if not isinstance(value, relax.Call) or value.op.name != "relax.call_tir":
            name = value.op.name if isinstance(value, relax.Call) else type(value).__name__
            raise UserError(f"GPU targets cannot lower {name}; replace it in the network")
        function, arguments = value.args[0], value.args[1].fields
        places = [self._place(argument) for argument in arguments]
        self._sizes.append(_bytes_of(var.ty))
        self._places[var] = len(self._sizes) - 1
        places.append(self._places[var])
        for code in self._codes[function.name_hint]:
            self._calls.append((code, [places[number] for number in code.arguments]))

    def _place(self, argument: relax.Expr) -> Region | int:
        if isinstance(argument, relax.Var):
            return self._places[argument]
        return self._constants.place(argument.value.numpy())

    def finish(self, base: int, input_: Region) -> tuple[Entry, int]:
        """The entry with its maps behind `base`, and how many bytes they take."""
        uses: list[list[int]] = [[] for _ in self._sizes]
        for number, (_, places) in enumerate(self._calls):
            for place_ in places:
                if isinstance(place_, int) and place_ >= 0:
                    uses[place_].append(number)
        uses[self._result].append(len(self._calls))  # read back when all is done
        lives = [
            Life(size, min(used), max(used)) for size, used in zip(self._sizes, uses, strict=True)
        ]
        offsets, total = place(lives)
        regions = [
            Region(base + offset, size) for offset, size in zip(offsets, self._sizes, strict=True)
        ]

        def region(place_: Region | int) -> Region:
            if isinstance(place_, Region):
                return place_
            return input_ if place_ < 0 else regions[place_]

        launches = tuple(
            Launch(code.kernel, code.grid, code.block, tuple(region(p) for p in places))
            for code, places in self._calls
        )
        return Entry(launches, regions[self._result]), total


class _Constants:
    def __init__(self) -> None:
        self._placed: dict[bytes, Region] = {}
        self.size = 0

    def place(self, value: NDArray[Any]) -> Region:
        """Where a constant lies; equal ones share their bytes."""
        raw = np.ascontiguousarray(value).tobytes()
        if raw not in self._placed:
            self._placed[raw] = Region(self.size, len(raw))
            self.size += aligned(len(raw))
        return self._placed[raw]

    def data(self) -> bytes:
        return b"".join(raw.ljust(aligned(len(raw)), b"\0") for raw in self._placed)


def _bytes_of(ty: relax.TensorType) -> int:
    return math.prod(int(size) for size in ty.shape) * np.dtype(str(ty.dtype)).itemsize
