"""Winograd's points and kernels, for docs/decisions/0038-winograd.md, and convolutions of far
dilations, for 0042-dilated.md; both with maps of bfloat16 too.

    python -m benchmarks.winograd           # rounding errors, then GMAC/s on one core
    python -m benchmarks.winograd --errors  # rounding errors alone

Errors: a convolution of 64 channels of positive inputs in float32, by numpy, root mean square over
that of the results in double; with operands and results of bfloat16 sums are in double. Speed: the
best of many calls, multiply-adds counted tap by tap, beside the machine's rate by the FMA probe.
"""

import argparse
import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu import winograd
from deploy.cpu.elements import from_bfloat16, to_bfloat16
from deploy.cpu.winograd import HalvingTransform, Transform
from deploy.cpu.winograd_tiles import AnyTransform
from lut.ops import Conv

POINTS = {"5/8, 3/2": (5 / 8, 3 / 2), "3/4, 3/2": (3 / 4, 3 / 2), "1, 2": (1.0, 2.0)}
KINDS: dict[str, AnyTransform] = {
    "F(2, 3)": Transform(2, 3),
    "F(4, 3) at stride 2": HalvingTransform(4, 3),
    "F(2, 3) at stride 2": HalvingTransform(2, 3),
}
SAME = {"kernel": (3, 3), "pad": (1, 1, 1, 1)}
SHAPES = (
    Conv((32,), 32, 64, 128, **SAME), Conv((64,), 64, 32, 64, **SAME),
    Conv((128,), 128, 32, 64, **SAME), Conv((256,), 256, 16, 32, **SAME),
    Conv((512,), 512, 32, 64, **SAME), Conv((128,), 128, 16, 32, groups=8, **SAME),
    Conv((32,), 32, 128, 256, stride=(2, 2), **SAME),
    Conv((64,), 128, 32, 64, stride=(2, 2), **SAME),
)  # fmt: skip
DILATED = tuple(
    Conv((channels,), cout, *size, (3, 3), (1, 1), (d, d), (d, d, d, d), groups=groups)
    for channels, cout, size, d, groups in (
        (320, 256, (16, 32), 6, 1), (320, 256, (16, 32), 12, 1), (320, 256, (16, 32), 18, 1),
        (128, 128, (16, 32), 14, 8), (256, 256, (8, 16), 2, 1),
    )
)  # fmt: skip
_CHANNELS, _TILES, _OUTPUTS = 64, 200, 32
_SECONDS = 0.5


