"""Devices over TVM's own RPC tracker and servers: asking for one, running on it, finding faults."""
