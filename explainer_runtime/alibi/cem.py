"""`CEM`, as notebooks know it; see methods/cem/ for what is computed."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from explainer_runtime.alibi.explainer import Explainer
from explainer_runtime.alibi.explanation import Explanation
from explainer_runtime.alibi.ranges import OPEN, within
from explainer_runtime.alibi.settings import no_effect, of_features
from explainer_runtime.errors import InvalidSpec


class CEM(Explainer):
    """What must be absent (PN), or suffices (PP), for the class the model gives.

    Args:
        predict: A Keras model, its `predict`, or a function of rows; see `models.as_predictor`.
        mode: `PN` or `PP`.
        shape: Shape of one instance with its batch axis, `(1, *S)`.
        ae_model: Keras model that rebuilds instances; what `gamma` weighs.
        no_info_val: The value of a feature that says nothing, a number or an array `(1, *S)`; None takes it
            from the rows given to `fit`.
        feature_range: As in `Counterfactual`.
        eps: Steps of finite differences for a black box; only the second, for features, has an effect.
        schedule: `fast`, or `reference`, of which `max_iterations`, `learning_rate_init` are settings.
        settings: Any other field of `spec.CEM`: `pp_space`, `gradient`, `seed`, ...
        update_num_grad, write_dir, sess: Have no effect.

    The other arguments are the fields of `spec.CEM` by the same name.
    """

    kind = "cem"

    def __init__(
        self,
        predict: Any,
        mode: str,
        shape: tuple[int, ...],
        kappa: float = 0.0,
        beta: float = 0.1,
        feature_range: tuple[Any, Any] = (-OPEN, OPEN),
        gamma: float = 0.0,
        ae_model: Any = None,
        learning_rate_init: float = 1e-2,
        max_iterations: int = 1000,
        c_init: float = 10.0,
        c_steps: int = 10,
        eps: Any = (1e-3, 1e-3),
        clip: tuple[float, float] = (-100.0, 100.0),
        update_num_grad: int = 1,
        no_info_val: Any = None,
        write_dir: str | None = None,
        sess: Any = None,
        *,
        schedule: str = "fast",
        **settings: Any,
    ) -> None:
        given = {
            **locals(),
            "gamma": 0.0 if ae_model is None else gamma,
            "no_info_val": _without_batch(no_info_val, shape),
            "eps": of_features(eps),
        }
        self._begin(predict, given, autoencoder=ae_model)
        if no_info_val is not None:
            self._learn(self._fitted.spec)

    def fit(self, train_data: Any, no_info_type: str = "median") -> Self:
        """Take `no_info_val`, where it was not given, from training rows `(N, *S)`, feature by feature."""
        rows = np.asarray(train_data)
        self._fitted = within(self._fitted, rows)
        self._learn(self._fitted.spec.model_copy(update={"no_info_type": no_info_type}), rows)
        return self

    def explain(self, X: Any, Y: Any = None, verbose: bool = False) -> Explanation:
        """The pertinent negative or positive of one instance `(1, *S)`.

        Args:
            X: The instance.
            Y: Has no effect: the class is the one the model gives.
            verbose: Has no effect.

        Returns:
            `PN` and `PN_pred`, or `PP` and `PP_pred`: what was found `(1, *S)` and the class that the model
            gives it, None where nothing was, and in the other mode; `X` and `X_pred`.

        Raises:
            InvalidInput: It is not one instance of the right shape, or not finite.
            InvalidSpec: Neither `no_info_val` nor `fit` has been given.
        """
        no_effect(Y=Y)
        row = self._row(X)
        answer = self._ask(row)
        data = dict.fromkeys(("PN", "PP", "PN_pred", "PP_pred"))
        if answer["found"][0]:
            data[self.mode] = answer["pertinent"]
            data[f"{self.mode}_pred"] = int(answer["pertinent_class"][0])
        return self._explanation(answer, {**data, "X": row, "X_pred": int(answer["original_class"][0])})

    def _check_fitted(self) -> None:
        if "no_info" not in self._fitted.arrays:
            raise InvalidSpec("no_info_val: give it, or call fit(train_data) first")


def _without_batch(value: Any, shape: tuple[int, ...]) -> Any:
    if value is None or np.ndim(value) != len(shape):
        return value
    return np.asarray(value)[0]
