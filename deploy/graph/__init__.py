"""From a file or a module to a graph with both ends, and from its patterns to operations."""
