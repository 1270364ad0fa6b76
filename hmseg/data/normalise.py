"""The one normalisation of every network: ImageNet's mean and deviation of RGB / 255.

No torch: the exporter puts the same numbers into the deployed graph.
"""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
