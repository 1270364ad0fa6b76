"""Which entry of the latency table a kernel belongs to."""

from typing import Any

from deploy.cpu.kernels.depthwise import DepthwiseSpec
from deploy.cpu.kernels.ends import EndSpec
from deploy.cpu.kernels.global_pool import GlobalPoolSpec
from deploy.cpu.kernels.inverted_residual import InvertedResidualSpec
from deploy.cpu.kernels.local_global import LocalGlobalSpec
from deploy.cpu.kernels.pointwise import PointwiseSpec
from deploy.cpu.kernels.resize import ResizeSpec
from deploy.cpu.kernels.stem import StemSpec
from deploy.cpu.kernels.stem_block import StemBlockSpec
from deploy.cpu.kernels.stem_pair import StemPairSpec
from deploy.cpu.kernels.upsample_add import UpsampleAddSpec
from hmseg.widths import TAIL_WIDTH
from lut.errors import WorkError
from lut.key import OpKey


def key_of(spec: Any) -> OpKey:  # noqa: ANN401 - any Spec
    """The entry of a kernel; the two kernels of ``context`` give one key.

    Raises WorkError for a kernel that no network of the search space calls.
    """
    match spec:
        case StemBlockSpec(source="uint8_nhwc"):
            return OpKey(
                "stem_block", 3, spec.hidden, spec.cout, spec.kernel, 2 * spec.stride,
                spec.dilation, spec.height, spec.width,
            )  # fmt: skip
        case StemPairSpec(first=first, second=block) if first.source == "uint8_nhwc":
            return OpKey(
                "stem_pair", block.cin, block.hidden, block.cout, block.kernel,
                2 * first.stride * block.stride, block.dilation, first.height, first.width,
                first_hidden=first.hidden, first_kernel=first.kernel,
            )  # fmt: skip
        case StemSpec(source="uint8_nhwc"):
            return OpKey("stem", 3, 0, spec.cout, 3, 2, 1, spec.height, spec.width)
        case InvertedResidualSpec():
            op = "classifier" if _is_classifier(spec) else "inverted_residual"
            return OpKey(
                op, spec.cin, spec.hidden, spec.cout, spec.kernel, spec.stride, spec.dilation,
                spec.height, spec.width,
            )  # fmt: skip
        case ResizeSpec(channels=c):
            other = spec.out_height, spec.out_width
            return OpKey("resize", c, 0, c, 0, 1, 1, spec.height, spec.width, *other)
        case (
            PointwiseSpec(add="channel")
            | PointwiseSpec(add="map", height=1, width=1)  # where a vector is a map
            | GlobalPoolSpec(act="none")
        ):
            return OpKey("context", spec.cin, 0, spec.cout, 1, 1, 1, spec.height, spec.width)
        case GlobalPoolSpec(act="sigmoid"):
            return OpKey("gate", spec.cin, 0, spec.cout, 1, 1, 1, spec.height, spec.width)
        case UpsampleAddSpec():
            return OpKey(
                "upsample_add", spec.cin, 0, spec.cout, 1, 1, 1, spec.height, spec.width,
                spec.low_height, spec.low_width,
            )  # fmt: skip
        case DepthwiseSpec(channels=c):
            return OpKey(
                "depthwise", c, 0, c, spec.kernel, spec.stride, spec.dilation,
                spec.height, spec.width,
            )  # fmt: skip
        case LocalGlobalSpec(gate=True):
            return OpKey(
                "local_global", spec.cin, spec.mid, spec.cout, 1, 1, 1, spec.height, spec.width,
                spec.low_height, spec.low_width,
            )  # fmt: skip
        case EndSpec(output="labels"):
            return OpKey(
                "labels", spec.classes, 0, 0, 0, 1, 1, spec.height, spec.width,
                spec.out_height, spec.out_width,
            )  # fmt: skip
    raise WorkError(f"the latency table has no entry for the kernel {spec!r}")


def _is_classifier(spec: InvertedResidualSpec) -> bool:
    """No block of the space has the width of the head's tail."""
    return spec.cin == TAIL_WIDTH and not spec.expand
