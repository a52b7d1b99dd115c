"""The model being explained, as everything else sees it."""

from __future__ import annotations

from explainer_runtime.predictors.base import (
    CallablePredictor,
    GradientPredictor,
    Predictor,
    ServedPredictor,
    served,
)
from explainer_runtime.predictors.colocated import colocated
from explainer_runtime.spec import Colocated, Endpoint, KerasModel, PredictorSettings, parse_predictor

__all__ = ["CallablePredictor", "GradientPredictor", "Predictor", "ServedPredictor", "connect", "served"]


def connect(settings: PredictorSettings | str) -> Predictor:
    """The predictor at the address an operator has configured. Opens no connection yet.

    Args:
        settings: Predictor settings, or one of the strings that `spec.parse_predictor` understands.

    Raises:
        MissingExtra: A Keras model without TensorFlow installed.
        InvalidSpec: A string that is no address, a path without a model.
        PredictorUnavailable: A colocated model that is not loaded (yet).
    """
    if isinstance(settings, str):
        settings = parse_predictor(settings)
    match settings:
        case KerasModel():
            from explainer_runtime.predictors.keras import KerasPredictor

            return KerasPredictor.load(settings.path, logits=settings.logits)
        case Colocated():
            return colocated(settings.model)
        case Endpoint():
            from explainer_runtime.predictors.remote import RemotePredictor

            return RemotePredictor(settings)
