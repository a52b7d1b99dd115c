"""Explanations of image classifiers, fitted once, saved as a directory, served beside the model.

An explainer is three values: a spec, what was fitted, and a predictor. `fit` makes the first two into a
`Fitted`, `save` and `load` carry it through a directory, `prepare` closes it over a predictor and returns
a function from rows to an `Explanation`. `ExplainerRuntime` serves one on MLServer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, which do not see through `__getattr__`
    from explainer_runtime.artifact import Fitted as Fitted
    from explainer_runtime.artifact import load as load
    from explainer_runtime.artifact import save as save
    from explainer_runtime.artifact import verify as verify
    from explainer_runtime.driver import Budget as Budget
    from explainer_runtime.explainers import fit as fit
    from explainer_runtime.explainers import prepare as prepare
    from explainer_runtime.explanation import Explanation as Explanation
    from explainer_runtime.hosts.mlserver import ExplainerRuntime as ExplainerRuntime
    from explainer_runtime.hosts.mlserver import KerasRuntime as KerasRuntime
    from explainer_runtime.methods.anchor.settings import AnchorImage as AnchorImage
    from explainer_runtime.methods.attribution.settings import Attribution as Attribution
    from explainer_runtime.methods.cem.settings import CEM as CEM
    from explainer_runtime.methods.counterfactual.settings import Counterfactual as Counterfactual
    from explainer_runtime.methods.neighbours.settings import Neighbours as Neighbours
    from explainer_runtime.methods.prototype.settings import CounterfactualProto as CounterfactualProto
    from explainer_runtime.methods.region.settings import Region as Region
    from explainer_runtime.methods.segmentation import Felzenszwalb as Felzenszwalb
    from explainer_runtime.methods.segmentation import Grid as Grid
    from explainer_runtime.methods.segmentation import Quickshift as Quickshift
    from explainer_runtime.methods.segmentation import Slic as Slic
    from explainer_runtime.predictors import CallablePredictor as CallablePredictor
    from explainer_runtime.predictors import connect as connect
    from explainer_runtime.spec import Inputs as Inputs
    from explainer_runtime.spec import Limits as Limits

__version__ = "0.2.0"

_NAMES = {
    "methods.anchor.settings": ("AnchorImage",),
    "methods.attribution.settings": ("Attribution",),
    "methods.cem.settings": ("CEM",),
    "methods.counterfactual.settings": ("Counterfactual",),
    "methods.neighbours.settings": ("Neighbours",),
    "methods.prototype.settings": ("CounterfactualProto",),
    "methods.region.settings": ("Region",),
    "methods.segmentation": ("Grid", "Slic", "Felzenszwalb", "Quickshift"),
    "spec": ("Inputs", "Limits"),
    "explanation": ("Explanation",),
    "predictors": ("CallablePredictor", "connect"),
    "artifact": ("Fitted", "load", "save", "verify"),
    "driver": ("Budget",),
    "explainers": ("fit", "prepare"),
    "hosts.mlserver": ("ExplainerRuntime", "KerasRuntime"),
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    # Names are fetched when they are used, so that `--help` and a spec need neither TensorFlow nor a server.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
