"""Settings of regions."""

from __future__ import annotations

from typing import Literal

from explainer_runtime.methods.segmentation import Inpainted
from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Class


class Region(Inpainted):
    """The fewest superpixels whose hiding changes the class (SEDC, Vermeire et al., arXiv:2004.07511)."""

    kind: Literal["region"] = "region"
    fitless = True
    target_class: Requestable[Literal["other"] | Class] = "other"
    """The class to reach: any `other`, or a number or name (SEDC-T)."""


Settings = Region
