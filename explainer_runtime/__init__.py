"""Explanations of image classifiers, fitted once, saved as a directory, served beside the model.

An explainer is three values: a spec, what was fitted, and a predictor. `fit` makes the first two into a
`Fitted`, `save` and `load` carry it through a directory, `prepare` closes it over a predictor and returns
a function from rows to an `Explanation`. `ExplainerRuntime` serves one on MLServer.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0"

_WHERE = {
    "AnchorImage": "spec",
    "CEM": "spec",
    "Counterfactual": "spec",
    "CounterfactualProto": "spec",
    "Inputs": "spec",
    "Limits": "spec",
    "Explanation": "explanation",
    "CallablePredictor": "predictors",
    "connect": "predictors",
    "Fitted": "artifact",
    "load": "artifact",
    "save": "artifact",
    "verify": "artifact",
    "Budget": "driver",
    "fit": "explainers",
    "prepare": "explainers",
    "ExplainerRuntime": "hosts.mlserver",
    "KerasRuntime": "hosts.mlserver",
}
__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    # Names are fetched when they are used, so that `--help` and a spec need neither TensorFlow nor a server.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
