"""Row stages: what the kernels that work row by row are composed of.

A stage declares its parameters when it is made, in the order of the kernel's constants; its code is
emitted by its methods, inside the loop of one thread. Objects with memory of the thread emit code
when they are made. Stages are given to each other, none is a kind of another. `stage.py` says how
they meet, `cuts.py` what part of a row they are asked for:

- sources: a map in memory (`maps.py`), one row in a buffer (`buffer.py`), the camera's image
  (`image.py`);
- makers of rows: the first convolution (`stem.py`), the 1x1 convolution (`expand.py`);
- the ring of newest rows that a window moves over (`ring.py`), filled from above (`sweep.py`);
- takers: the window itself (`depthwise.py`), the projection behind it (`project.py`);
- these together, over a whole map or as the source of the next (`block.py`).

`product.py` holds the constants of a 1x1 convolution, for every kernel that has one, `average.py`
the mean of a map. Rows of another size: `bilinear.py`, for scores at an image's columns
`intervals.py`, what becomes of them `labels.py` and `logits.py`, and what makes labels cheaper
`finite.py` and `cells.py`.
"""
