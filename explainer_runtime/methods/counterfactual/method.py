"""Counterfactuals: what is the least that would have had to be different?

Wachter, Mittelstadt, Russell (arXiv:1711.00399) ask for the input nearest to `x` that the model answers
otherwise: it minimises `(f(x') - p)^2 + lambda * ||x' - x||_1` for the largest lambda at which `f(x')`, the
probability of the class sought, still comes within `tol` of `p`. That is the least change at which the
probability is there, and lambda its price; `search/least_change.py` seeks it directly, side by side towards
each of the likeliest classes. `reference` is the paper's loss as practice has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import numpy as np

from explainer_runtime.errors import InvalidPrediction
from explainer_runtime.explanation import Explanation, Fields
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods import latent, teaching
from explainer_runtime.methods.common import (
    EFFORTS,
    Plan,
    changed,
    changed_fields,
    check_changed,
    explanation,
    run,
)
from explainer_runtime.methods.counterfactual.settings import Counterfactual
from explainer_runtime.methods.drawing import counterfactuals as draw
from explainer_runtime.methods.ground import Given, Ground
from explainer_runtime.search import wachter
from explainer_runtime.search.asks import Search
from explainer_runtime.search.best import Best
from explainer_runtime.search.criterion import SLACK, Criterion, criterion, one_hot
from explainer_runtime.search.lanes import Effort
from explainer_runtime.search.least_change import Problem
from explainer_runtime.search.visible import visible

_EDGE = 1e-5
"""Held back from `tol`: a model's last bits depend on the batch, and `found` must hold when asked again."""
_SQUARES = {"balanced": 1.2, "smallest": 0.3}
"""What the squared distance counts beside the L1 distance: changes are shared by neighbours, and look less
like dust."""
_COHERENT = {"balanced": 0.2, "smallest": 0.0}
"""How much neighbours have a say in what it costs to change a pixel; see `least_change.Pace`."""
_DEEPER = {"balanced": 0.15, "smallest": 0.0}
"""Log-odds beyond what is asked for: other models agree with a deeper answer more often."""

__all__ = ["NETWORKS", "check", "draw", "fields", "fit", "search"]

NETWORKS = ("autoencoder", "encoder", "decoder")


def check(fitted: Fitted, asked: Collection[str] = ()) -> None:
    """See `Method`."""
    check_changed(fitted, asked)


def fit(given: Given) -> dict[str, np.ndarray]:
    """A surrogate, where the model is a black box; what is kept of codes, where there is a decoder."""
    return teaching.fit(given) | latent.fit(given)


def search(x: np.ndarray, spec: Counterfactual, ground: Ground) -> Search[Explanation]:
    """The search for a counterfactual of each row.

    See `Method`. An autoencoder takes no part in it: its error says how plausible an answer is.

    Returns:
        An explanation with `counterfactual` `(N, *S)`, inside the bounds where `found`: the model, asked
        last, gave it the probability sought, and another class where `target_class` is `other`. Elsewhere it
        is the row itself.
    """
    outcome = yield from run(x, ground, partial(_plan, x, spec, ground), keep=spec.keep_path)
    sought = np.where(_wanted(spec, outcome.original), outcome.log_scores, -np.inf).argmax(axis=1)
    likely = np.exp(np.take_along_axis(outcome.log_scores, sought[:, None], axis=1)[:, 0])
    by_schedule = spec.schedule == "reference"  # there the multiplier is lambda itself
    lam = np.where(outcome.mu > 0, outcome.mu if by_schedule else 1 / np.abs(outcome.mu), -1)
    fields = changed(outcome, x, ground, "counterfactual") | {
        "target_class": np.where(outcome.asked, sought, -1),
        "target_proba": np.where(outcome.asked, likely, 0).astype(np.float32),
        "lam": lam.astype(np.float32),
    }
    return explanation(
        "counterfactual", fields, x, outcome, (lambda mu: mu) if by_schedule else (lambda mu: 1 / mu)
    )


def fields(fitted: Fitted) -> Fields:
    """What an answer holds."""
    number = ("FP32", ())
    return changed_fields(fitted, "counterfactual") | {
        "target_class": ("INT64", ()),
        "target_proba": number,
        "lam": number,
    }


def _wanted(spec: Counterfactual, scores: np.ndarray) -> np.ndarray:
    """The classes that count for each row `(N, K)`, bool."""
    own = one_hot(scores.argmax(axis=1), scores.shape[1])
    match spec.target_class:
        case "other":
            return ~own
        case "same":
            return own
        case wanted:
            return one_hot(np.full(len(scores), wanted), scores.shape[1])


