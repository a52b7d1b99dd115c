"""Pictures of an explanation: a Pillow image, PNG bytes, or one self-contained HTML page.

What is shown is decided once, in `cards.py`: a few panels of pixels, each with a caption, for every row
that was explained. `sheet.py` lays cards out as one image, `page.py` as a page; `panels.py` makes the pixels.
Only NumPy and Pillow are needed, and nothing is fetched when a page is opened.
"""

from __future__ import annotations

from explainer_runtime.render.cards import Card, Panel, cards, check
from explainer_runtime.render.page import html
from explainer_runtime.render.sheet import picture, png

__all__ = ["Card", "Panel", "cards", "check", "html", "picture", "png"]
