"""Training: losses, loop, metrics, checkpoints."""
