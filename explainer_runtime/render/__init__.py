"""Pictures of an explanation: a Pillow image, PNG bytes, or one self-contained HTML page.

What is shown is said by the method, as values (`views.py`): a few pictures, each with a caption, for every
row that was explained. `cards.py` draws them with the pixels of `panels.py`; `sheet.py` lays cards out as one
image, `page.py` as a page.
Only NumPy and Pillow are needed, and nothing is fetched when a page is opened.
"""

from __future__ import annotations

from explainer_runtime.render.cards import Panel, cards, check
from explainer_runtime.render.page import fragment, html, snippet
from explainer_runtime.render.sheet import picture, png
from explainer_runtime.views import Card

__all__ = ["Card", "Panel", "cards", "check", "fragment", "html", "picture", "png", "snippet"]
