"""Networks on GPUs: kernels, the plan of a frame, machine code, and the drivers that run it."""
