"""Settings of the weakest pixel."""

from __future__ import annotations

from typing import Literal

from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Probability, Seed, Spec


class WeakestPixel(Spec):
    """The pixel whose loss costs the class most."""

    kind: Literal["weakest_pixel"] = "weakest_pixel"
    fade: Requestable[Probability] = 1.0
    """How far a pixel goes to what it has on average: 1 is all the way."""
    seed: Requestable[Seed] = 0
    """Without an effect: nothing here is random."""


Settings = WeakestPixel
