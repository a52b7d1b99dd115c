"""Settings of counterfactuals guided by prototypes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from explainer_runtime.methods.settings import ElasticNet, Space, check_space
from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Class

_LISTED = BeforeValidator(lambda one: (one,) if isinstance(one, int | str) else one)


class CounterfactualProto(ElasticNet):
    """A counterfactual that looks like its class: pulled towards a prototype of it (arXiv:1907.02584)."""

    kind: Literal["counterfactual_proto"] = "counterfactual_proto"
    called = ("counterfactuals",)
    theta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared distance to the prototype, in the space of the encoder, or of the inputs
    where none was fitted."""
    coreset: Annotated[int, Field(ge=1)] | None = 1000
    """Training rows of each class at most whose codes are kept at fit, those that the others lie nearest to;
    None keeps all. The mean of a class is that of all its rows."""
    k: Requestable[Annotated[int, Field(ge=1, le=10_000)] | None] = None
    """Nearest training rows of a class that make its prototype; None is the mean of the class with an
    encoder, and the nearest row without."""
    k_type: Requestable[Literal["mean", "point"]] = "mean"
    """Whether the prototype is the `mean` of the k nearest, or the k-th itself (`point`)."""
    target_class: Requestable[Annotated[tuple[Class, ...], Field(min_length=1), _LISTED] | None] = None
    """Classes the counterfactual may have, by number or name; None allows all but the one the model gives the
    row."""
    threshold: Requestable[Annotated[float, Field(ge=0)]] = 0.0
    """Least trust score: distance to the prototype of the old class, in distances to that of the new one;
    0 does not ask."""
    space: Requestable[Space] = "features"
    """What is changed (fast schedule): the `features` of a row, or in a `latent` space the code that a fitted
    decoder makes it of (Joshi et al., arXiv:1907.09615): then the answer is something that the decoder makes,
    and the details that it does not know are lost."""

    @model_validator(mode="after")
    def _spaces(self) -> Self:
        check_space(self.space, self.schedule)
        return self


Settings = CounterfactualProto
