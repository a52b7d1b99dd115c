"""The smallest set of features that holds an answer in place, whatever the others do.

A set is an *anchor* when, with the set shown and every other feature masked at random, the answer stays
with probability at least `threshold` (Ribeiro, Singh, Guestrin, AAAI 2018). The paper lets the extensions of
a set compete in a bandit and verifies the winner. Here a first wave of masks teaches a small surrogate
(`mask_surrogate.py`), which proposes the smallest set that should do, and draws of that set's own prove it
(`verify.py`). What fails has taught the surrogate something, and another set is proposed. Most images take
two waves.

The search knows nothing of images: it asks about masks and is told, for each, by how much the answer stayed.
No draw is forgotten: the draws of a set that failed are the first that speak of its extensions
(`evidence.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from explainer_runtime.search import mask_surrogate
from explainer_runtime.search.asks import Search, Stop
from explainer_runtime.search.evidence import Evidence
from explainer_runtime.search.verify import Trial

Set = tuple[int, ...]
"""Features in the order they were added."""
Wave = list[tuple[Set, int]]
"""How many draws to make for which sets."""

_BLOCK = 32
"""The first waves are filled up to multiples of this, since models compute in such blocks anyway."""
_EACH, _MANY = 2, 190
"""Draws that start the search: so many for each feature, but no more than that unless rules ask for it."""
_RARE, _FAR = 8, 500
"""Answers that are a bare yes or no teach little while one of the two is rarer than this; so many draws are
made to see more of it."""
_CHANCE = 256
"""Random masks that estimates are averaged over."""
_WEIGHT = 16
"""What the surrogate's estimate of a set counts beside the draws about it, in draws."""
_LIKELY, _POSSIBLE = 0.05, 0.2
"""How far below the threshold an estimate may lie for its set to be put to the test; for a smaller set to be
tried beside that one."""
_FAILURES = 1
"""Sets of one size that may fail, beside one for each place in the beam, before larger ones are sought."""
_GAP = 2
"""Sizes between what has failed and what is proven that are let be."""
_REACH = 3
"""Size that the first proposals may have; later ones may be twice as large as what has been tried. Beyond
that an estimate leans on nothing."""


class Rules(NamedTuple):
    """What is sought and how carefully: the fields of `spec.AnchorImage` of the same names."""

    p_sample: float = 0.5
    threshold: float = 0.95
    delta: float = 0.1
    batch_size: int = 1
    beam_size: int = 1
    stop_on_first: bool = False
    max_anchor_size: int | None = None
    min_samples_start: int = 62


class Holding(NamedTuple):
    """How a search ended."""

    features: Set
    """The anchor, or the best candidate, in the order its features were added."""
    found: bool
    """Whether it was proven."""
    stopped: str | None
    """Why the search was told to stop; None where it came to its end."""
    evidence: Evidence
    """Every draw, in the order they were asked about."""


def hold(
    features: int, rules: Rules, seed: int, ask: Callable[[np.ndarray], Search[np.ndarray]]
) -> Search[Holding]:
    """Search for an anchor among the subsets of `features` features.

    Args:
        features: How many there are, K, at least 1.
        rules: Settings.
        seed: Of the masks.
        ask: Asks the model about masks `(M, K)`, bool, true where a feature is shown; returns how far the
            answer was from changing, `(M,)`, positive where it stayed. What it yields is passed on.

    Returns:
        The smallest set that was proven. The set of all features holds any answer, so one is found unless
        `max_anchor_size` or a `Stop` forbids; then it is the best candidate. That a set is proven which
        holds the answer with a probability below `threshold - SLACK` happens with probability `delta` at
        most, for any model.
    """
    rng = np.random.default_rng(seed)
    chance = _stratified(np.random.default_rng([seed, 3]), _CHANCE, features, rules.p_sample)
    trial = Trial.of(rules.threshold, rules.delta, rules.batch_size)
    evidence, stopped = Evidence.none(features), None
    tried: tuple[Set, ...] = ()
    wave: Wave = [((), _start(features, rules))]
    try:
        while wave:
            forced = np.repeat(_masks([which for which, _ in wave], features), [n for _, n in wave], axis=0)
            shown = forced | (
                rng.random(forced.shape) >= rules.p_sample
                if tried
                else _stratified(rng, len(forced), features, rules.p_sample)
            )
            evidence = evidence.plus(forced, shown, (yield from ask(shown)), fresh=bool(tried))
            tried, wave = _next(tried, evidence, rules, trial, chance)
    except Stop as stop:
        stopped = stop.status
    best, found = _best(tried, evidence, trial)
    return Holding(best, found, stopped, evidence)


def _start(features: int, rules: Rules) -> int:
    draws = max(rules.min_samples_start, min(_EACH * features, _MANY))
    return _filled(draws + 2) - 2  # the image itself and one with everything masked go along


def _next(
    tried: tuple[Set, ...], evidence: Evidence, rules: Rules, trial: Trial, chance: np.ndarray
) -> tuple[tuple[Set, ...], Wave]:
    """The sets on trial, in the order they were put to it, and what to draw next; nothing ends the search."""
    if not tried and (draws := _unclear(evidence)):
        return (), [((), draws)]
    records = _records(tried, evidence)
    proven = [which for rank, which in enumerate(tried, 1) if trial.proven(*records[rank - 1], rank)]
    if proven and rules.stop_on_first:
        return tried, []
    smallest = min(map(len, proven), default=evidence.shown.shape[1] + 1)
    wave = [
        (which, trial.wanted(*records[rank - 1], rank))
        for rank, which in enumerate(tried, 1)
        if len(which) < smallest
    ]
    wave = [(which, draws) for which, draws in wave if draws]
    if not wave and (between := _between(tried, smallest, rules)):
        wave = _propose(tried, evidence, rules, trial, chance, between)
        tried = (*tried, *(which for which, _ in wave))
    return tried, wave


