"""What a class looks like near here: prototypes from encoded training rows.

Codes of the training rows are kept by the class that the model gives them. The prototype of a class is the
mean of its codes, or what is nearest to the row being explained: the mean of the k nearest codes, or the
k-th of them. Which class to go to is then a matter of distance.

Nearest neighbours are found by brute force. A matrix product goes through 60,000 codes of 200 numbers in
milliseconds, and the exact distances of those that come into question do not depend on the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_SPARE = 16
"""Neighbours looked at beyond those asked for: the product that chooses them is good to a few digits only."""


class Codes(NamedTuple):
    """Encoded training rows.

    Attributes:
        codes: `(M, E)`, float32.
        classes: The class that the model gave each `(M,)`, ascending.
        means: Mean code of each class that has rows `(P, E)`, float32, ascending.
        norms: Squared length of each code `(M,)`, float32.
    """

    codes: np.ndarray
    classes: np.ndarray
    means: np.ndarray
    norms: np.ndarray

    def of(self, wanted: int) -> slice:
        """Where the rows of a class lie."""
        start, end = np.searchsorted(self.classes, [wanted, wanted + 1])
        return slice(int(start), int(end))


class Prototypes(NamedTuple):
    """The prototypes for every row being explained, of every class that has rows.

    Attributes:
        codes: `(N, P, E)`, float32.
        place: Which of them is that of each class `(K,)`; 0 for a class without any.
        distances: Of each row's code to those of all classes `(N, K)`, float64; infinite for a class without
            rows.
    """

    codes: np.ndarray
    place: np.ndarray
    distances: np.ndarray

    def of(self, rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The prototypes `(M, E)` of these classes `(M,)` near these rows `(M,)`; those of a class without
        any stand for nothing."""
        return np.asarray(self.codes[rows, self.place[classes]])


def collect(codes: np.ndarray, classes: np.ndarray) -> Codes:
    """Codes `(M, E)` of training rows, in the order of their classes `(M,)`."""
    order = np.argsort(classes, kind="stable")
    codes, classes = np.ascontiguousarray(codes[order], np.float32), classes[order].astype(np.int64)
    held = Codes(codes, classes, codes[:0], (codes**2).sum(axis=1))
    means = [codes[held.of(one)].mean(axis=0, dtype=np.float64) for one in np.unique(classes)]
    return held._replace(means=np.asarray(means, np.float32))


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
    present = np.unique(held.classes)
    found = np.repeat(held.means[None], len(codes), axis=0)
    distances, place = np.full((len(codes), count), np.inf), np.zeros(count, np.int64)
    for at, wanted in enumerate(present):
        place[wanted] = at
        if k is None:
            distances[:, wanted] = _lengths(codes - held.means[at])
            continue
        own = held.of(wanted)
        order, far = nearest(codes, held.codes[own], k)
        neighbours = held.codes[own][order]
        found[:, at] = neighbours[:, -1] if point else neighbours.mean(axis=1, dtype=np.float64)
        distances[:, wanted] = far[:, -1] if point else far.mean(axis=1)
    return Prototypes(found, place, distances)


def nearest(codes: np.ndarray, known: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` rows of `known` `(M, E)` nearest to each of `codes` `(N, E)`.

    Returns:
        Their indices and their Euclidean distances, nearest first, `(N, min(k, M))`; ties by index.
    """
    k = min(k, len(known))
    likely = min(k + _SPARE, len(known))
    middle = known.mean(axis=0, dtype=np.float64).astype(np.float32)  # far from it products lose their digits
    centred = known - middle
    rough = np.einsum("ij,ij->i", centred, centred)[None] - 2 * (codes - middle) @ centred.T
    chosen = np.argpartition(rough, likely - 1, axis=1)[:, :likely]
    chosen.sort(axis=1)
    exact = np.stack([_lengths(known[own] - code) for code, own in zip(codes, chosen, strict=True)])
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(chosen, order, axis=1), np.take_along_axis(exact, order, axis=1)


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
