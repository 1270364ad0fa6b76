"""Student's t: how far a mean of few samples may be off."""

# Two-sided 95%, by degrees of freedom from 1.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
        2.12, 2.11, 2.10, 2.09, 2.09)  # fmt: skip


def t95(freedom: int) -> float:
    """The quantile of a two-sided 95% interval, within 1%; `freedom` is at least 1."""
    return _T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.4 / freedom
