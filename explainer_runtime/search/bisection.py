"""Bisection on a weight, many at once, where only one side of the bracket may be known.

A weight that succeeds is raised, one that fails is lowered, or the other way round. While the far side is
unknown, the weight moves by factors of ten; once it is known, by halves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

UNBOUNDED = 1e9
"""Upper ends from here on count as not known yet."""


class Bracket(NamedTuple):
    """Lower end, upper end and the value to try next, each `(N,)`; `low <= value <= high`."""

    low: np.ndarray
    high: np.ndarray
    value: np.ndarray


def raise_or_lower(bracket: Bracket, succeeded: np.ndarray) -> Bracket:
    """The next bracket: the largest weight that succeeds is sought.

    Args:
        bracket: The present one; its `value` has been tried.
        succeeded: Whether it did `(N,)`, bool.

    Returns:
        A bracket within the present one. Where only the lower end is known the value is ten times larger,
        where only the upper end is known ten times smaller, else it is the middle.

    Source: the search on lambda of arXiv:1711.00399, section on computing counterfactuals, as a bisection.
    """
    return _narrowed(bracket, succeeded)


def lower_or_raise(bracket: Bracket, succeeded: np.ndarray) -> Bracket:
    """The next bracket: the smallest weight that succeeds is sought. Otherwise as `raise_or_lower`.

    Where no weight is known to fail, the next lies half way to zero.

    Source: the search on c of arXiv:1802.07623 and arXiv:1907.02584, after Carlini and Wagner (2017).
    """
    return _narrowed(bracket, ~succeeded, halve=True)


def _narrowed(bracket: Bracket, up: np.ndarray, halve: bool = False) -> Bracket:
    """The half of each bracket above its value where `up`, else the half below."""
    low = np.where(up, np.maximum(bracket.low, bracket.value), bracket.low)
    high = np.where(up, bracket.high, np.minimum(bracket.high, bracket.value))
    middle = (low + high) / 2
    value = np.where(
        up,
        np.where(high < UNBOUNDED, middle, bracket.value * 10),
        np.where((low > 0) | halve, middle, bracket.value / 10),
    )
    return Bracket(low, high, value)
