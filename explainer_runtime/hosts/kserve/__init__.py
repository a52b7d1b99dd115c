"""Explainers on KServe's own server."""

from __future__ import annotations

from explainer_runtime.hosts.kserve.model import ExplainerModel, serve

__all__ = ["ExplainerModel", "serve"]
