"""Settings of counterfactuals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from explainer_runtime.methods.settings import Change, Effort, check_space
from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Probability, Retired, TargetClass


class Counterfactual(Change):
    """The nearest input that the model gives another answer to (Wachter et al., arXiv:1711.00399)."""

    kind: Literal["counterfactual"] = "counterfactual"
    called = ("counterfactuals",)
    schedule: Literal["fast", "reference"] = "fast"
    """`reference`: Adam on the paper's loss with a bisection on lambda. `fast`: the least change by
    sequential linear programmes, which reaches smaller changes in far fewer steps."""
    effort: Requestable[Effort] = "standard"
    """How much is done: about 25, 80 or 300 slopes an explanation, and as many more rows for ever smaller
    changes."""
    objective: Requestable[Literal["balanced", "smallest"]] = "balanced"
    """`smallest` goes for the L1 distance. `balanced` gives up a little of it for changes that neighbours
    share: the answer looks less like dust, and other models agree with it more often."""
    target_class: Requestable[TargetClass] = "other"
    """The class to reach: any `other`, a number or a name, or `same`, which changes the probability of
    the class that the input already has."""
    target_proba: Requestable[Probability] = 1.0
    """Probability that the class sought should have at the counterfactual."""
    tol: Requestable[Annotated[float, Field(gt=0, le=1)]] = 0.05
    """A counterfactual is valid when its probability is within `tol` of `target_proba`; with `other` its
    class has to change as well."""
    distance: Literal["l1"] = "l1"
    """Distance that is minimised, summed over features in input units."""
    init: Literal["identity"] = "identity"
    """Where the search starts: at the input."""
    lam_init: PositiveFloat = 0.1
    """First weight of the distance against the prediction (reference schedule)."""
    max_lam_steps: Annotated[int, Field(ge=1, le=100)] = 10
    """Steps of the bisection on lambda (reference schedule)."""
    max_iter: Annotated[int, Field(ge=10, le=100_000)] = 1000
    """Most gradient steps for one value of lambda (reference schedule)."""
    early_stop: PositiveInt = 50
    """Consecutive valid, or invalid, steps after which one value of lambda is settled (reference)."""
    learning_rate_init: PositiveFloat = 0.1
    """Adam's step size, in input units (reference schedule)."""
    decay: bool = True
    """Whether the step size decays linearly to zero over `max_iter`."""

    lanes: Annotated[int, Field(ge=1, le=32)] = 3
    """How many of the likeliest other classes to try side by side when `target_class='other'` (fast)."""
    answers: Requestable[Annotated[int, Field(ge=1, le=10)]] = 1
    """How many answers a row is to have, of as many classes, when `target_class='other'` (fast): the nearest
    is the answer, `raw` holds all that were confirmed, nearest first."""
    space: Requestable[Literal["features", "latent", "smooth"]] = "features"
    """What is changed (fast schedule): the `features` of a row; in a `smooth` space the cells of a grid over
    an image; or in a `latent` space the code that a fitted decoder makes it of (Joshi et al.,
    arXiv:1907.09615): then the answer is something that the decoder makes, and the details that it does not
    know are lost."""
    cells: Requestable[Annotated[int, Field(ge=1, le=64)]] = 7
    """Cells of that grid along height, and along width."""
    amplitude: Requestable[Annotated[float, Field(gt=0, le=1)]] = 0.5
    """How far a cell of that grid goes, in ranges of a feature."""

    retired: ClassVar[Mapping[str, Retired]] = {
        "grow_features": Retired("see `effort`", 4),
        "grow_steps": Retired("see `effort`", 30),
        "refine_steps": Retired("see `effort`", 50),
    }

    @model_validator(mode="after")
    def _schedules(self) -> Self:
        if self.gradient == "surrogate" and self.schedule == "reference":
            raise ValueError("gradient 'surrogate' goes with schedule 'fast'")
        check_space(self.space, self.schedule)
        return self


Settings = Counterfactual
