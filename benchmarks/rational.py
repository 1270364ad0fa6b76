"""The coefficients of erf and tanh in deploy/cpu/functions.py: x P(x^2) / Q(x^2), fitted.

    python -m benchmarks.rational

Linear least squares of the relative error at Chebyshev's points, weighted by one over the last
denominator and by the error that was found there, until the largest error moves no more. Prints the
coefficients, highest power first, and the largest relative error, all in double.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deploy.cpu.functions import ERF_RANGE, TANH_RANGE

Array = NDArray[np.float64]
_POINTS, _ROUNDS = 2000, 200


def fit(
    function: Callable[[float], float], reach: float, above: int, below: int
) -> tuple[Array, Array, float]:
    """P and Q of these degrees in x^2 on (0, reach], Q's last coefficient 1, and the largest
    relative error."""
    angles = (np.arange(_POINTS) + 0.5) / _POINTS * math.pi
    x = reach * (1 + np.cos(angles)) / 2
    wanted = np.array([function(value) for value in x]) / x
    square = (x / reach) ** 2  # well conditioned
    powers = np.vander(square, above + 1), np.vander(square, below + 1)
    weight, best = np.ones_like(x), (np.zeros(0), np.zeros(0), math.inf)
    denominator = np.ones_like(x)
    for _ in range(_ROUNDS):
        scale = (weight / denominator / wanted)[:, None]
        matrix = np.hstack([powers[0], -powers[1][:, :-1] * wanted[:, None]]) * scale
        solution = np.linalg.lstsq(matrix, wanted * scale[:, 0], rcond=None)[0]
        p, q = solution[: above + 1], np.append(solution[above + 1 :], 1.0)
        denominator = powers[1] @ q
        error = np.abs(powers[0] @ p / denominator / wanted - 1)
        if error.max() < best[2] and (denominator > 0).all():
            best = p, q, float(error.max())
        weight = weight * np.sqrt(error / error.max() + 0.05)
        weight /= weight.mean()
    p, q, largest = best
    scaled = [c * reach ** (-2.0 * np.arange(len(c) - 1, -1, -1)) for c in (p, q)]  # of x^2 again
    return scaled[0], scaled[1], largest


def main() -> None:
    """Print both."""
    for name, function, reach, above, below in (
        ("erf", math.erf, ERF_RANGE, 6, 4), ("tanh", math.tanh, TANH_RANGE, 6, 3),
    ):  # fmt: skip
        p, q, error = fit(function, reach, above, below)
        print(f"{name}: largest relative error {error:.1e}")
        for letter, coefficients in (("P", p), ("Q", q)):
            print(f"  {letter}", ", ".join(f"{c:.14e}" for c in coefficients))


if __name__ == "__main__":
    main()
