"""Words and settings that several methods have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Bound, Retired, Seed, Spec, plain

Gradient = Annotated[
    Literal["auto", "exact", "surrogate", "random", "full"],
    BeforeValidator(lambda name: "surrogate" if name == "student" else name),  # what 0.1.0 called it
]
Effort = Literal["quick", "standard", "thorough"]
Places = Annotated[bool | tuple[Any, ...] | None, BeforeValidator(lambda given: plain(given))]
Space = Literal["features", "latent"]


def check_space(space: str, schedule: str) -> None:
    """Refuse another space than that of features in a schedule that has none.

    Raises:
        ValueError: It is one.
    """
    if space != "features" and schedule != "fast":
        raise ValueError(f"space {space!r} goes with schedule 'fast'")


class Change(Spec):
    """What the methods share that change a row."""

    gradient: Gradient = "auto"
    """Where slopes come from: the model itself in this process (`exact`), a small network taught from the
    model's answers at fit (`surrogate`), random directions in a low-resolution basis (`random`), central
    differences over every feature (`full`: two rows a feature and step). `auto` is `exact` where the model is
    in process, else `surrogate` where one was fitted, else `random`. Those of an autoencoder and an encoder
    are always exact."""
    feature_range: tuple[Bound, Bound] | None = None
    """Lowest and highest allowed values, each one number or nested lists that broadcast to a row;
    None takes the range of the input contract."""
    eps: PositiveFloat = 0.01
    """Step of finite differences (`gradient='full'` and `'random'`): a share of the range of a feature, or
    with the reference schedule in input units."""
    region: Requestable[Places] = None
    """Where the row may change: nested lists of truths that broadcast to its shape; None is everywhere."""
    keep_path: Requestable[bool] = False
    """Whether the answer shows the valid points on the way, under the weight of each (lambda, or c), in
    `raw`."""
    seed: Requestable[Seed] = 0
    """Seed of everything random in the answer; the same seed gives the same bytes."""

    @property
    def slopes(self) -> str | None:
        """See `Spec`."""
        return self.gradient


class ElasticNet(Change):
    """What `CounterfactualProto` and `CEM` share: an elastic net, penalties, a class that has to lead."""

    schedule: Literal["fast", "reference"] = "fast"
    """`reference`: the settings people know, with an unscaled threshold and a bisection on c. `fast`: the
    least change by sequential convex programmes; c comes with it."""
    effort: Requestable[Effort] = "standard"
    """How much is done: about 20, 35 or 100 slopes an explanation."""
    rho: Annotated[float, Field(ge=0, le=10)] | None = None
    """How much `gamma` and `theta` count (fast schedule): 1 is the loss as the papers write it, at which
    answers lie far beyond the border; None is what serves best, a few hundredths."""
    kappa: Requestable[Annotated[float, Field(ge=0, lt=1)]] = 0.0
    """Least lead, as a probability, of the class sought over the others."""
    beta: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the L1 distance against the squared L2 distance."""
    gamma: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared error of the autoencoder."""
    c_init: Annotated[float, Field(ge=0)] = 1.0
    """First weight of the prediction loss (reference schedule)."""
    c_steps: Annotated[int, Field(ge=1, le=100)] = 2
    """Values of c that are tried (reference schedule)."""
    max_iterations: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Gradient steps for one value of c (reference schedule)."""
    learning_rate_init: PositiveFloat = 0.01
    """First step size; it falls with the square root of the steps left (reference schedule)."""
    momentum: bool = False
    """Whether steps carry on part of the last one (FISTA), as the papers write; the implementation that
    people know ran without, unless its threads happened to fall otherwise (reference schedule)."""
    clip: tuple[float, float] = (-1000.0, 1000.0)
    """Lowest and highest value of any element of a gradient (reference schedule)."""
    lead: Annotated[float, Field(ge=1, le=1e6)] = 12.0
    """How many times as likely as any other class the new one should be (fast schedule). 1 stops at the
    border, where a second model often disagrees; where it cannot be reached the border will do. A pertinent
    positive is asked for its probability instead."""

    retired: ClassVar[Mapping[str, Retired]] = {"steps": Retired("see `effort`", 120)}

    @model_validator(mode="after")
    def _clips(self) -> Self:
        if not self.clip[0] < 0 < self.clip[1]:
            raise ValueError("clip must be a negative and a positive number")
        return self
