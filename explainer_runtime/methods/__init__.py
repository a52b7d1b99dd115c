"""One paper, one room: its settings, how it is fitted (if it is), how it searches, what it answers and shows.

Methods are told apart here and nowhere else, by the `kind` of their settings. Each is a package of two
modules: `settings`, which is light, and `method`, which is imported when there is something to compute.
Adding one is that package, and a line here.

Others may write one, too: a distribution that has the entry point `<kind> = "<package>"` in the group
`explainer_runtime.methods` offers it. Installing it does nothing. Whoever operates a server says which are
admitted, by `serve --methods` or `EXPLAINER_RUNTIME_METHODS`; artifacts name a kind and never any code.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, cast

from explainer_runtime.complaints import nearest
from explainer_runtime.errors import InvalidSpec
from explainer_runtime.spec.options import BudgetOptions, options_of
from explainer_runtime.spec.values import Spec, parse, short

if TYPE_CHECKING:  # spares settings NumPy
    import numpy as np

    from explainer_runtime.explanation import Explanation, Fields
    from explainer_runtime.fitted import Fitted
    from explainer_runtime.methods.ground import Given, Ground
    from explainer_runtime.search.asks import Search
    from explainer_runtime.spec import Inputs
    from explainer_runtime.views import View

METHODS = {
    "counterfactual": f"{__name__}.counterfactual",
    "counterfactual_proto": f"{__name__}.prototype",
    "cem": f"{__name__}.cem",
    "anchor_image": f"{__name__}.anchor",
    "region": f"{__name__}.region",
    "attribution": f"{__name__}.attribution",
    "neighbours": f"{__name__}.neighbours",
}
"""The kind of a spec -> the package that knows it."""
GROUP = "explainer_runtime.methods"
"""Entry points by which distributions offer methods."""
ADMITTED = "EXPLAINER_RUNTIME_METHODS"
"""Variable that names those which are admitted, with commas between them."""


class Method(Protocol):
    """What a method's module `method` has to offer. `settings` beside it has `Settings`, a `spec.Spec`."""

    NETWORKS: tuple[str, ...]
    """Which fitted networks it makes use of: `autoencoder`, `encoder`, `decoder`."""

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
        """The search for an answer to each row.

        Args:
            x: Rows `(N, *S)`, float32, in input units; images are `(N, H, W, C)`, or `(N, C, H, W)` where
                `layout` says so. Not changed.
            spec: Settings, with the options of the request in force. Every row starts from `spec.seed`, so
                that it is explained in a batch as it is alone.
            ground: What the search stands on.
        """
        ...

    def draw(self, explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
        """What is to be seen of an answer to images `x` `(N, *S)`, as values."""
        ...


def of(kind: str) -> Method:
    """The module of a method."""
    return cast(Method, import_module(f"{_place(kind)}.method"))


def settings_of(kind: str) -> type[Spec]:
    """The settings of a method."""
    return cast(type[Spec], import_module(f"{_place(kind)}.settings").Settings)


def options(kind: str) -> type[BudgetOptions]:
    """The options of requests to explainers of a method."""
    return options_of(settings_of(kind))


def fields(fitted: Fitted) -> Fields:
    """What an answer holds, with those of the methods beside it, and where slopes came from, if any were
    asked for."""
    found = of(fitted.spec.kind).fields(fitted)
    for kind in getattr(fitted.spec, "also", ()):
        beside = of(kind).fields(replace(fitted, spec=parse_spec({"kind": kind})))
        found |= {name: beside[own] for own, name in named_beside(kind, beside, found).items()}
    return found | ({"gradient_source": ("BYTES", ())} if fitted.spec.slopes else {})


_SHARED = ("segments", "original_class", "original_proba")
"""Fields that say the same of an image whoever says it."""


def named_beside(kind: str, fields: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """What the fields of a method are called in an answer that has others already (`also`): as always, with
    the method before a name that is taken; what all say alike stands there once."""
    return {
        name: f"{kind}_{name}" if name in taken else name
        for name in fields
        if not (name in _SHARED and name in taken)
    }


def parse_spec(value: Any) -> Spec:
    """The spec written in `value`, a mapping with a `kind`.

    Raises:
        InvalidSpec: An unknown kind or field, or a value out of range; every field is named.
    """
    if isinstance(value, Spec):
        return value
    if not isinstance(value, Mapping) or "kind" not in value:
        raise InvalidSpec(f"kind: is missing in {short(value)}{nearest('', METHODS)}")
    return parse(settings_of(value["kind"]), value, str(value["kind"]))


def called(name: str) -> tuple[str, ...]:
    """The kinds that a platform's name of a type may mean, ours or Seldon's, in whatever letters."""
    name = name.lower()
    return tuple(kind for kind in METHODS if name == kind or name in settings_of(kind).called)


def listed(names: str) -> list[str]:
    """Names that stand in one string, with commas between them."""
    return [name for part in names.split(",") if (name := part.strip())]


def admit(names: Iterable[str]) -> None:
    """Make methods of others known, as the operator says. Nothing is imported before it is used.

    Raises:
        InvalidSpec: No distribution offers a method of this name, several do, or it would replace another.
    """
    for name in names:
        offered = {one.value for one in entry_points(group=GROUP, name=name)}
        if METHODS.get(name) in offered and len(offered) == 1:
            continue  # it has been admitted before
        if name in METHODS or len(offered) > 1:
            raise InvalidSpec(f"methods: there are several methods {name!r}")
        if not offered:
            known = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
            raise InvalidSpec(f"methods: nothing installed offers {name!r}; there are {known}")
        METHODS[name] = offered.pop()


def __getattr__(name: str) -> Any:
    # Settings by the names of their classes, for `explainer_runtime.spec`.
    if not name.startswith("_"):
        for kind in METHODS:
            found = getattr(import_module(f"{METHODS[kind]}.settings"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _place(kind: object) -> str:
    if not isinstance(kind, str) or kind not in METHODS:
        admit(listed(os.environ.get(ADMITTED, "")))
    if not isinstance(kind, str) or kind not in METHODS:
        raise InvalidSpec(f"kind: {short(kind)} is not known here{nearest(str(kind), METHODS)}")
    return METHODS[kind]
