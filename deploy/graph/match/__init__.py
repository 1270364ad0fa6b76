"""What is recognised in a graph: one operation a file, whichever backend has a kernel for it."""

from deploy.graph.match.across_channels import match_across_channels
from deploy.graph.match.attention import match_attention
from deploy.graph.match.channel_norm import match_channel_norm
from deploy.graph.match.channel_slice import match_channel_slice
from deploy.graph.match.concat import match_concat
from deploy.graph.match.conv import match_conv, match_conv_with_steps, match_stem_with_steps
from deploy.graph.match.depthwise import match_depthwise
from deploy.graph.match.elementwise import match_elementwise
from deploy.graph.match.found import Found, Matcher
from deploy.graph.match.global_mean import match_global_mean
from deploy.graph.match.global_pool import match_global_pool
from deploy.graph.match.inverted_residual import match_inverted_residual
from deploy.graph.match.labels import match_labels, match_masks
from deploy.graph.match.local_global import match_local_global
from deploy.graph.match.logits import match_logits
from deploy.graph.match.pointwise import match_pointwise
from deploy.graph.match.pool import match_pool
from deploy.graph.match.product import match_product
from deploy.graph.match.resample import match_resample
from deploy.graph.match.resize import match_resize
from deploy.graph.match.stem import match_stem
from deploy.graph.match.stem_block import match_stem_block
from deploy.graph.match.stem_pair import match_stem_pair
from deploy.graph.match.unpool import match_unpool

__all__ = ["FOLLOWERS", "MATCHERS", "Found", "Matcher"]

# An operation stands before its parts.
MATCHERS: tuple[Matcher, ...] = (
    match_stem_pair,
    match_stem_block,
    match_stem_with_steps,
    match_stem,
    match_local_global,
    match_inverted_residual,
    match_global_pool,
    match_conv_with_steps,
    match_pointwise,
    match_depthwise,
    match_conv,
    match_attention,
    match_product,
    match_channel_norm,
    match_labels,
    match_masks,
    match_logits,
    match_resample,
    match_resize,
    match_pool,
    match_unpool,
    match_global_mean,
)
# What is worth a kernel only beside another one, whose maps lie as it wants them.
FOLLOWERS: tuple[Matcher, ...] = (
    match_across_channels, match_channel_slice, match_concat, match_elementwise,
)  # fmt: skip
