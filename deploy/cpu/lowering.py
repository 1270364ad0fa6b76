"""From a kernel of ours to what LLVM takes: a short list of passes instead of TVM's long one.

TVM's own list is for loop nests of any origin, on GPUs too. Our kernels are written as they shall
run: each buffer as large as it is, each loop where it stands, no threads bound, no block but the
root. The other passes change nothing in them, but walk through every unrolled statement
(docs/decisions/0033-short-lowering.md).
"""

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import pipeline as default
from tvm.tirx.compilation_pipeline import register_tir_pipeline

PIPELINE = "hmseg"  # for `pipeline` of tvm.tirx.build and `tir_pipeline` of tvm.compile


def _passes() -> list[tvm.transform.Pass]:
    return [
        # Blocks away: only the root is there, and every allocation stays where it was made.
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        # Flat memory, 32-bit indices, vectors.
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(),
        tirx.transform.StorageRewrite(),
        s_tir.transform.RenormalizeSplitPattern(),
        tirx.transform.StmtSimplify(),
        tirx.transform.CommonSubexprElim(),
        # A function that can be called from outside.
        tirx.transform.AnnotateEntryFunc(),
        tirx.transform.MakePackedAPI(),
    ]


register_tir_pipeline(
    PIPELINE,
    lambda: (
        tvm.transform.Sequential(_passes()),
        default.finalize_host_passes,
        default.finalize_device_passes,
    ),
)
