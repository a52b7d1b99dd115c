"""What a class looks like near here: prototypes from encoded training rows.

Codes of the training rows are kept by the class that the model gives them. The prototype of a class is the
mean of its codes, or what is nearest to the row being explained: the mean of the k nearest codes, or the
k-th of them. Which class to go to is then a matter of distance.

Of a class with many rows a *coreset* stands for all of them: those codes that the others lie nearest to.

Nearest neighbours are found by brute force. A matrix product goes through 60,000 codes of 200 numbers in
milliseconds, and the exact distances of those that come into question do not depend on the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from explainer_runtime.search.kept import Kept

_SPARE = 16
"""Neighbours looked at beyond those asked for: the product that chooses them is good to a few digits only."""
_TOGETHER = 2**22
"""Numbers of codes that are read together."""
_SKETCH = 32
"""Numbers that stand for a code while a coreset is chosen."""
_POOL = 10_000
"""Rows of a class that come into question for its coreset; of more, so many by chance."""
_MISSED = 0.05
"""How likely none of the candidates for one place of a coreset is among the best for it."""


class Codes(NamedTuple):
    """Encoded training rows.

    Attributes:
        codes: `(M, E)`.
        classes: The class that the model gave each `(M,)`, ascending.
        means: Mean code of all rows of each class that has any `(P, E)`, float32, ascending; not needed where
            prototypes are made of the nearest codes.
    """

    codes: Kept
    classes: np.ndarray
    means: np.ndarray

    def of(self, wanted: int) -> slice:
        """Where the rows of a class lie."""
        start, end = np.searchsorted(self.classes, [wanted, wanted + 1])
        return slice(int(start), int(end))


class Prototypes:
    """The prototypes for every row being explained, of every class that has rows.

    Args:
        held: Training rows.
        order: Of each class that has rows the ones near each row `(N, k)`, which make its prototype; empty
            where that is the mean of the class.
        point: Whether the last of them is the prototype, rather than their mean.
        distances: Of each row's code to the prototypes of all classes `(N, K)`, float64; infinite for a class
            without rows.
    """

    def __init__(self, held: Codes, order: list[np.ndarray], point: bool, distances: np.ndarray) -> None:
        self._held, self._order, self._point, self.distances = held, order, point, distances
        self._place = {int(one): at for at, one in enumerate(np.unique(held.classes))}
        self._made: dict[tuple[int, int], np.ndarray] = {}

    def of(self, rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The prototypes `(M, E)`, float32, of these classes `(M,)` near these rows `(M,)`; those of a class
        without any stand for nothing."""
        places = [self._place.get(int(one), 0) for one in classes]
        return np.stack([self._one(int(row), at) for row, at in zip(rows, places, strict=True)])

    def _one(self, row: int, at: int) -> np.ndarray:
        if not self._order:
            return self._held.means[at]
        if (row, at) not in self._made:  # of all classes at once they would be larger than any search
            near = self._held.codes[self._order[at][row]]
            made = near[-1] if self._point else near.mean(axis=0, dtype=np.float64)
            self._made[row, at] = made.astype(np.float32)
        return self._made[row, at]


def collect(codes: np.ndarray, classes: np.ndarray, most: int | None = None, seed: int = 0) -> Codes:
    """Codes `(M, E)` of training rows, in the order of their classes `(M,)`: of each class `most` at most."""
    order = np.argsort(classes, kind="stable")
    codes, classes = np.ascontiguousarray(codes[order], np.float32), classes[order].astype(np.int64)
    held = Codes(Kept(codes), classes, codes[:0])
    own = [held.of(one) for one in np.unique(classes)]
    means = np.asarray([codes[part].mean(axis=0, dtype=np.float64) for part in own], np.float32)
    if most is None or all(part.stop - part.start <= most for part in own):
        return held._replace(means=means)
    kept = np.concatenate([part.start + coreset(codes[part], most, seed) for part in own])
    return Codes(Kept(codes[kept]), classes[kept], means)


