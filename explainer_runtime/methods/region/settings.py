"""Settings of regions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from explainer_runtime.methods.segmentation import Inpainted
from explainer_runtime.spec.options import Requestable
from explainer_runtime.spec.values import Class


class Region(Inpainted):
    """The fewest superpixels whose hiding changes the class (SEDC, Vermeire et al., arXiv:2004.07511), or
    whose exchange for those of another image does (Goyal et al., arXiv:1904.07451)."""

    kind: Literal["region"] = "region"
    fitless = True
    target_class: Requestable[Literal["other"] | Class] = "other"
    """The class to reach: any `other`, or a number or name (SEDC-T)."""
    change: Requestable[Literal["hide", "paste"]] = "hide"
    """What is done to superpixels: `hide` them, or `paste` those of a known image of another class, or of the
    class sought, until the image has it. Where the spec says `paste`, training rows are kept for that, and
    shown to whoever asks."""
    k: Requestable[Annotated[int, Field(ge=1, le=10)]] = 3
    """How many known images are tried side by side, where superpixels are pasted."""


Settings = Region
