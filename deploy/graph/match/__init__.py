"""What is recognised in a graph, one operation a file."""
