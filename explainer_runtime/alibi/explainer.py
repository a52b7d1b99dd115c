"""What the four classes share: a spec, what was fitted and a predictor, behind the methods people call.

`explain` puts nothing on the object, so one explainer may be used from many threads. Settings can be read
as attributes by the names they were given by, and do not change: another setting is another explainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from explainer_runtime import __version__, artifact, explainers
from explainer_runtime.alibi.explanation import Explanation
from explainer_runtime.alibi.models import as_predictor, classes_of
from explainer_runtime.alibi.ranges import within
from explainer_runtime.artifact import Fitted
from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.explanation import Explanation as Answer
from explainer_runtime.methods import parse_spec
from explainer_runtime.spec import Limits, Spec

NO_LIMITS = Limits(max_batch=1, max_rows=2**53, max_calls=2**53, max_seconds=7 * 86_400.0)
"""A notebook waits as long as it takes."""


class Explainer:
    """A spec, what was fitted, and a predictor."""

    names: ClassVar[Mapping[str, str]]
    """Settings as people know them -> fields of the spec."""
    kinds: ClassVar[tuple[str, ...]] = ("blackbox", "tensorflow", "keras")
    """What `meta['type']` says."""

    _fitted: Fitted
    _predictor: Any

    @classmethod
    def over(cls, fitted: Fitted, predictor: Any) -> Self:
        """An explainer made of what was fitted, over a predictor.

        Raises:
            InvalidSpec: The predictor has another number of classes than what was fitted.
        """
        self = cls.__new__(cls)
        self._fitted = fitted
        self.reset_predictor(predictor)
        return self

    def save(self, path: str | Path) -> Path:
        """Write what was fitted as an artifact; `load_explainer` reads it. The model is not part of it.

        Raises:
            InvalidSpec: It has not been fitted, or `feature_range` has not been given.
            InvalidArtifact: An autoencoder or encoder has layers that are not Keras' own.
        """
        self._check_fitted()
        return artifact.save(within(self._fitted, None), path)

    def reset_predictor(self, predictor: Any) -> None:
        """Explain another model from now on, of as many classes."""
        inputs = self._fitted.inputs
        model = as_predictor(predictor, inputs.shape)
        if (classes := classes_of(model, inputs.shape)) != inputs.classes:
            raise InvalidSpec(
                f"predictor: expected a model of {inputs.classes} classes, got one of {classes}"
            )
        self._predictor = model

    @property
    def params(self) -> dict[str, Any]:
        """Settings, by the names they were given by."""
        return self._params(self._fitted.spec)

    @property
    def meta(self) -> dict[str, Any]:
        """Which explainer this is, with what settings."""
        return self._meta(self._fitted.spec)

    def __getattr__(self, name: str) -> Any:
        if "_fitted" in self.__dict__ and name in (params := self.params):
            return params[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"{name}: settings do not change; make another {type(self).__name__}")
        super().__setattr__(name, value)

    # --- for the four ---------------------------------------------------------------------------------

    def _check_fitted(self) -> None:
        """Raise `InvalidSpec` where `fit` has to be called first."""

    def _row(self, x: Any, name: str = "X") -> np.ndarray:
        """One instance `(1, *S)`, or a refusal that says what to do."""
        rows, shape = np.asarray(x), self._fitted.inputs.shape
        if rows.shape == shape:
            raise InvalidInput(f"{name}: expected shape {(1, *shape)}, got {shape}; pass {name}[None]", name)
        if rows.ndim == 1 + len(shape) and len(rows) != 1:
            raise InvalidInput(
                f"{name}: expected one instance, of shape {(1, *shape)}, got {rows.shape}; explain them one "
                "by one, or all at once with explainer_runtime.prepare",
                name,
            )
        return rows

    def _ask(
        self,
        x: np.ndarray,
        options: Mapping[str, Any] | None = None,
    ) -> Answer:
        self._check_fitted()
        prepared = explainers.prepare(within(self._fitted, x), self._predictor, warm=False)
        return prepared(x, options, limits=NO_LIMITS)

    def _explanation(self, answer: Answer, data: Mapping[str, Any]) -> Explanation:
        meta = self._meta(parse_spec(answer.meta["spec"]))
        cost = {"calls": answer.cost.calls, "rows": answer.cost.rows, "steps": answer.cost.steps}
        return Explanation({**meta, "cost": cost}, data)

    def _meta(self, spec: Spec) -> dict[str, Any]:
        return {
            "name": type(self).__name__,
            "type": list(self.kinds),
            "explanations": ["local"],
            "params": self._params(spec),
            "version": __version__,
        }

    def _params(self, spec: Spec) -> dict[str, Any]:
        settings = {name: getattr(spec, field) for name, field in self.names.items()}
        return {"shape": (1, *self._fitted.inputs.shape), **settings}
