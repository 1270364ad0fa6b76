"""A float network and frames in, the same network in 8 bits out: a graph with pairs of
QuantizeLinear and DequantizeLinear (decision 0066). Imports neither torch nor TVM."""
