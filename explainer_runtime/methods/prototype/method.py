"""Counterfactuals guided by prototypes: the least change, to something that looks like its new class.

Van Looveren, Klaise (arXiv:1907.02584) pull the counterfactual towards a prototype of the class that is
nearest in the space of an encoder, and keep it where an autoencoder can rebuild it. The class sought is that
prototype's: a point that is pulled to one class and pushed to any would end between them. Fitting encodes
training rows and keeps their codes by the class that the model gives them. Without an encoder the codes are
the rows themselves.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import numpy as np

from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explanation import Explanation, Fields
from explainer_runtime.fitted import Fitted, check_arrays, need
from explainer_runtime.methods import latent, teaching
from explainer_runtime.methods.common import Plan, changed, changed_fields, check_changed, explanation, run
from explainer_runtime.methods.drawing import counterfactuals as draw
from explainer_runtime.methods.elastic import NET_FIELDS, effort, net_fields, problem, schedule
from explainer_runtime.methods.ground import Given, Ground
from explainer_runtime.methods.prototype.settings import CounterfactualProto
from explainer_runtime.predictors.base import answered
from explainer_runtime.search.asks import Search
from explainer_runtime.search.criterion import criterion, one_hot
from explainer_runtime.search.kept import Kept, as_bytes, halved
from explainer_runtime.search.networks import curvature
from explainer_runtime.search.prototypes import Codes, Prototypes, choose, collect, prototypes
from explainer_runtime.search.prototypes import trust as trust_score
from explainer_runtime.spec import Inputs

_RHO = 0.06
_PROBES = 32
"""Training rows at which the curvature of the networks is measured."""

__all__ = ["NETWORKS", "check", "draw", "fields", "fit", "search"]

NETWORKS = ("autoencoder", "encoder", "decoder")


def check(fitted: Fitted, asked: Collection[str] = ()) -> None:
    """See `Method`."""
    spec, classes = fitted.spec, fitted.inputs.classes
    assert isinstance(spec, CounterfactualProto)
    check_changed(fitted, asked)
    if "codes" in fitted.arrays:
        coded = "encoder" in fitted.models
        check_arrays(
            fitted,
            {
                "codes": ("f" if coded else "fB", ("M", "E")),
                "classes": ("i", ("M",)),
                **({"means": ("f", ("P", "E"))} if coded or "means" in fitted.arrays else {}),
            },
        )
        means = fitted.arrays.get("means")
        if means is not None and len(means) not in (len(np.unique(fitted.arrays["classes"])), classes):
            raise InvalidSpec("array 'means': expected one row a class that has codes; fit and save again")
    elif spec.theta:
        need("array", "codes", fitted.arrays, "theta")
    else:
        for name in {"threshold", "k", "k_type"} & set(asked) | ({"threshold"} if spec.threshold else set()):
            raise InvalidOption(
                f"{name}: this explainer was fitted without prototypes; fit it with theta or threshold", name
            )


def fit(given: Given) -> dict[str, np.ndarray]:
    """What an explainer keeps of its training rows `(M, *S)`.

    Returns:
        `bend` `(2,)`; with prototypes `codes` `(M, E)`, as bytes or in half precision where that does no
        harm, `classes` `(M,)` int64, ascending, and with an encoder `means` `(P, E)` of the classes that have
        codes; and a surrogate, where the model is a black box.
    """
    spec, x, predictor, networks = given.spec, given.rows(), given.predictor, given.networks
    guided = spec.theta or spec.threshold
    if guided and (x is None or predictor is None):
        raise InvalidSpec("theta, threshold: prototypes need training rows `x` and a `predictor` at fit")
    taught = teaching.fit(given) | latent.fit(given)
    if x is None:
        return taught
    probes = x[np.linspace(0, len(x) - 1, min(len(x), _PROBES)).round().astype(int)]
    fitted = {**taught, "bend": curvature(networks, probes)}
    if not guided or predictor is None:
        return fitted
    said = answered(predictor, x, given.progress).argmax(axis=1)
    held = collect(given.codes(x), said, spec.coreset, spec.seed)
    if networks.encoder is not None:
        return fitted | held._asdict() | {"codes": halved(held.codes.held)}
    return fitted | {"codes": as_bytes(held.codes.held, *_span(given.inputs)), "classes": held.classes}


def search(x: np.ndarray, spec: CounterfactualProto, ground: Ground) -> Search[Explanation]:
    """The search for a counterfactual of each row.

    See `Method`.

    Returns:
        An explanation with `counterfactual` `(N, *S)`, inside the bounds; `found` is true where the model,
        asked last, gave it a class that is allowed, with the lead that `kappa` asks for. Elsewhere it is the
        row itself. Where there are prototypes, `id_proto` is the class of the one that guided the search and
        `prototype_distance` the squared distance of the answer's code to it; both are -1 where no class that
        is allowed has one.
    """
    guide = _Guide(x, spec, ground)
    outcome = yield from run(x, ground, partial(_plan, x, spec, ground, guide), keep=spec.keep_path)
    fields = changed(outcome, x, ground, "counterfactual") | net_fields(spec, outcome, outcome.x - x, ground)
    if guide.near is not None:
        fields |= guide.fields(outcome.x)
    return explanation("counterfactual_proto", fields, x, outcome, lambda mu: mu)


def fields(fitted: Fitted) -> Fields:
    """What an answer holds; what speaks of prototypes only where there are some."""
    spec = fitted.spec
    assert isinstance(spec, CounterfactualProto)
    guided = "codes" in fitted.arrays and (spec.theta or spec.threshold)
    guide: Fields = {"id_proto": ("INT64", ()), "prototype_distance": ("FP32", ())} if guided else {}
    return changed_fields(fitted, "counterfactual") | NET_FIELDS | guide


class _Guide:
    """The prototypes that guide one search: near each row, of the class that was chosen for it."""

    def __init__(self, x: np.ndarray, spec: CounterfactualProto, ground: Ground) -> None:
        self.networks, self.near = ground.plausible(), self._near(x, spec, ground)
        self.chosen = np.full(len(x), -1)

    @staticmethod
    def _near(x: np.ndarray, spec: CounterfactualProto, ground: Ground) -> Prototypes | None:
        if "codes" not in ground.arrays or not (spec.theta or spec.threshold):
            return None
        networks = ground.plausible()
        k = 1 if spec.k is None and networks.encoder is None else spec.k
        arrays, present = ground.arrays, np.unique(ground.arrays["classes"])
        means = arrays.get("means", np.zeros((0, 1), np.float32))
        if len(means) > len(present):  # 0.1.0 kept those of all classes
            means = means[present]
        held = Codes(Kept(arrays["codes"], *_span(ground.inputs)), arrays["classes"], means)
        return prototypes(held, networks.codes(x), ground.inputs.classes, k, spec.k_type == "point")

    def choose(self, allowed: np.ndarray) -> None:
        """Take the nearest class that is allowed `(N, K)`, for each row."""
        if self.near is not None:
            self.chosen = choose(self.near.distances, allowed)

    def target(self) -> np.ndarray | None:
        """The codes to go to `(N, E)`."""
        return None if self.near is None else self.near.of(np.arange(len(self.chosen)), self.chosen)

    def trusted(
        self, least: float, own: np.ndarray, x: np.ndarray, log_scores: np.ndarray, lanes: np.ndarray
    ) -> np.ndarray:
        """Whether points are nearer to their new class's prototype than to the old one's by what is asked.

        A class without training rows has no prototype: nothing says that such a point is one of it, so it is
            not trusted.
        """
        assert self.near is not None
        new = log_scores.argmax(axis=1)
        known = np.isfinite(self.near.distances[lanes, new]) & np.isfinite(
            self.near.distances[lanes, own[lanes]]
        )
        score = trust_score(self.networks.codes(x), self.near.of(lanes, own[lanes]), self.near.of(lanes, new))
        return np.asarray(known & (score > least))

    def fields(self, x: np.ndarray) -> dict[str, np.ndarray]:
        target = self.target()
        assert target is not None
        away = ((self.networks.codes(x) - target) ** 2).sum(axis=1)
        return {
            "id_proto": self.chosen,
            "prototype_distance": np.where(self.chosen < 0, -1, away).astype(np.float32),
        }


def _plan(
    x: np.ndarray, spec: CounterfactualProto, ground: Ground, guide: _Guide, scores: np.ndarray
) -> Plan:
    low, high = ground.bounds(spec, x)
    own = scores.argmax(axis=1)
    allowed = ~one_hot(own, scores.shape[1])
    if spec.target_class is not None:
        allowed &= np.isin(np.arange(scores.shape[1]), spec.target_class)
    guide.choose(allowed)
    reference = spec.schedule == "reference"
    wanted = allowed
    if not reference and spec.theta and guide.near is not None:
        wanted = np.where(guide.chosen[:, None] < 0, allowed, one_hot(guide.chosen, scores.shape[1]))
    owner = np.flatnonzero(allowed.any(axis=1))
    asked = criterion(
        wanted[owner], lead=1.0 if reference else spec.lead, kappa=spec.kappa, exclusive=ground.exclusive
    )
    theta = np.where(guide.chosen[owner] < 0, 0, spec.theta).astype(np.float32)
    target = guide.target()
    space = latent.space(spec, ground, x[owner], low[owner], high[owner])
    nearest = None if target is None else target[owner]
    sought = problem(spec, ground, space, asked, theta=theta, target=nearest)
    if spec.threshold and guide.near is not None:
        sought = sought._replace(trusted=partial(guide.trusted, spec.threshold, own[owner]))
    work = effort(spec, _RHO)
    sought = latent.near(sought, ground, work.pace.rho)
    return Plan(sought, owner, work, schedule(spec, sought), _known(guide, ground))


def _span(inputs: Inputs) -> tuple[float, float]:
    """Lowest and highest number of a code that is a row: rows are counted in ranges of a feature then."""
    return inputs.low / (inputs.high - inputs.low), inputs.high / (inputs.high - inputs.low)


def _known(guide: _Guide, ground: Ground) -> tuple[Kept, np.ndarray] | None:
    """Training rows of every class, where the codes are the rows; what the model said of each is its
    class."""
    arrays, inputs = ground.arrays, ground.inputs
    if guide.near is None or guide.networks.encoder is not None:
        return None
    rows = arrays["codes"].reshape(-1, *inputs.shape)
    if rows.dtype != np.uint8:
        rows = rows * np.float32(ground.unit)
    said = np.where(one_hot(arrays["classes"], inputs.classes), 0.0, -87.0)
    return Kept(rows, inputs.low, inputs.high), said.astype(np.float32)
