"""CPUs: kernels in blocked layouts, compiled by LLVM, linked into a library."""
