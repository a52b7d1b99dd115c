"""Shapley values of the regions of an image, from what a model says with some of them hidden.

Lundberg, Lee (arXiv:1705.07874, Theorem 2) write them as one weighted regression (kernel SHAP): of all sets
that may be shown, those of size s count with weight (K - 1) / (C(K, s) s (K - s)). Sizes that would be drawn
as often as they have sets are asked about whole, from both ends; of the others sets are drawn with those
weights, sizes in strata, each set together with its complement (Covert, Lee, arXiv:2012.01536: what regions
do in pairs falls out). What the model would say of sets that were not drawn is guessed from those that were,
by a Gaussian process about a linear function (Rasmussen, Williams 2006, equation 2.25): that costs no
question, and the values are those of as many sets as one likes. They add up exactly to what the model says of
the image, less what it says with everything hidden.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

_ENOUGH = 4
"""Different sets for each region, below which nothing is claimed of how sure the values are."""
_GUESSED = 4000
"""Sets that are guessed;"""
_KNOWN = 1500
"""and known ones at most from which that is done: it takes their cube, and gains little from so many."""
_NUGGET = 0.01
"""The share of the process that is taken for noise, which says nothing of other sets."""
_GROUPS = 10
"""Groups of pairs of which each is left out once, to see how much the values depend on what was drawn."""


class Design(NamedTuple):
    """Which sets are asked about.

    Attributes:
        shown: Masks of what is shown `(M, K)`, bool; none of them shows nothing or all.
        weight: What each counts in the regression `(M,)`.
        group: Which of `_GROUPS` each drawn one belongs to `(M,)`; -1 where nothing is left to chance.
    """

    shown: np.ndarray
    weight: np.ndarray
    group: np.ndarray


def design(count: int, rows: int, rng: np.random.Generator) -> Design:
    """Sets of `count` regions that are worth `rows` questions; fewer where there are no more."""
    masks, weights, left, size = [], [], rows, 1
    while size <= count // 2:
        both = 2 * size != count
        many = comb(count, size) * (1 + both)
        rest = sum(_of_size(count, one) for one in range(size, count - size + 1))
        if left * _of_size(count, size) * (1 + both) / rest < many:
            break
        part = np.zeros((comb(count, size), count), bool)
        for mask, members in zip(part, combinations(range(count), size), strict=True):
            mask[list(members)] = True
        masks += [part, ~part] if both else [part]
        weights.append(np.full(many, _of_size(count, size) * (1 + both) / many))
        left, size = left - many, size + 1
    whole = np.concatenate([np.zeros((0, count), bool), *masks])
    drawn, many = _drawn(count, size, left // 2, rng)
    rest = sum(_of_size(count, one) for one in range(size, count - size + 1))
    return Design(
        np.concatenate([whole, drawn]),
        np.concatenate([np.zeros(0), *weights, np.full(len(drawn), rest / max(1, len(drawn)))]),
        np.concatenate([np.full(len(whole), -1), np.tile(np.arange(many) % _GROUPS, 2)]),
    )


def values(
    plan: Design, said: np.ndarray, nothing: float, everything: float
) -> tuple[np.ndarray, np.ndarray]:
    """What each region adds, and how far that may be off by what was drawn.

    Args:
        plan: What was asked.
        said: What the model said of each `(M,)`.
        nothing: What it says with everything hidden.
        everything: What it says of the image.

    Returns:
        Shapley values `(K,)`, whose sum is `everything - nothing`, and a standard error of each `(K,)`, by
        the jackknife over groups of pairs; zero where all sets were asked about, the largest value where too
        few were to tell.
    """
    count = plan.shown.shape[1]
    groups = np.unique(plan.group[plan.group >= 0])
    sets = len(np.unique(plan.shown, axis=0))
    if sets == 2.0**count - 2:
        return _solved(plan, said, nothing, everything), np.zeros(count)
    many = design(count, _GUESSED, np.random.default_rng(0))
    found = _guessed(many, plan, said, nothing, everything)
    if len(groups) < _GROUPS or sets < _ENOUGH * len(found):
        return found, np.full(len(found), np.abs(found).max())
    others = []
    for one in groups:
        kept = plan.group != one
        part = plan.group[kept] >= 0
        weight = plan.weight[kept]
        weight[part] *= plan.weight[plan.group >= 0].sum() / weight[part].sum()
        rest = Design(plan.shown[kept], weight, plan.group[kept])
        others.append(_guessed(many, rest, said[kept], nothing, everything))
    spread = np.array(others) - np.mean(others, axis=0)
    return found, np.sqrt((len(groups) - 1) / len(groups) * (spread**2).sum(axis=0))


def _guessed(many: Design, plan: Design, said: np.ndarray, nothing: float, everything: float) -> np.ndarray:
    """The values of many sets, as the process has them; where enough are known, of these by themselves."""
    if len(said) > _KNOWN:
        return _solved(plan, said, nothing, everything)
    ends = np.repeat([[False], [True]], plan.shown.shape[1], axis=1)
    known, there = (
        np.concatenate([np.ones((len(x), 1)), x], axis=1)
        for x in (np.concatenate([plan.shown, ends]), many.shown)
    )
    heard = np.append(said, [nothing, everything])
    line = np.linalg.lstsq(known, heard, rcond=None)[0]
    left = np.linalg.solve(_alike(known, known) + _NUGGET * np.eye(len(known)), heard - known @ line)
    return _solved(many, there @ line + _alike(there, known) @ left, nothing, everything)


def _alike(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How much sets have in common: it falls by the share of regions in which they differ."""
    differ = some.sum(axis=1)[:, None] + others.sum(axis=1) - 2 * some @ others.T
    return np.asarray(np.exp(-2 * differ / (some.shape[1] - 1)))


def _solved(plan: Design, said: np.ndarray, nothing: float, everything: float) -> np.ndarray:
    """The weighted regression under the constraint of the sum, by its normal equations."""
    total, share = everything - nothing, plan.shown.mean(axis=1, keepdims=True)
    # What each has beyond an equal share adds up to nothing: every region is treated alike.
    x, y = plan.shown - share, said - nothing - total * share[:, 0]
    left, right = (x * plan.weight[:, None]).T @ x, (x * plan.weight[:, None]).T @ y
    beyond = np.linalg.lstsq(left, right, rcond=1e-10)[0]
    return np.asarray(total / plan.shown.shape[1] + beyond - beyond.mean())


def _of_size(count: int, size: int) -> float:
    """What all sets of a size count together."""
    return (count - 1) / (size * (count - size))


def _drawn(count: int, least: int, pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Random sets of at least so many regions, shown and hidden, and after them their complements."""
    sizes = np.arange(least, count - least + 1)
    if pairs < 1 or not len(sizes):
        return np.zeros((0, count), bool), 0
    weight = np.array([_of_size(count, int(size)) for size in sizes])
    # In strata: as many sets of each size as it should have, but for one.
    place = (rng.permutation(pairs) + rng.random(pairs)) / pairs
    size = sizes[np.minimum(np.searchsorted(np.cumsum(weight / weight.sum()), place), len(sizes) - 1)]
    rank = rng.random((pairs, count)).argsort(axis=1).argsort(axis=1)
    masks = rank < size[:, None]
    return np.concatenate([masks, ~masks]), pairs
