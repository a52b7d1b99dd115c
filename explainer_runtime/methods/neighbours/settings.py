"""Settings of neighbours."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Seed, Spec


class Neighbours(Spec):
    """The known rows that are most like a row: of its own class, and of each other one."""

    kind: Literal["neighbours"] = "neighbours"
    k: Requestable[Annotated[int, Field(ge=1, le=100)]] = 1
    """How many of each class are told, nearest first."""
    n_reference: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """Training rows at most that are kept, with the model's scores; they are shown to whoever asks."""
    seed: Requestable[Seed] = 0
    """Accepted for familiarity: nothing here is random."""


Settings = Neighbours