def _plan(x: np.ndarray, spec: Counterfactual, ground: Ground, scores: np.ndarray) -> Plan:
    if (top := float(scores.max())) > _EDGE:
        raise InvalidPrediction(
            f"a counterfactual asks for a probability, and the model gave a score of {np.exp(top):.4g}; "
            "explain scores above 1 by another method, or divide them by the most; see docs/models.md"
        )
    low, high = ground.bounds(spec, x)
    owner, asked = _lanes(spec, ground, scores)
    reference = spec.schedule == "reference"
    space = latent.space(spec, ground, x[owner], low[owner], high[owner])
    least, most = space.bounds()
    count = len(owner)
    problem = Problem(
        space,
        least,
        most,
        np.clip(np.zeros_like(least), least, most),
        asked,
        np.ones(count, np.float32),
        np.full(count, _SQUARES[spec.objective], np.float32),
    )
    adam = wachter.Adam(**{name: getattr(spec, name) for name in wachter.Adam._fields})
    schedule: Callable[[np.ndarray, Best], Search[None]] | None = None
    if reference:
        schedule = partial(wachter.bisect, space, least, most, asked, adam)
    effort = _effort(spec, ground, asked)
    if spec.space == "smooth":
        schedule = partial(visible, problem, effort, owner, ground.guide)
    return Plan(latent.near(problem, ground, 1.0), owner, effort, schedule)


def _lanes(spec: Counterfactual, ground: Ground, scores: np.ndarray) -> tuple[np.ndarray, Criterion]:
    """Which row each lane belongs to `(L,)`, and what it asks."""
    wanted, own = _wanted(spec, scores), one_hot(scores.argmax(axis=1), scores.shape[1])
    owner, sought = np.arange(len(scores)), wanted
    if spec.target_class == "other" and spec.schedule == "fast":
        lanes = 1 if ground.road in ("random", "full") else spec.lanes
        tries = min(max(lanes, spec.answers), scores.shape[1] - 1)
        likely = np.argsort(np.where(wanted, -scores, np.inf), axis=1, kind="stable")[:, :tries]
        owner, sought = np.repeat(owner, tries), one_hot(likely.reshape(-1), scores.shape[1])
    edge = min(_EDGE, spec.tol / 4)
    least, most = spec.target_proba - spec.tol, spec.target_proba + spec.tol
    now = np.exp(np.where(sought, scores[owner], -np.inf).max(axis=1))
    falls = now > most
    asked = criterion(
        sought,
        against=_against(spec, sought, own[owner]),
        level=np.where(falls, most - 2 * edge, max(0.0, least + 2 * edge)),
        sign=np.where(falls, -1.0, 1.0),
        least=max(0.0, least + edge),
        most=min(1.0, most - edge),
        exclusive=ground.exclusive,
    )
    return owner, asked._replace(
        level=asked.level + asked.sign * min(_DEEPER[spec.objective], _band(asked) / 4)
    )


def _band(asked: Criterion) -> float:
    """Log-odds between the least and the most at which a point is valid, at the narrowest."""
    return float((asked.most - asked.least).min()) - 2 * SLACK


def _against(spec: Counterfactual, sought: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The classes that the one sought has to lead: `other` means that the class changes, to that one."""
    if spec.target_class != "other":
        return np.zeros_like(sought)
    return own if spec.schedule == "reference" else ~sought


def _effort(spec: Counterfactual, ground: Ground, asked: Criterion) -> Effort:
    """The engine's, with more steps: nothing but the model holds an L1 distance back."""
    effort = EFFORTS[spec.effort]
    pace = effort.pace._replace(
        rho=1.0 if spec.space == "latent" else 0.0,
        refine=2 * effort.pace.refine if spec.effort == "standard" else effort.pace.refine,
        coherent=_COHERENT[spec.objective],
        pad=min(effort.pace.pad, _band(asked) / 4),
    )
    effort = effort._replace(pace=pace, answers=spec.answers)
    if ground.road == "surrogate":
        return effort._replace(rungs=(24, 12), groups=40)
    if ground.road in (
        "random",
        "full",
    ):  # slopes take many rows each, and are smooth: fewer, and more is taken back
        return effort._replace(pace=pace._replace(refine=8), thin=0.0, rungs=(24, 12), groups=96, rounds=2)
    return effort
