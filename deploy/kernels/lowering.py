"""From a kernel of ours to what LLVM takes: of TVM's passes, those that such a kernel needs.

TVM's default list is for loop nests of any origin, on GPUs too. Our kernels are written as they
shall run: each buffer as large as it is, each loop where it stands, branches chosen, no threads
bound, no block but the root. What the passes left out would do, they do not need; the passes walk
through every unrolled statement all the same, and took half of the time to compile
(docs/decisions/0033-short-lowering.md). What TVM made is lowered by TVM's own list.
"""

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import pipeline as default
from tvm.tirx.compilation_pipeline import register_tir_pipeline

PIPELINE = "hmseg"  # for `pipeline` of tvm.tirx.build and `tir_pipeline` of relax.build
EMITTED = "hmseg.emitted"  # attribute of the PrimFuncs that `deploy.kernels.ir` builds


def _passes() -> list[tvm.transform.Pass]:
    return [
        # Blocks away: only the root is there, and every allocation stays where it was made.
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        # Flat memory, 32-bit indices, vectors.
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(),
        tirx.transform.StorageRewrite(),
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        tirx.transform.CommonSubexprElim(),
        # A function that can be called from outside.
        tirx.transform.VerifyMemory(),
        tirx.transform.AnnotateEntryFunc(),
        tirx.transform.SplitHostDevice(),
        tirx.transform.MakePackedAPI(),
    ]


def _lower(module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
    functions = module.functions
    ours = {var: f for var, f in functions.items() if f.attrs and EMITTED in f.attrs}
    others = {var: f for var, f in functions.items() if var not in ours}
    theirs, *_ = default.default_s_tir_pipeline()
    result = tvm.transform.Sequential(_passes())(tvm.IRModule(ours, attrs=module.attrs))
    result.update(theirs(tvm.IRModule(others, attrs=module.attrs)))
    return result


register_tir_pipeline(
    PIPELINE,
    lambda: (
        tvm.transform.module_pass(_lower, opt_level=0, name="hmseg.Lower"),
        default.finalize_host_passes,
        default.finalize_device_passes,
    ),
)
