"""From a network to a measured binary: ONNX, TVM, devices, the command line."""
