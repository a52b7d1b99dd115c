"""The best answers so far, one a lane, each with a runner-up: what a search would return if it had to stop
now.

Only what the model has said of a point is held beside it. A model's last bits depend on the batch, and some
models are noisy: the answer that only just holds may not hold when it is asked once more. The runner-up is
the best of those with room to spare.
"""

from __future__ import annotations

import numpy as np

AMPLE = 0.25
"""Log-odds that a runner-up has to spare."""


class Best:
    """For each of L lanes the cheapest valid point, and the cheapest valid one with log-odds to spare.

    Args:
        start: What to hold where nothing is known `(L, *D)`.
        log_scores: What the model says of it `(L, K)`.
        keep: Whether to keep the way as well: every point that was the best once.
    """

    def __init__(self, start: np.ndarray, log_scores: np.ndarray, keep: bool = False) -> None:
        self.x, self.log_scores = start.copy(), log_scores.copy()
        self.cost = np.full(len(start), np.inf)
        self.tag = np.zeros(len(start), np.float32)
        self.second = start.copy()
        self.second_cost = np.full(len(start), np.inf)
        self.way: list[tuple[int, float, np.ndarray, np.ndarray]] | None = [] if keep else None
        """Lane, tag, point and log-scores of each, in order."""

    @property
    def found(self) -> np.ndarray:
        """Whether anything valid is held `(L,)`, bool."""
        return np.isfinite(self.cost)

    def median(self) -> float | None:
        """The cost of what has been found, in the middle; for progress."""
        return float(np.median(self.cost[self.found])) if self.found.any() else None

    def offer(
        self,
        lanes: np.ndarray,
        x: np.ndarray,
        log_scores: np.ndarray,
        cost: np.ndarray,
        spare: np.ndarray,
        tag: np.ndarray | float = 0.0,
    ) -> None:
        """Take each point that is cheaper than what its lane holds; the earlier one wins a tie.

        Args:
            lanes: Which lane each point belongs to `(M,)`.
            x: Points `(M, *D)`.
            log_scores: What the model says of them `(M, K)`.
            cost: What they cost `(M,)`, infinite where they are not valid.
            spare: Log-odds to spare `(M,)`.
            tag: A number to remember with each `(M,)`, such as the multiplier that led to it.
        """
        tags = np.broadcast_to(tag, len(x))
        for index in np.flatnonzero(cost < self.cost[lanes]):
            lane = lanes[index]
            if cost[index] < self.cost[lane]:
                self.x[lane], self.log_scores[lane] = x[index], log_scores[index]
                self.cost[lane], self.tag[lane] = cost[index], tags[index]
                if self.way is not None:
                    self.way.append(
                        (int(lane), float(tags[index]), x[index].copy(), log_scores[index].copy())
                    )
        for index in np.flatnonzero((spare >= AMPLE) & (cost < self.second_cost[lanes])):
            if cost[index] < self.second_cost[lanes[index]]:
                self.second[lanes[index]], self.second_cost[lanes[index]] = x[index], cost[index]

    def take(self, lanes: np.ndarray, other: Best) -> None:
        """Hold what another holds for these lanes."""
        for name in ("x", "log_scores", "cost", "tag"):
            getattr(self, name)[lanes] = getattr(other, name)[lanes]
        ample = lanes[other.second_cost[lanes] < self.second_cost[lanes]]
        self.second[ample], self.second_cost[ample] = other.second[ample], other.second_cost[ample]
        if self.way is not None:
            self.way += [
                (int(lane), float(other.tag[lane]), other.x[lane].copy(), other.log_scores[lane].copy())
                for lane in lanes
            ]
