"""What `CounterfactualProto` and `CEM` have in common as notebooks know them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from explainer_runtime.alibi.explainer import Explainer
from explainer_runtime.alibi.models import as_predictor, classes_of, said_of_model
from explainer_runtime.alibi.ranges import bounds, contract
from explainer_runtime.alibi.settings import no_effect, plain, row_shape
from explainer_runtime.artifact import Fitted
from explainer_runtime.methods import parse_spec

_LOSS = (
    "kappa", "beta", "gamma", "learning_rate_init", "max_iterations", "c_init", "c_steps", "clip", "schedule",
)  # fmt: skip
"""Arguments of both constructors that go by the same name in the spec."""
SHARED = (*_LOSS, "feature_range", "eps", "gradient", "seed")
"""Settings that may be asked of an explainer by the same name as in the spec."""


class ElasticNet(Explainer):
    """An explainer with networks of its own, which may have to be fitted before it can explain."""

    def _begin(self, kind: str, given: Mapping[str, Any], *own: str, **networks: Any) -> None:
        """Everything but the fitted arrays.

        Args:
            kind: Of the spec.
            given: The arguments of the constructor, by name.
            own: Those of them that go into the spec by their name, besides the ones that both have.
            networks: What to fit into the artifact; None is none.
        """
        no_effect(write_dir=given["write_dir"], sess=given["sess"])
        row, eps = row_shape(given["shape"]), given["eps"]
        settings = dict(given["settings"])
        self._predictor = as_predictor(given["predict"], row, **said_of_model(settings))
        limits = bounds(given["feature_range"], row)
        spec = {**settings, "kind": kind, **{name: given[name] for name in (*_LOSS, *own)}}
        if networks["autoencoder"] is None:
            spec["gamma"] = 0.0
        # Of the two steps that are known, one is for probabilities: their slopes are exact here.
        step = np.min(eps[1] if isinstance(eps, tuple | list) else eps)
        self._fitted = Fitted(
            parse_spec(plain({**spec, "feature_range": limits, "eps": step})),
            contract(row, classes_of(self._predictor, row), limits),
            models={name: model for name, model in networks.items() if model is not None},
        )