def coreset(codes: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Which of codes `(M, E)` stand for all of them: `(min(M, most),)`, ascending.

    Those to the nearest of which all are as near as can be, in the sum of squared distances (facility
    location): one after the other the best of some that are drawn, measured by random projections.

    Source: Mirzasoleiman et al., *Lazier than lazy greedy* (arXiv:1409.7938), algorithm 1, for a function
    that is monotone and submodular. The projections are ours (Johnson, Lindenstrauss 1984).
    """
    count = len(codes)
    if count <= most:
        return np.arange(count)
    rng = np.random.default_rng([seed, 2])
    pool = np.sort(rng.permutation(count)[: max(most, _POOL)])
    flat = codes[pool] - codes[pool].mean(axis=0)
    if flat.shape[1] > _SKETCH:
        flat = flat @ rng.standard_normal((flat.shape[1], _SKETCH), np.float32)
    length = np.einsum("ij,ij->i", flat, flat)
    near, left = (
        4 * length,
        np.ones(len(pool), bool),
    )  # to begin with, farther than from anything that is chosen
    drawn = int(np.ceil(len(pool) / most * np.log(1 / _MISSED)))
    for _ in range(most):
        some = rng.permutation(np.flatnonzero(left))[:drawn]
        closer = np.maximum(near - (length - 2 * flat[some] @ flat.T + length[some, None]), 0)
        best = int(closer.sum(axis=1).argmax())
        near = near - closer[best]
        left[some[best]] = False
    return pool[~left]


def prototypes(held: Codes, codes: np.ndarray, count: int, k: int | None, point: bool) -> Prototypes:
    """The prototype of each class near each of `codes` `(N, E)`.

    Args:
        held: Training rows.
        codes: Codes of the rows being explained.
        count: Classes there are, K.
        k: How many nearest codes make one; None is the mean of the whole class.
        point: Whether it is the k-th of them, rather than their mean. A class with fewer rows than k gives
            what it has.

    Returns:
        Prototypes and distances: to the mean of the class; the mean distance of the k nearest; or the
        distance of the k-th.

    Source: arXiv:1907.02584, for class means and k nearest encodings, and for neighbours in input space.
    """
    distances, order = np.full((len(codes), count), np.inf), []
    for at, wanted in enumerate(np.unique(held.classes)):
        if k is None:
            distances[:, wanted] = _lengths(codes - held.means[at])
            continue
        own = held.of(wanted)
        near, far = nearest(codes, held.codes, k, np.arange(own.start, own.stop))
        order.append(near)
        distances[:, wanted] = far[:, -1] if point else far.mean(axis=1)
    return Prototypes(held, order, point, distances)


def nearest(
    codes: np.ndarray, known: np.ndarray | Kept, k: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` rows of `known` `(M, E)` nearest to each of `codes` `(N, E)`.

    Args:
        codes: Whose.
        known: Among which; they are read a few at a time.
        k: How many.
        own: The indices of those that come into question, ascending; None is all of them.

    Returns:
        Their indices and their Euclidean distances, nearest first, `(N, min(k, M))`; ties by index.
    """
    own = np.arange(len(known)) if own is None else own
    k = min(k, len(own))
    likely = min(k + _SPARE, len(own))
    size = max(1, _TOGETHER // max(1, codes.shape[1]))
    middle = known[own[:size]].mean(axis=0, dtype=np.float64).astype(np.float32)
    rough = np.empty((len(codes), len(own)), np.float32)
    for start in range(0, len(own), size):
        centred = known[own[start : start + size]] - middle  # far from it products lose their digits
        length = np.einsum("ij,ij->i", centred, centred)
        rough[:, start : start + size] = length - 2 * (codes - middle) @ centred.T
    chosen = np.argpartition(rough, likely - 1, axis=1)[:, :likely]
    chosen.sort(axis=1)
    exact = np.stack([_lengths(known[own[some]] - code) for code, some in zip(codes, chosen, strict=True)])
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    return own[np.take_along_axis(chosen, order, axis=1)], np.take_along_axis(exact, order, axis=1)


def choose(distances: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The nearest class that is allowed `(N, K)` bool, for each row `(N,)`; -1 where there is none."""
    masked = np.where(allowed, distances, np.inf)
    return np.where(np.isfinite(masked).any(axis=1), masked.argmin(axis=1), -1)


def trust(codes: np.ndarray, own: np.ndarray, new: np.ndarray) -> np.ndarray:
    """How much nearer codes `(N, E)` are to the prototypes `new` than to those of their old class, `own`.

    Returns:
        The distance to the old in distances to the new `(N,)`: above 1 is nearer to the new.

    Source: Jiang et al. 2018, with prototypes for neighbours, as arXiv:1907.02584 uses it.
    """
    return np.asarray(_lengths(codes - own) / (_lengths(codes - new) + 1e-10))


def _lengths(change: np.ndarray) -> np.ndarray:
    """Euclidean lengths `(N,)`, summed row by row so that they do not depend on the batch."""
    return np.sqrt((change.astype(np.float64) ** 2).sum(axis=1))
