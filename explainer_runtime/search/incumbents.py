"""The best answers so far, one a row: what a search would return if it had to stop now.

Only points that the model itself has judged are offered, so whatever is held here is verified.
"""

from __future__ import annotations

import numpy as np


class Incumbents:
    """For each row, the valid point closest to it: in L1, unless another distance is given.

    Args:
        origin: The rows being explained `(N, *S)`.
        start: What to hold where nothing valid is known: the rows themselves, inside the bounds.
        scores: Class scores `(N, K)` of `start`.
    """

    def __init__(self, origin: np.ndarray, start: np.ndarray, scores: np.ndarray) -> None:
        self.origin = origin
        self.x = start.copy()
        self.scores = scores.copy()
        self.found = np.zeros(len(origin), bool)
        self.distance = np.full(len(origin), np.inf)
        self.tag = np.zeros(len(origin))

    def offer(
        self,
        rows: np.ndarray,
        x: np.ndarray,
        scores: np.ndarray,
        valid: np.ndarray,
        tag: np.ndarray | float = 0.0,
        distance: np.ndarray | None = None,
    ) -> None:
        """Take each valid point that is closer than what its row holds; the earlier one wins a tie.

        Args:
            rows: Which row each point belongs to `(M,)`.
            x: Points `(M, *S)`.
            scores: The model's scores of them `(M, K)`.
            valid: Which are valid `(M,)`, bool.
            tag: A number to remember with each point `(M,)`, such as the weight that led to it.
            distance: How far each point is `(M,)`, by whatever measure the search has; None is L1.
        """
        if distance is None:
            distance = np.abs(x - self.origin[rows]).reshape(len(x), -1).sum(axis=1, dtype=np.float64)
        tags = np.broadcast_to(tag, len(x))
        for index in np.flatnonzero(valid & (distance < self.distance[rows])):
            row = rows[index]
            if distance[index] < self.distance[row]:
                self.x[row], self.scores[row] = x[index], scores[index]
                self.found[row], self.distance[row], self.tag[row] = True, distance[index], tags[index]
