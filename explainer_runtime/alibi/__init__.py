"""The notebook face: four classes with the constructors, `fit`, `explain` and results that notebooks know.

A notebook changes its import line to `from explainer_runtime.alibi import ...` and runs on TensorFlow 2,
Keras 3 and NumPy 2. Everything here is names: what is computed is `explainers.py`'s, settings become a spec,
arguments of a call its options. docs/notebooks.md says what maps to what, and what is different.

It was written from the papers and from notebooks that use such classes, not from anyone's source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar
from warnings import warn

from explainer_runtime import artifact
from explainer_runtime.alibi.anchor import AnchorImage
from explainer_runtime.alibi.cem import CEM
from explainer_runtime.alibi.counterfactual import Counterfactual
from explainer_runtime.alibi.explainer import Explainer
from explainer_runtime.alibi.explanation import Explanation
from explainer_runtime.alibi.older import modernise
from explainer_runtime.alibi.prototype import CounterfactualProto
from explainer_runtime.errors import InvalidSpec

__all__ = [
    "CEM",
    "AnchorImage",
    "CounterFactual",
    "CounterFactualProto",
    "Counterfactual",
    "CounterfactualProto",
    "Explanation",
    "load_explainer",
]

E = TypeVar("E", bound=Explainer)
modernise()


def load_explainer(path: str | Path, predictor: Any) -> Explainer:
    """An explainer that `save` wrote, or any artifact of these four methods, over a predictor.

    Args:
        path: The artifact's directory.
        predictor: The model, in any form that the constructors take.

    Raises:
        InvalidArtifact: It is not exactly what was saved.
        InvalidSpec: The predictor has another number of classes, or it is of another method.
    """
    fitted = artifact.load(path)
    known = {one.kind: one for one in (Counterfactual, CounterfactualProto, CEM, AnchorImage)}
    if fitted.spec.kind not in known:
        kind = fitted.spec.kind
        raise InvalidSpec(f"{path}: no class here explains by {kind}; use explainer_runtime.prepare")
    return known[fitted.spec.kind].over(fitted, predictor)


def CounterFactual(*args: Any, **kwargs: Any) -> Counterfactual:
    """`Counterfactual`, by the name it had."""
    return _renamed(Counterfactual, "CounterFactual", args, kwargs)


def CounterFactualProto(*args: Any, **kwargs: Any) -> CounterfactualProto:
    """`CounterfactualProto`, by the name it had."""
    return _renamed(CounterfactualProto, "CounterFactualProto", args, kwargs)


def _renamed(new: type[E], old: str, args: Any, kwargs: Any) -> E:
    warn(f"{old} is now called {new.__name__}", FutureWarning, stacklevel=3)
    return new(*args, **kwargs)
