"""A small kernel of every kind, with tiles that do not divide its sizes."""

from deploy.kernels.convert import ConvertSpec
from deploy.kernels.depthwise import DepthwiseSpec
from deploy.kernels.ends import EndSpec
from deploy.kernels.global_pool import GlobalPoolSpec
from deploy.kernels.inverted_residual import InvertedResidualSpec
from deploy.kernels.local_global import LocalGlobalSpec
from deploy.kernels.pointwise import PointwiseSpec
from deploy.kernels.resize import ResizeSpec
from deploy.kernels.stem import StemSpec
from deploy.kernels.stem_block import StemBlockSpec
from deploy.kernels.stem_pair import StemPairSpec
from deploy.kernels.upsample_add import UpsampleAddSpec

SMALL = (
    ConvertSpec("pack", 5, 3, 7),
    ConvertSpec("unpack", 5, 3, 7),
    DepthwiseSpec(9, 7, 11, 5, 2),
    EndSpec(11, 5, 7, 19, 23),
    EndSpec(11, 5, 7, 20, 32, "logits"),
    GlobalPoolSpec(12, 5, 7, 9),
    InvertedResidualSpec(5, 19, 6, 9, 13),
    InvertedResidualSpec(9, 27, 9, 7, 11, 5, 1, 2, residual=True),
    LocalGlobalSpec(9, 5, 11, 9, 13, 5, 7),
    PointwiseSpec(9, 11, 5, 7, "relu6"),
    ResizeSpec(9, 5, 7, 8, 9),
    StemSpec(9, 18, 26),
    StemBlockSpec(9, 5, 18, 26),
    StemPairSpec(StemBlockSpec(9, 5, 18, 26), InvertedResidualSpec(5, 19, 6, 9, 13)),
    UpsampleAddSpec(9, 11, 8, 10, 4, 5, "relu6"),
)
