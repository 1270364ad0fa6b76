"""The steps of `deploy.reading.normalise`, each on a graph that is in opset 20 throughout."""
