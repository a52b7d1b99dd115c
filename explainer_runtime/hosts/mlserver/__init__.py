"""Explainers, and the Keras models that they explain, on MLServer."""

from __future__ import annotations

from explainer_runtime.hosts.mlserver.runtime import ExplainerRuntime, KerasRuntime

__all__ = ["ExplainerRuntime", "KerasRuntime"]
