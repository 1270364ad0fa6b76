"""NameKernels: kernels that are called what they compute."""

import hashlib
import re

import tvm
import tvm_ffi
from tvm import relax

PROGRAM = "hmseg.program"  # attribute of a PrimFunc: the SHA-256 of its program
_LONGEST, _DIGITS = 80, 12
_NO_NAME = re.compile(r"\W", re.ASCII)  # in C
_NUMBER = re.compile(r"(?<=[a-z])\d+(?=_|$)")  # add3, conv2d1; not the 2 of conv2d


@tvm.transform.module_pass(opt_level=0, name="NameKernels")
class NameKernels:
    """Name every kernel by its program, so that one object file serves all networks that call it.

    Before: kernels numbered as they came, ``inverted_residual3``. After: ``inverted_residual_`` and
    the first digits of the SHA-256 of its program, which is whole in the attribute `PROGRAM`; equal
    kernels are one. When: behind every pass that changes a kernel.
    """

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        builder = relax.BlockBuilder()
        programs: dict[str, tvm.ir.GlobalVar] = {}
        variables: dict[str, tvm.ir.GlobalVar] = {}  # by the name before
        for var, function in module.functions.items():
            if not isinstance(function, tvm.tirx.PrimFunc):
                continue
            program = program_of(function)
            if program not in programs:
                name = _NO_NAME.sub("_", _NUMBER.sub("", var.name_hint))[:_LONGEST]
                symbol = f"{name}_{program[:_DIGITS]}"
                marked = function.with_attrs({"global_symbol": symbol, PROGRAM: program})
                programs[program] = builder.add_func(marked, symbol)
                assert programs[program].name_hint == symbol
            variables[var.name_hint] = programs[program]
        named = builder.get().with_attrs(module.attrs or {})
        for var, function in module.functions.items():
            if not isinstance(function, tvm.tirx.PrimFunc):
                named[var] = tvm_ffi.structural_map(
                    function, (tvm.ir.GlobalVar, lambda v: variables.get(v.name_hint, v))
                )
        return named


def program_of(function: tvm.tirx.PrimFunc) -> str:
    """The SHA-256 of a PrimFunc without its name.

    Of TVM's own JSON, which has every field. The text that TVM prints is shorter, but TVM's parser
    does not read all of our kernels back as they were; TVM's structural hash has 64 bits and is not
    promised to be the same in another process.
    """
    nameless = function.without_attr("global_symbol").without_attr(PROGRAM)
    return hashlib.sha256(tvm.ir.save_json(nameless).encode()).hexdigest()
