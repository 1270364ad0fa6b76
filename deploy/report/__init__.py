"""One HTML page from the results that lie in a folder. Nothing here imports torch or TVM."""
