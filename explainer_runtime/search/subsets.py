"""The smallest set of features that holds an answer in place, whatever the others do.

A set is an *anchor* when, with the set shown and every other feature masked at random, the answer stays
with probability at least `threshold` (Ribeiro, Singh, Guestrin, AAAI 2018). The search grows sets one
feature at a time: every member of a beam is extended by every feature, the extensions of one size are the
arms of a contest (`bandit.py`), and its leaders are verified (`verify.py`) or become the next beam.

It knows nothing of images: it asks about masks and is told, for each, whether the answer stayed. It asks in
waves rather than for the paper's two arms a round, and no draw is forgotten (`evidence.py`), so that a wave
serves three ends at once. Draws for the *parent* of many arms tell about every arm that they happen to
show; draws for a leader verify it; and should it fail, they are the first draws for its extensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, log
from typing import NamedTuple

import numpy as np

from explainer_runtime.search.asks import Search, Stop
from explainer_runtime.search.bandit import Tally, contest, leading, lower_bound
from explainer_runtime.search.evidence import Evidence
from explainer_runtime.search.verify import Verdict, verify

Set = tuple[int, ...]
"""Features in the order they were added."""
Wave = list[tuple[Set, int]]
"""How many draws to make for which sets."""

_START = 192
"""Pictures in the first wave, at least: the draws, the image itself and one with everything masked."""
_WAVE = 256
"""Draws that go out together to tell arms apart."""
_PROOF = 384
"""Most draws that go out together to verify sets."""
_BLOCK = 64
"""Waves are filled up to multiples of this, since models compute in such blocks anyway."""
_SEEDS = 30
"""Draws that the arms of one size should have in the mean before any of them is trusted to lead."""
_PATIENCE = 12
"""Waves for one size, after which a larger one is tried."""
_TESTS = 10
"""Sets that a search verifies, or gives up, before it ends; they share `delta`. Most need one or two."""


class Rules(NamedTuple):
    """What is sought and how carefully: the fields of `spec.AnchorImage` of the same names."""

    p_sample: float = 0.5
    threshold: float = 0.95
    delta: float = 0.1
    tau: float = 0.15
    batch_size: int = 100
    beam_size: int = 1
    stop_on_first: bool = False
    max_anchor_size: int | None = None
    min_samples_start: int = 100


class Holding(NamedTuple):
    """How a search ended."""

    features: Set
    """The anchor, or the best candidate, in the order its features were added."""
    found: bool
    """Whether it was verified."""
    stopped: str | None
    """Why the search was told to stop; None where it came to its end."""
    evidence: Evidence
    """Every draw, in the order they were asked about."""


class _Stage(NamedTuple):
    """The sets of one size, the beam they extend, and how many waves they have had."""

    parents: tuple[Set, ...]
    sets: tuple[Set, ...]
    waves: int = 0


def hold(
    features: int, rules: Rules, seed: int, ask: Callable[[np.ndarray], Search[np.ndarray]]
) -> Search[Holding]:
    """Search for an anchor among the subsets of `features` features.

    Args:
        features: How many there are, K, at least 1.
        rules: Settings.
        seed: Of the masks.
        ask: Asks the model about masks `(M, K)`, bool, true where a feature is shown; returns whether the
            answer stayed, `(M,)`, bool. What it yields is passed on.

    Returns:
        An anchor of the least size at which one was verified. The set of all features holds any answer, so
        one is found unless `max_anchor_size` or a `Stop` forbids; then it is the best candidate.
    """
    rng = np.random.default_rng(seed)
    evidence, stopped = Evidence.none(features), None
    stage = _Stage((), ((),))
    wave: Wave = [((), _filled(max(_START, rules.min_samples_start + 2)) - 2)]
    try:
        while wave:
            forced = np.repeat(_masks([which for which, _ in wave], features), [n for _, n in wave], axis=0)
            shown = forced | _by_chance(rng, wave, features, rules.p_sample)
            evidence = evidence.plus(forced, shown, (yield from ask(shown)))
            stage, wave = _next(stage, evidence, rules)
    except Stop as stop:
        stopped = stop.status
    best, found = _best(stage, evidence, rules)
    return Holding(best, found, stopped, evidence)


def _next(stage: _Stage, evidence: Evidence, rules: Rules) -> tuple[_Stage, Wave]:
    """What to draw next, at this size or, where it is decided, at a larger one; nothing ends the search."""
    features = evidence.shown.shape[1]
    most = min(features, rules.max_anchor_size or features)
    while True:
        tally, verdict = _judge(stage.sets, evidence, rules)
        if verdict.valid.any():
            return stage, _settle(stage, tally, verdict, rules)
        leaders = leading(tally, rules.beam_size)
        wave = [] if stage.waves else _compare(stage, tally, verdict, rules)
        if not wave and stage.waves < _PATIENCE:
            wave = _verification(leaders, stage, verdict, rules)
        if wave or len(stage.sets[0]) == most:
            return stage._replace(waves=stage.waves + 1), wave
        beam = tuple(stage.sets[leader] for leader in leaders)
        stage = _Stage(beam, _extensions(beam, features))


def _judge(sets: Sequence[Set], evidence: Evidence, rules: Rules) -> tuple[Tally, Verdict]:
    """What is known of each set, and whether that makes it an anchor."""
    masks = _masks(sets, evidence.shown.shape[1])
    tally, own = evidence.tally(masks), evidence.own(masks)
    return tally, verify(tally, own, rules.threshold, log(_TESTS / rules.delta), rules.batch_size)


def _settle(stage: _Stage, tally: Tally, verdict: Verdict, rules: Rules) -> Wave:
    """One anchor is verified: draws for the other members of the beam that may be anchors too."""
    if rules.stop_on_first:
        return []
    beam = np.lexsort((-tally.tries, -tally.mean, ~verdict.valid))[: rules.beam_size]
    return _verification(beam, stage, verdict, rules)


def _compare(stage: _Stage, tally: Tally, verdict: Verdict, rules: Rules) -> Wave:
    """Draws that tell the arms of one size apart; none where that is clear or does not matter.

    KL-LUCB would go on until no rival can be better by `tau`. One wave a size does as well here: more of
    them took more calls and rows and anchors came out no shorter, since a leader that is not the best is
    one feature away from being as good.
    """
    lacking = _SEEDS - tally.tries.mean()
    if stage.parents and lacking > 0:
        draws = ceil(lacking / (1 - rules.p_sample))
        return _spread(stage.parents, min(max(draws, _WAVE), 4 * _WAVE))
    now = contest(tally, rules.beam_size, log(1 / rules.delta), rules.tau)
    if not len(now.rivals) or verdict.promising[now.leaders].any():
        return []  # if a leader is an anchor, nobody cares who else might have led
    wave = [(stage.sets[arm], max(rules.batch_size, int(verdict.wanted[arm]))) for arm in now.leaders]
    room = max(rules.batch_size, _WAVE - sum(count for _, count in wave))
    if len(now.rivals) * (1 - rules.p_sample) >= 1:
        # A draw for the parent shows, in the mean, more than one of the rivals.
        return wave + _spread(stage.parents, room)
    rivals = now.rivals[: room // rules.batch_size]
    return wave + [(stage.sets[arm], rules.batch_size) for arm in rivals]


def _verification(arms: np.ndarray, stage: _Stage, verdict: Verdict, rules: Rules) -> Wave:
    """The draws that these arms want, in even shares where that is too much, filled up to whole blocks."""
    wanted = [(stage.sets[arm], int(verdict.wanted[arm])) for arm in arms if verdict.wanted[arm]]
    if not wanted:
        return []
    share = max(rules.batch_size, ceil(_PROOF / len(wanted)))
    (first, count), *others = [(which, min(count, share)) for which, count in wanted]
    total = count + sum(more for _, more in others)
    return [(first, count + _filled(total) - total), *others]


def _best(stage: _Stage, evidence: Evidence, rules: Rules) -> tuple[Set, bool]:
    """A verified set of this size or, without one, whichever candidate surely holds the most."""
    sets = stage.sets + stage.parents
    tally, verdict = _judge(sets, evidence, rules)
    lower = lower_bound(tally.mean, log(1 / rules.delta) / np.maximum(tally.tries, 1))
    best = int(np.lexsort((-lower, ~verdict.valid))[0])
    return sets[best], bool(verdict.valid[best])


def _extensions(beam: Sequence[Set], features: int) -> tuple[Set, ...]:
    """Every set of the beam with one feature more; a set that is reached twice counts once."""
    reached: dict[frozenset[int], Set] = {}
    for which in beam:
        for feature in range(features):
            if feature not in which:
                reached.setdefault(frozenset((*which, feature)), (*which, feature))
    return tuple(reached.values())


def _by_chance(rng: np.random.Generator, wave: Wave, features: int, p_sample: float) -> np.ndarray:
    """Masks `(M, features)`, bool, each feature shown with probability `1 - p_sample`.

    The draws for one set are a Latin hypercube (McKay et al. 1979): every mask is as random as an
    independent one, but together they show each feature in just its share of them. No arm starts with fewer
    draws by bad luck, and means settle sooner.
    """
    parts = []
    for _, count in wave:
        strata = rng.permuted(np.tile(np.arange(count)[:, None], features), axis=0)
        parts.append((strata + rng.random((count, features))) / count >= p_sample)
    return np.concatenate(parts)


def _masks(sets: Sequence[Set], features: int) -> np.ndarray:
    """Sets as masks `(A, features)`, bool."""
    masks = np.zeros((len(sets), features), dtype=bool)
    for mask, which in zip(masks, sets, strict=True):
        mask[list(which)] = True
    return masks


def _spread(sets: Sequence[Set], draws: int) -> Wave:
    """At least `draws` draws, shared evenly."""
    return [(which, ceil(draws / len(sets))) for which in sets]


def _filled(draws: int) -> int:
    """The least number of whole blocks that holds so many draws."""
    return ceil(draws / _BLOCK) * _BLOCK
