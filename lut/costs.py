"""MACs and parameters of an entry by the paper's rule: the other two costs of the search.

MACs are multiply-accumulates of the convolutions only; parameters include the affine pair of batch
norm, in training form (docs/networks.md).
"""

from lut.errors import UserError
from lut.key import OpKey

_BN = 2  # parameters of batch norm per channel


def macs(key: OpKey) -> int:
    """Multiply-accumulates of one call on one image."""
    size, out = key.height * key.width, key.out_height * key.out_width
    window = key.kernel**2
    expanded = key.cin * key.hidden * size if key.hidden != key.cin else 0
    counts = {
        "stem": out * window * key.cin * key.cout,
        "stem_block": _stem_block_macs(key),
        "inverted_residual": expanded + out * key.hidden * (window + key.cout),
        "classifier": out * key.hidden * (window + key.cout),
        "context": (size + 1) * key.cin * key.cout,
        "upsample_add": size * key.cin * key.cout,
        "depthwise": out * window * key.cout,
        "gate": key.cin * key.cout,
        "local_global": size * key.hidden * (key.cin + key.cout),
        "resize": 0,
        "labels": 0,
    }
    return _known(counts, key)


def parameters(key: OpKey) -> int:
    """Trainable values, whatever the resolution."""
    window, cin, hidden, cout = key.kernel**2, key.cin, key.hidden, key.cout
    expansion = hidden * (cin + _BN) if hidden != cin else 0
    tail = hidden * (window + _BN) + cout * (hidden + _BN)
    counts = {
        "stem": cout * (window * cin + _BN),
        "stem_block": hidden * (9 * cin + _BN) + tail,
        "inverted_residual": expansion + tail,
        "classifier": tail - cout,  # a bias at its end instead of batch norm
        "context": cout * (cin + _BN) + cout * (cin + 1),
        "upsample_add": cout * (cin + _BN),
        "depthwise": cout * (window + _BN),
        "gate": cout * (cin + 1),
        "local_global": hidden * (cin + _BN) + cout * (hidden + _BN),
        "resize": 0,
        "labels": 0,
    }
    return _known(counts, key)


def _stem_block_macs(key: OpKey) -> int:
    half = key.out_height * key.out_width  # the stem's stride; the block behind it keeps the size
    return half * key.hidden * (9 * key.cin + key.kernel**2 + key.cout)


def _known(counts: dict[str, int], key: OpKey) -> int:
    if key.op not in counts:
        raise UserError(f"there is no count for {key}")
    return counts[key.op]