def matrices(transform: AnyTransform) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The transforms of inputs, window and products, as matrices."""
    bind, const = ir.bind, ir.const
    try:  # its words on numbers instead of expressions
        ir.bind, ir.const = lambda value: value, lambda value, lanes=1: value  # type: ignore[assignment]
        n = transform.points
        inputs = np.array(transform.inputs(list(np.eye(n)), 1))
        result = np.array(transform.result(list(np.eye(n)), 1))
    finally:
        ir.bind, ir.const = bind, const
    return inputs, transform.window(), result


def errors(transform: AnyTransform, *, bfloat16: bool = False) -> tuple[float, float]:
    """Relative errors, root mean square, by Winograd and of the plain sum; with `bfloat16` of
    inputs that are, and transformed ones, windows and results that become so."""
    rng = np.random.default_rng(0)
    inputs, window, result = matrices(transform)
    n, m = transform.points, transform.outputs
    step = 2 if isinstance(transform, HalvingTransform) else 1
    kind = np.float64 if bfloat16 else np.float32

    def rounded(values: NDArray[Any]) -> NDArray[Any]:
        narrow = values.astype(np.float32)
        return (from_bfloat16(to_bfloat16(narrow)) if bfloat16 else narrow).astype(kind)

    d = rounded(np.maximum(rng.standard_normal((_TILES, _CHANNELS, n, n)), 0))
    g = rng.standard_normal((_OUTPUTS, _CHANNELS, 3, 3)).astype(np.float32)
    u = rounded(window @ g.astype(np.float64) @ window.T)
    b, a = inputs.astype(kind), result.astype(kind)
    v = rounded(np.matmul(np.matmul(b, d), b.T))
    products = np.zeros((_TILES, _OUTPUTS, n, n), kind)
    plain = np.zeros((_TILES, _OUTPUTS, m, m), kind)
    truth = np.zeros((_TILES, _OUTPUTS, m, m))
    for channel in range(_CHANNELS):
        products += v[:, None, channel] * u[None, :, channel]
        for y, x in np.ndindex(3, 3):
            part = d[:, None, channel, y::step, x::step][..., :m, :m]
            tap = g[None, :, channel, y, x, None, None]
            plain += part * rounded(tap)
            truth += part.astype(np.float64) * tap
    found, plain = rounded(np.matmul(np.matmul(a, products), a.T)), rounded(plain)
    size = np.sqrt(np.square(truth).mean())
    return tuple(float(np.sqrt(np.square(y - truth).mean()) / size) for y in (found, plain))  # type: ignore[return-value]


def speed(op: Conv, module: Any = None) -> float:
    """GMAC/s of a kernel, else of the one that the rule takes, one thread. Weights stay in the
    caches from call to call, which those of a whole network do not."""
    import tvm

    from deploy.cpu.isa import elements_of
    from deploy.cpu.kernels import module_of
    from deploy.cpu.layout import activation_shape, pack_activation
    from deploy.cpu.machine_code import compile_kernels
    from deploy.cpu.pipeline import isa_of
    from deploy.targets import resolve_target

    target = resolve_target("cpu")
    isa, module = isa_of(target), module or module_of(op)
    assert isa is not None
    isa = replace(isa, element=elements_of(isa, target.features)[op.dtype])
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32)

    weight = numbers(op.cout, op.cin[0] // op.groups, *op.kernel)
    arrays = [isa.element.pack(pack_activation(isa, numbers(1, op.cin[0], op.height, op.width)))]
    arrays += module.pack(op, isa, weight, numbers(op.cout), [])
    arrays.append(np.zeros(activation_shape(isa, *op.output), isa.element.stored))
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    function = module.emit(op, module.default_schedule(op, isa, 1), isa)
    run = compile_kernels({"k": function}, tvm.target.Target(target.config))["k"]
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        run(*tensors)
        best = min(best, time.perf_counter() - start)
    return op.macs / best / 1e9


def _computes_bfloat16() -> bool:
    from deploy.cpu.isa import elements_of
    from deploy.cpu.pipeline import isa_of
    from deploy.targets import resolve_target

    target = resolve_target("cpu")
    isa = isa_of(target)
    return isa is not None and "bfloat16" in elements_of(isa, target.features)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--errors", action="store_true", help="rounding errors alone")
    options = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = "1"
    usual = dict(winograd._PAIRS)
    for name, pairs in POINTS.items():
        winograd._PAIRS[6] = pairs
        found, plain = errors(Transform(4, 3))
        print(f"F(4, 3), 0, +-{name}: {found:.1e}, plain sum {plain:.1e}")
    winograd._PAIRS.update(usual)
    for name, transform in KINDS.items():
        print("{}: {:.1e}, plain sum {:.1e}".format(name, *errors(transform)))
    for name, transform in {"F(4, 3)": Transform(4, 3), **KINDS}.items():
        found, plain = errors(transform, bfloat16=True)
        print(f"{name} of bfloat16: {found:.1e}, plain sum {plain:.1e}")
    in_half = [replace(op, dtype="bfloat16") for op in SHAPES]
    for op in () if options.errors else [*SHAPES, *(in_half if _computes_bfloat16() else [])]:
        print(f"{speed(op):6.0f} GMAC/s  {op}", flush=True)
    if not options.errors:
        from deploy.cpu.kernels import conv_direct, module_of

        for op in DILATED:
            name = module_of(op).__name__.rpartition(".")[2]
            tap_by_tap = speed(op, conv_direct)
            print(f"{speed(op):6.0f} GMAC/s {name}, conv_direct {tap_by_tap:.0f}  {op}", flush=True)
        from deploy.cpu.pipeline import isa_of
        from deploy.measure.probes import load_here, probe_ceilings
        from deploy.targets import resolve_target

        target = resolve_target("cpu")
        isa = isa_of(target)
        assert isa is not None
        rate = probe_ceilings(load_here(target, 1), isa, 1).fma_gflops / 2
        print(f"{rate:6.0f} GMAC/s  at most, by the FMA probe")


if __name__ == "__main__":
    main()
