"""Winograd's convolutions by F(2, 3) alone, which rounds no more than the plain sum does (measured:
decision 0038): for networks in which a rounding chooses between values."""

from functools import partial

from deploy.cpu.kernels import conv_winograd

supports = partial(conv_winograd.supports, large=False)
default_schedule = partial(conv_winograd.default_schedule, large=False)
pack = partial(conv_winograd.pack, large=False)
emit = partial(conv_winograd.emit, large=False)
