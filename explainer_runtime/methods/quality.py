"""How much an answer changed, in the measures that people compare: the same for every method."""

from __future__ import annotations

import numpy as np

_CHANGED = 1e-6
"""Least difference, in input units, that counts as a change."""


def change(x: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """The fields that measure the change from rows `x` to rows `after`, both `(N, *S)`.

    Returns:
        `distance_l1` and `distance_l2` `(N,)` float32 in input units, `distance_l0` `(N,)`, the number of
        features changed, and `sparsity` `(N,)` float32, the share of features that were not.
    """
    difference = np.abs(after - x).reshape(len(x), -1)
    changed = (difference > _CHANGED).sum(axis=1)
    return {
        "distance_l1": difference.sum(axis=1),
        "distance_l2": np.sqrt((difference**2).sum(axis=1)),
        "distance_l0": changed,
        "sparsity": (1 - changed / difference.shape[1]).astype(np.float32),
    }
