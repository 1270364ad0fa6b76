"""Passes of CPUs alone; `deploy.cpu.pipeline` puts them in order."""
