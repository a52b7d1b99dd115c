"""Settings of counterfactuals guided by prototypes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from explainer_runtime.methods.settings import ElasticNet
from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Class


class CounterfactualProto(ElasticNet):
    """A counterfactual that looks like its class: pulled towards a prototype of it (arXiv:1907.02584)."""

    kind: Literal["counterfactual_proto"] = "counterfactual_proto"
    called = ("counterfactuals",)
    theta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared distance to the prototype, in the space of the encoder, or of the inputs
    where none was fitted."""
    k: Requestable[Annotated[int, Field(ge=1, le=10_000)] | None] = None
    """Nearest training rows of a class that make its prototype; None is the mean of the class with an
    encoder, and the nearest row without."""
    k_type: Requestable[Literal["mean", "point"]] = "mean"
    """Whether the prototype is the `mean` of the k nearest, or the k-th itself (`point`)."""
    target_class: Requestable[Annotated[tuple[Class, ...], Field(min_length=1)] | None] = None
    """Classes the counterfactual may have; None allows all but the one the model gives the row."""
    threshold: Requestable[Annotated[float, Field(ge=0)]] = 0.0
    """Least trust score: distance to the prototype of the old class, in distances to that of the new one;
    0 does not ask."""


Settings = CounterfactualProto
