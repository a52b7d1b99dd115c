"""One paper, one room: how it is fitted (if it is), how it searches, what it answers.

Methods are told apart here and nowhere else, by the `kind` of their settings; each is imported when it is
used. Adding one is a module that keeps `Method`, and a line here.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:  # spares `explainer_runtime.spec` NumPy
    import numpy as np

    from explainer_runtime.explanation import Explanation, Fields
    from explainer_runtime.fitted import Fitted
    from explainer_runtime.methods.common import Given, Ground
    from explainer_runtime.search.asks import Search

METHODS = {
    "counterfactual": "counterfactual",
    "counterfactual_proto": "prototype",
    "cem": "cem",
    "anchor_image": "anchor",
}
"""The kind of a spec -> the module in this folder that knows it."""


class Method(Protocol):
    """What a method's module has to offer."""

    SLOPES: bool
    """Whether it asks for slopes of the model."""

    def check(self, fitted: Fitted, asked: Collection[str] = ()) -> None:
        """Refuse what cannot be explained with: settings that do not go with the input contract, and what is
        missing of what `fit` makes. Asked when an explainer is fitted, loaded, and for each request that sets
        options (`asked`), with those in its spec.

        Raises:
            InvalidOption: A setting that a request can change is out of range; its field is named.
            InvalidSpec: Anything else.
        """
        ...

    def fit(self, given: Given) -> dict[str, np.ndarray]:
        """The arrays that an explainer keeps.

        Raises:
            InvalidSpec: Something that it needs was not given.
            PredictorError: The model failed.
        """
        ...

    def fields(self, fitted: Fitted) -> Fields:
        """What an answer holds."""
        ...

    def search(self, x: np.ndarray, spec: Any, ground: Ground) -> Search[Explanation]:
        """The search for an answer to each row `(N, *S)`, float32, with these settings."""
        ...


def of(kind: str) -> Method:
    """The module of a method."""
    return cast(Method, import_module(f"{__name__}.{METHODS[kind]}"))
