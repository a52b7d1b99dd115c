"""Models that our Keras runtime serves in this very process, by name.

The runtime announces a model when it is loaded and withdraws it when it is unloaded; an explainer beside
it finds the graph here instead of sending rows through the server. Nothing is imported and nothing is
loaded by this file.
"""

from __future__ import annotations

import threading

from explainer_runtime.errors import PredictorUnavailable
from explainer_runtime.predictors.base import Predictor

_served: dict[str, Predictor] = {}
_lock = threading.Lock()


def announce(name: str, predictor: Predictor) -> None:
    """Offer `predictor` under `name`, in place of any earlier one."""
    with _lock:
        _served[name] = predictor


def withdraw(name: str, predictor: Predictor) -> None:
    """Take the offer back, unless a newer one has taken its place."""
    with _lock:
        if _served.get(name) is predictor:
            del _served[name]


def colocated(name: str) -> Predictor:
    """The model served as `name` in this process.

    Raises:
        PredictorUnavailable: None of that name is loaded.
    """
    with _lock:
        if name in _served:
            return _served[name]
    raise PredictorUnavailable(f"no model named {name!r} is loaded in this process")
