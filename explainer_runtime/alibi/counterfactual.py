"""`Counterfactual`, as notebooks know it; see methods/counterfactual/ for what is computed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from explainer_runtime.alibi.explainer import Explainer
from explainer_runtime.alibi.explanation import Explanation
from explainer_runtime.alibi.history import by_step
from explainer_runtime.alibi.ranges import OPEN, within
from explainer_runtime.explanation import Explanation as Answer


class Counterfactual(Explainer):
    """The nearest instance that the model gives another answer to.

    Args:
        predict_fn: A Keras model, its `predict`, or a function of rows; see `models.as_predictor`.
        shape: Shape of one instance with its batch axis, `(1, *S)`.
        feature_range: Lowest and highest values, numbers or arrays `(1, *S)`. What is left open is closed to
            the values that `fit` has seen, else to those of the instance.
        eps: Step of finite differences for a black box; of an array the smallest.
        schedule: `fast`, or `reference`: Adam, a sweep over lambda, a bisection. `max_iter`, `early_stop`,
            `lam_init`, `max_lam_steps`, `learning_rate_init` and `decay` are settings of the latter.
        settings: Any other field of `spec.Counterfactual`: `gradient`, `seed`, `lanes`, ..., and what the
            model's numbers mean, as fields of `spec.ModelContract`: `output="logits"`, `label=3`.
        write_dir, debug, sess: Have no effect.

    The other arguments are the fields of `spec.Counterfactual` by the same name.
    """

    kind = "counterfactual"
    names: ClassVar[Mapping[str, str]] = {"distance": "distance_fn"}

    def __init__(
        self,
        predict_fn: Any,
        shape: tuple[int, ...],
        distance_fn: str = "l1",
        target_proba: float = 1.0,
        target_class: str | int = "other",
        max_iter: int = 1000,
        early_stop: int = 50,
        lam_init: float = 0.1,
        max_lam_steps: int = 10,
        tol: float = 0.05,
        learning_rate_init: float = 0.1,
        feature_range: tuple[Any, Any] = (-OPEN, OPEN),
        eps: Any = 0.01,
        init: str = "identity",
        decay: bool = True,
        write_dir: str | None = None,
        debug: bool = False,
        sess: Any = None,
        *,
        schedule: str = "fast",
        **settings: Any,
    ) -> None:
        self._begin(predict_fn, locals())
        self._learn(self._fitted.spec)

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Take bounds that were left open from the rows `X` `(N, *S)`; there is nothing else to fit."""
        if X is not None:
            self._fitted = within(self._fitted, np.asarray(X))
        return self

    def explain(self, X: Any) -> Explanation:
        """The counterfactual of one instance `(1, *S)`.

        Returns:
            `cf`: None where there is none, else `X` `(1, *S)`, `distance` (L1), `lambda` (0 where there
            is none), `index` (`max_iter` times the number of its list), `class`, `proba` `(1, K)` and
            `loss`. `all`: in `max_lam_steps` lists the valid points on the way, ever nearer ones, each with
            its own lambda. `orig_class`, `orig_proba` (of that class), `success`.

        Raises:
            InvalidInput: It is not one instance of the right shape, or not finite.
        """
        answer = self._ask(self._row(X), {"keep_path": True})
        cf = self._point(
            0,
            answer["counterfactual"],
            answer["counterfactual_proba"],
            float(answer["distance_l1"][0]),
            max(0.0, float(answer["lam"][0])),
        )
        found = bool(answer["found"][0])
        data = {
            "cf": cf if found else None,
            "all": by_step(answer, self.max_lam_steps, partial(self._passed, answer), cf),
            "orig_class": int(answer["original_class"][0]),
            "orig_proba": float(answer["original_proba"][0].max()),
            "success": found,
        }
        return self._explanation(answer, data)

    def _passed(self, answer: Answer, step: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        """A valid point on the way."""
        x, proba = entry["x"][None], entry["proba"][None]
        return self._point(step, x, proba, float(np.abs(x - answer.raw[0]["row"]).sum()), entry["weight"])

    def _point(
        self, step: int, x: np.ndarray, proba: np.ndarray, distance: float, lam: float
    ) -> dict[str, Any]:
        return {
            "X": np.array(x),
            "distance": distance,
            "lambda": lam,
            "index": step * self.max_iter,
            "class": int(proba[0].argmax()),
            "proba": np.array(proba),
            "loss": (float(proba.max()) - self.target_proba) ** 2 + lam * distance,
        }
