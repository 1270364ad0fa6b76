"""Passes that place GPU kernels, one per file; `deploy.gpu.pipeline` puts them in order."""
