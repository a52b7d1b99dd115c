"""How much a score depends on each region, from what a model says with random halves of them hidden.

RISE (Petsiuk et al., arXiv:1806.07421, equation 6) takes the mean score of the masks that show a region. Here
the mean of all masks is taken away, which leaves the order as it is and gives values a sign; and every mask
goes with its complement, so that what masks of one size have in common falls out.

HSIC (Novello et al., arXiv:2206.06219) asks whether the score and the showing of a region go together in
any way: the Hilbert-Schmidt independence criterion of a Dirac kernel for the one and a Gaussian for the
other, its width the median distance of scores. It has no sign.
"""

from __future__ import annotations

import numpy as np

_ENOUGH = 10
"""Draws below which nothing is claimed of how sure their mean is."""
_ROWS = 1000
"""Rows of the kernel matrix that are held at a time."""


def halves(count: int, rows: int, rng: np.random.Generator, *, paired: bool) -> np.ndarray:
    """Masks `(rows, count)`, bool, each region shown with probability one half, independently; where they
    are `paired` the second half of them are the complements of the first, `rows` being even."""
    masks = rng.random((rows // (1 + paired), count)) < 0.5
    return np.concatenate([masks, ~masks]) if paired else masks


def averaged(each: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of draws `(M, ...)`, and a standard error of each of its numbers: as large as the largest of
    them where draws are too few to tell."""
    mean = each.mean(axis=0)
    if len(each) < _ENOUGH:
        return mean, np.full_like(mean, np.abs(mean).max())
    return mean, each.std(axis=0, ddof=1) / np.sqrt(len(each))


def rise(shown: np.ndarray, said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much higher than on average the score is where each region is shown.

    Args:
        shown: Masks `(2M, K)`, bool, of `halves`, paired.
        said: Scores `(2M,)`.

    Returns:
        Values `(K,)`, of a linear function half of each weight on average, and their standard errors `(K,)`.
    """
    half = len(said) // 2
    return averaged(np.where(shown[:half], 0.5, -0.5) * (said[:half] - said[half:])[:, None])


def hsic(shown: np.ndarray, said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much the score depends on whether each region is shown.

    Args:
        shown: Masks `(M, K)`, bool, of `halves`, not paired.
        said: Scores `(M,)`.

    Returns:
        The criterion `(K,)`, less what it has on average where there is no dependence, so that it is about
        zero there; and its standard errors `(K,)`: the larger of that by what was drawn and by chance alone.
    """
    count = len(said)
    sign = np.where(shown, 1.0, -1.0)
    sign -= sign.mean(axis=0)
    # A Dirac kernel of truths, centred, is half the product of their centred signs.
    width = _median(said)
    sums, through, squares = np.zeros(count), np.zeros(sign.shape), 0.0
    for start in range(0, count, _ROWS):
        part = slice(start, start + _ROWS)
        kernel = np.exp(-0.5 * ((said[part, None] - said) / width) ** 2)
        sums[part], through[part] = kernel.sum(axis=1), kernel @ sign
        squares += float((kernel**2).sum())
    whole = sums.sum() / count
    through -= through.mean(axis=0)
    squares += whole**2 - 2 * float((sums**2).sum()) / count  # of the centred kernel
    trace, size = count - whole, (sign**2).sum(axis=0)
    each = sign * through / (2 * count)
    chance = size * np.sqrt(2 * max(0.0, squares - trace**2 / count)) / (2 * count**2) / count
    mean, error = averaged(each)
    return mean - size * trace / (count - 1) / (2 * count**2), np.maximum(2 * error, chance)


def _median(said: np.ndarray) -> float:
    """The median distance of two scores; 1 where they are all alike."""
    few = np.sort(said)[:: max(1, len(said) // _ROWS)]
    apart = np.abs(few[:, None] - few)[np.triu_indices(len(few), 1)]
    return float(np.median(apart)) or 1.0 if len(apart) else 1.0
