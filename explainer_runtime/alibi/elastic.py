"""What `CounterfactualProto` and `CEM` have in common as notebooks know them."""

from __future__ import annotations

from typing import Any

import numpy as np

from explainer_runtime.alibi.explainer import Explainer
from explainer_runtime.alibi.models import as_predictor, classes_of
from explainer_runtime.alibi.ranges import bounds, contract
from explainer_runtime.alibi.settings import plain, row_shape
from explainer_runtime.artifact import Fitted
from explainer_runtime.spec import parse_spec

SHARED = (
    "kappa", "beta", "feature_range", "gamma", "learning_rate_init", "max_iterations", "c_init", "c_steps",
    "eps", "clip", "schedule", "gradient", "seed",
)  # fmt: skip
"""Settings that go by the same name in the spec."""


class ElasticNet(Explainer):
    """An explainer with networks of its own, which may have to be fitted before it can explain."""

    def _begin(
        self,
        predict: Any,
        shape: tuple[int, ...],
        feature_range: tuple[Any, Any],
        eps: Any,
        spec: dict[str, Any],
        **networks: Any,
    ) -> None:
        """Everything but the fitted arrays."""
        row = row_shape(shape)
        self._predictor = as_predictor(predict, row)
        limits = bounds(feature_range, row)
        # Of the two steps that are known, one is for probabilities: their slopes are exact here.
        step = np.min(eps[1] if isinstance(eps, tuple | list) else eps)
        self._fitted = Fitted(
            parse_spec(plain({**spec, "feature_range": limits, "eps": step})),
            contract(row, classes_of(self._predictor, row), limits),
            models={name: model for name, model in networks.items() if model is not None},
        )
