"""Settings of contrastive explanations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from explainer_runtime.methods.settings import ElasticNet
from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Bound


class CEM(ElasticNet):
    """What must be absent (PN), or suffices (PP), for the class the model gives (arXiv:1802.07623)."""

    kind: Literal["cem"] = "cem"
    called = ("contrastive",)
    mode: Requestable[Literal["PN", "PP"]] = "PN"
    """`PN`: the least addition that changes the class. `PP`: the least part that keeps it."""
    c_steps: Annotated[int, Field(ge=1, le=100)] = 10
    """Values of c that are tried (reference schedule)."""
    pp_space: Literal["absolute", "difference"] = "absolute"
    """What the model is shown for a PP: the background with the part kept (`absolute`), or the difference
    of the row and what was taken away, as is (`difference`, the classical one)."""
    no_info_val: Bound | None = None
    """The value of a feature that says nothing: one number, or nested lists that broadcast to a row; None
    takes it from the training rows at fit."""
    no_info_type: Literal["median", "mean"] = "median"
    """How it is taken from them, feature by feature."""


Settings = CEM
