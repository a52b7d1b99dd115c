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
from explainer_runtime.alibi.models import as_predictor, classes_of, said_of_model
from explainer_runtime.alibi.older import without_session
from explainer_runtime.alibi.ranges import bounds, contract, within
from explainer_runtime.alibi.settings import no_effect, plain, row_shape
from explainer_runtime.artifact import Fitted
from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.explanation import Explanation as Answer
from explainer_runtime.methods import parse_spec, settings_of
from explainer_runtime.predictors import WhiteBox
from explainer_runtime.spec import Limits, Spec

NO_LIMITS = Limits(max_batch=1, max_rows=2**53, max_calls=2**53, max_seconds=7 * 86_400.0)
"""A notebook waits as long as it takes."""


class Explainer:
    """A spec, what was fitted, and a predictor."""

    kind: ClassVar[str]
    """Of the spec."""
    names: ClassVar[Mapping[str, str]] = {}
    """Fields of the spec that people know by another name; any other setting goes by its field's."""
    kinds: ClassVar[tuple[str, ...]] = ("blackbox", "tensorflow", "keras")
    """What `meta['type']` says."""

    _fitted: Fitted
    _predictor: Any

    def __init_subclass__(cls) -> None:
        cls.__init__ = without_session(cls.__init__)  # type: ignore[method-assign]

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

    def _begin(self, predict: Any, given: Mapping[str, Any], **networks: Any) -> None:
        """Everything but what has to be fitted.

        Args:
            predict: The model, in any form that the constructors take.
            given: The arguments of the constructor, by name; those that are fields of the spec go into it.
            networks: What to keep in the artifact; None is none.
        """
        no_effect(**{name: given[name] for name in ("write_dir", "debug", "sess") if name in given})
        row, settings = row_shape(given["shape"]), dict(given["settings"])
        self._predictor = as_predictor(predict, row, **said_of_model(settings))
        limits = bounds(given["feature_range"], row)
        known = {**given, "feature_range": limits, "eps": np.min(given["eps"])}
        called = {field: self.names.get(field, field) for field in settings_of(self.kind).model_fields}
        spec = {field: known[name] for field, name in called.items() if name in known}
        self._fitted = Fitted(
            parse_spec(plain({**settings, **spec, "kind": self.kind})),
            contract(row, classes_of(self._predictor, row), limits),
            models={name: model for name, model in networks.items() if model is not None},
        )

    def _learn(self, spec: Spec, rows: np.ndarray | None = None, **more: Any) -> None:
        """Fit to `rows` `(N, *S)`, with the networks there are and `more` arguments of `explainers.fit`."""
        kept = {name: model for name, model in self._fitted.models.items() if name != "student"}
        # A notebook has its model at hand; a surrogate is for those that cannot be looked into.
        black = not isinstance(self._predictor, WhiteBox)
        self._fitted = explainers.fit(spec, rows, inputs=self._fitted.inputs, surrogate=black, **kept, **more)

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

    def _ask(self, x: np.ndarray, options: Mapping[str, Any] | None = None) -> Answer:
        self._check_fitted()
        prepared = explainers.prepare(within(self._fitted, x), self._predictor, warm=False)
        return prepared(x, options, limits=NO_LIMITS)

    def _explanation(self, answer: Answer, data: Mapping[str, Any]) -> Explanation:
        meta = self._meta(parse_spec(answer.meta["spec"]))
        cost = {"calls": answer.cost.calls, "rows": answer.cost.rows, "steps": answer.cost.steps}
        return Explanation({**meta, "cost": cost}, data, answer)

    def _meta(self, spec: Spec) -> dict[str, Any]:
        return {
            "name": type(self).__name__,
            "type": list(self.kinds),
            "explanations": ["local"],
            "params": self._params(spec),
            "version": __version__,
        }

    def _params(self, spec: Spec) -> dict[str, Any]:
        settings = {self.names.get(field, field): value for field, value in spec if field != "kind"}
        return {"shape": (1, *self._fitted.inputs.shape), **settings}
