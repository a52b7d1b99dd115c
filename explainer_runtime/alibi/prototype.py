"""`CounterfactualProto`, as notebooks know it; see methods/prototype/ for what is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from explainer_runtime.alibi.explainer import Explainer
from explainer_runtime.alibi.explanation import Explanation
from explainer_runtime.alibi.history import by_step
from explainer_runtime.alibi.ranges import OPEN, within
from explainer_runtime.alibi.settings import no_effect, of_features, plain
from explainer_runtime.errors import InvalidSpec


class CounterfactualProto(Explainer):
    """The least change to something that looks like its new class.

    Args:
        predict: A Keras model, its `predict`, or a function of rows; see `models.as_predictor`.
        shape: Shape of one instance with its batch axis, `(1, *S)`.
        ae_model: Keras model that rebuilds instances; what `gamma` weighs.
        enc_model: Keras model that places instances; in whose space `theta` weighs the distance to a
            prototype. Without one, `use_kdtree` makes the nearest training rows prototypes, and otherwise
            `theta` has no effect.
        feature_range: As in `Counterfactual`.
        eps: Steps of finite differences for a black box; only the second, for features, has an effect.
        schedule: `fast`, or `reference`, of which `max_iterations`, `learning_rate_init` are settings.
        settings: Any other field of `spec.CounterfactualProto`: `gradient`, `seed`, `lead`, ...
        cat_vars, ohe: Refused; features are numbers.
        update_num_grad, write_dir, sess: Have no effect.

    The other arguments are the fields of `spec.CounterfactualProto` by the same name.
    """

    kind = "counterfactual_proto"
    _guided = True
    """Whether `fit` keeps prototypes."""

    def __init__(
        self,
        predict: Any,
        shape: tuple[int, ...],
        kappa: float = 0.0,
        beta: float = 0.1,
        feature_range: tuple[Any, Any] = (-OPEN, OPEN),
        gamma: float = 0.0,
        ae_model: Any = None,
        enc_model: Any = None,
        theta: float = 0.0,
        cat_vars: Mapping[int, int] | None = None,
        ohe: bool = False,
        use_kdtree: bool = False,
        learning_rate_init: float = 1e-2,
        max_iterations: int = 1000,
        c_init: float = 10.0,
        c_steps: int = 10,
        eps: Any = (1e-3, 1e-3),
        clip: tuple[float, float] = (-1000.0, 1000.0),
        update_num_grad: int = 1,
        write_dir: str | None = None,
        sess: Any = None,
        *,
        schedule: str = "fast",
        **settings: Any,
    ) -> None:
        if cat_vars or ohe:
            raise InvalidSpec("cat_vars, ohe: categorical features are not supported; leave them out")
        self._guided = enc_model is not None or use_kdtree
        given = {
            **locals(),
            "gamma": 0.0 if ae_model is None else gamma,
            "theta": theta if self._guided else 0.0,
            "eps": of_features(eps),
            "settings": {"coreset": None, **settings},  # all rows, as such notebooks expect
        }
        self._begin(predict, given, autoencoder=ae_model, encoder=enc_model)

    def fit(
        self,
        train_data: Any,
        trustscore_kwargs: Mapping[str, Any] | None = None,
        d_type: str = "abdm",
        w: float | None = None,
        disc_perc: Any = (25, 50, 75),
        standardize_cat_vars: bool = False,
        smooth: float = 1.0,
        center: bool = True,
        update_feature_range: bool = True,
    ) -> Self:
        """Keep the codes of training rows `(N, *S)` by the class that the model gives them.

        The arguments after `trustscore_kwargs` are for categorical features and have no effect.
        """
        no_effect(trustscore_kwargs=trustscore_kwargs)
        rows = np.asarray(train_data)
        self._fitted = within(self._fitted, rows)
        spec = self._fitted.spec
        # Prototypes are kept whatever theta is: `explain` may ask for a trust score.
        asked = spec.model_copy(update={"threshold": 1.0} if self._guided else {})
        self._learn(asked, rows, predictor=self._predictor)
        self._fitted = dataclasses.replace(self._fitted, spec=spec)
        return self

    def explain(
        self,
        X: Any,
        Y: Any = None,
        target_class: Any = None,
        k: int | None = None,
        k_type: str | None = None,
        threshold: float | None = None,
        verbose: bool = False,
        print_every: int = 100,
        log_every: int = 100,
    ) -> Explanation:
        """The counterfactual of one instance `(1, *S)`.

        Args:
            X: The instance.
            Y: Has no effect: the class to leave is the one the model gives.
            target_class: A list of classes that the counterfactual may have; None allows all others.
            k: Nearest codes that make a prototype; None is the mean of the class with an encoder, else 1.
            k_type: `mean` of the k nearest, or the k-th itself (`point`).
            threshold: Least trust score.
            verbose, print_every, log_every: Have no effect.

        Returns:
            `cf`: None where there is none, else `X` `(1, *S)`, `class` and `proba` `(1, K)`. `all`: in
            `c_steps` lists the valid points `(1, *S)` on the way, ever cheaper ones. `orig_class`,
            `orig_proba` `(1, K)`, `id_proto` (None without prototypes).

        Raises:
            InvalidInput: It is not one instance of the right shape, or not finite.
            InvalidOption: An option is out of range.
            InvalidSpec: Prototypes are asked for, and there are none: call `fit` first.
        """
        no_effect(Y=Y)
        if threshold:
            self._check_prototypes()
        wanted = None if target_class is None else np.atleast_1d(target_class)
        options = plain({"target_class": wanted, "k": k, "k_type": k_type, "threshold": threshold})
        given = {name: value for name, value in options.items() if value is not None}
        answer = self._ask(self._row(X), {**given, "keep_path": True})
        found = bool(answer["found"][0])
        proto = int(answer["id_proto"][0]) if "id_proto" in answer.arrays else -1
        x = answer["counterfactual"]
        cf = {
            "X": x,
            "class": int(answer["counterfactual_class"][0]),
            "proba": answer["counterfactual_proba"],
        }
        data = {
            "cf": cf if found else None,
            "all": by_step(answer, self.c_steps, _shown, x),
            "orig_class": int(answer["original_class"][0]),
            "orig_proba": answer["original_proba"],
            "id_proto": proto if proto >= 0 else None,
        }
        return self._explanation(answer, data)

    def _check_fitted(self) -> None:
        if self.theta:
            self._check_prototypes()

    def _check_prototypes(self) -> None:
        if "codes" not in self._fitted.arrays:
            raise InvalidSpec("theta, threshold: need an enc_model or use_kdtree, and fit(train_data) first")


def _shown(_: int, entry: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(entry["x"])[None]