def _between(tried: Sequence[Set], smallest: int, rules: Rules) -> int:
    """The largest size to propose sets of, `smallest` being the least that is proven; 0: propose no more."""
    largest = max((len(which) for which in tried if len(which) < smallest), default=0)
    if smallest in map(len, tried):
        # What is proven is far larger than all that failed: it may be far larger than it must be.
        return (largest + smallest) // 2 if smallest - largest > max(_GAP, smallest // 8) else 0
    return min(smallest - 1, rules.max_anchor_size or smallest - 1, max(_REACH, 2 * largest))


def _unclear(evidence: Evidence) -> int:
    """Draws to make before anything can be proposed: answers without shades are few on one side."""
    kept, draws = int(evidence.kept.sum()), len(evidence.lead)
    shades = len(np.unique(np.abs(evidence.lead))) > 1
    # An answer that always stays is clear: the empty set will be put to the test.
    if shades or draws >= _FAR or min(kept, draws - kept) >= _RARE or kept == draws:
        return 0
    return draws


def _propose(
    tried: tuple[Set, ...],
    evidence: Evidence,
    rules: Rules,
    trial: Trial,
    chance: np.ndarray,
    reach: int,
) -> Wave:
    """The smallest set that should be an anchor, and beside it a smaller one that might be.

    Sets grow one feature at a time, each member of a beam by every feature, as the paper's do; but what is
    known of them is what the surrogate says, mixed with the draws that happen to speak of them. None of the
    sets that were tried is proposed again. Where none of up to `reach` features should do, the best of that
    many is tried for what its draws teach.
    """
    features = evidence.shown.shape[1]
    most = min(features, rules.max_anchor_size or features)
    surrogate = mask_surrogate.fit(evidence.shown, evidence.lead)
    failed = {frozenset(which) for which in tried}
    arms: Sequence[Set] = [()]
    modest: Wave = []
    nearest: Wave = []
    for size in range(reach + 1):
        if size == features:
            return [(arms[0], trial.enough)]  # it shows the image itself
        masks = _masks(arms, features)
        known = evidence.tally(masks)
        estimate = surrogate.precision(masks, chance)
        estimate = (known.hits + _WEIGHT * estimate) / (known.tries + _WEIGHT)
        order = np.argsort(-estimate, kind="stable")
        best = next((arm for arm in order if frozenset(arms[arm]) not in failed), None)
        if best is not None:
            nearest = [(arms[best], trial.looks[0])]
            if sum(len(which) == size for which in tried) < _FAILURES + rules.beam_size:
                if estimate[best] >= rules.threshold - _LIKELY:
                    return [(arms[best], trial.enough), *modest]
                if estimate[best] >= rules.threshold - _POSSIBLE and not modest:
                    modest = nearest
        if size < reach:
            arms = _extensions([arms[arm] for arm in order[: rules.beam_size]], features)
    return modest or (nearest if reach < most else [])


def _records(sets: Sequence[Set], evidence: Evidence) -> list[tuple[int, int]]:
    """Draws of each set's own, and in how many of them the answer stayed."""
    own = evidence.own(_masks(sets, evidence.shown.shape[1]))
    return list(zip(own.tries.tolist(), own.hits.tolist(), strict=True))


def _best(tried: tuple[Set, ...], evidence: Evidence, trial: Trial) -> tuple[Set, bool]:
    """The smallest proven set or, without one, whichever was tried and has kept the answer most often."""
    records = _records(tried, evidence)
    proven = [which for rank, which in enumerate(tried, 1) if trial.proven(*records[rank - 1], rank)]
    if proven:
        return min(proven, key=len), True
    seen = evidence.tally(_masks(((), *tried), evidence.shown.shape[1]))
    # A short record is drawn towards one half (Laplace's rule of succession).
    return ((), *tried)[int(((seen.hits + 1) / (seen.tries + 2)).argmax())], False


def _extensions(beam: Sequence[Set], features: int) -> list[Set]:
    """Every set of the beam with one feature more; a set that is reached twice counts once."""
    reached: dict[frozenset[int], Set] = {}
    for which in beam:
        for feature in range(features):
            if feature not in which:
                reached.setdefault(frozenset((*which, feature)), (*which, feature))
    return list(reached.values())


def _stratified(rng: np.random.Generator, count: int, features: int, p_sample: float) -> np.ndarray:
    """Masks `(count, features)`, bool, each feature shown with probability `1 - p_sample`.

    A Latin hypercube (McKay et al. 1979): every mask is as random as an independent one, but together they
    show each feature in just its share of them, and so teach more. They are not independent, so they prove
    nothing.
    """
    strata = rng.permuted(np.tile(np.arange(count)[:, None], features), axis=0)
    return np.asarray((strata + rng.random((count, features))) / count >= p_sample)


def _masks(sets: Sequence[Set], features: int) -> np.ndarray:
    """Sets as masks `(A, features)`, bool."""
    masks = np.zeros((len(sets), features), dtype=bool)
    for mask, which in zip(masks, sets, strict=True):
        mask[list(which)] = True
    return masks


def _filled(draws: int) -> int:
    """The least number of whole blocks that holds so many draws."""
    return ceil(draws / _BLOCK) * _BLOCK
