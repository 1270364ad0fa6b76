"""The lowest room: errors and files that every package shares, and the latency table.

Nothing here imports torch, TVM, ``hmseg`` or ``deploy``.
"""
