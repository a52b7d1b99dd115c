"""The model being explained, as everything else sees it."""

from __future__ import annotations

from explainer_runtime.predictors.base import (
    CallablePredictor,
    GradientPredictor,
    Predictor,
    ServedPredictor,
    WhiteBox,
    served,
)
from explainer_runtime.predictors.connecting import connect

__all__ = [
    "CallablePredictor",
    "GradientPredictor",
    "Predictor",
    "ServedPredictor",
    "WhiteBox",
    "connect",
    "served",
]
