"""The model being explained, as everything else sees it."""

from __future__ import annotations

from explainer_runtime.predictors.base import (
    CallablePredictor,
    Predictor,
    ServedPredictor,
    WhiteBox,
    served,
)
from explainer_runtime.predictors.connecting import connect

__all__ = [
    "CallablePredictor",
    "Predictor",
    "ServedPredictor",
    "WhiteBox",
    "connect",
    "served",
]
