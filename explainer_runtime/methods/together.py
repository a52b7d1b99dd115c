"""What methods that hide superpixels do alike: search image by image, beside each other, and be measured.

An answer of one of them may carry those of the others (`also`). They are searched for in lockstep on one
memory of pictures: what one has asked costs the other nothing, and each still says what it would say alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from explainer_runtime import methods
from explainer_runtime.errors import InvalidOption, InvalidSpec
from explainer_runtime.explanation import BUDGET_EXHAUSTED, Explanation
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods import canvas, references
from explainer_runtime.methods.ground import Given, Ground
from explainer_runtime.methods.references import References
from explainer_runtime.methods.segmentation import Superpixels
from explainer_runtime.search import quality
from explainer_runtime.search.asks import Search, Stop, lockstep
from explainer_runtime.search.subject import Subject
from explainer_runtime.spec import Inputs, Spec, parse
from explainer_runtime.views import Card, Picture, View, number


class Change(NamedTuple):
    """A change to another class.

    Attributes:
        regions: Superpixels that make it together, those that matter most first.
        other: The class.
        said: What the model says as they change; see `quality.Said`.
    """

    regions: list[int]
    other: int
    said: quality.Said


class Pointed(NamedTuple):
    """What an answer says matters, for its quality to be told.

    Attributes:
        target: The class whose score should fall.
        order: Superpixels, those that matter most first; fewer than there are where that is not known.
        where: The pixels that the answer points at `(H, W)`, bool.
        change: What makes another class, or None.
    """

    target: int
    order: np.ndarray
    where: np.ndarray
    change: Change | None = None


def check(fitted: Fitted, asked: Collection[str] = ()) -> None:
    """See `Method`."""
    canvas.check(fitted, asked)
    spec: Any = fitted.spec
    if spec.kind in spec.also or len(set(spec.also)) < len(spec.also):
        raise InvalidOption(f"also: expected other methods than {spec.kind}, each once", "also")
    if "neighbours" in spec.also and "reference_rows" not in fitted.arrays:
        raise InvalidOption("also: this explainer was fitted without reference rows", "also")
    if "reference_rows" in fitted.arrays:
        references.check(fitted)
    for other in _specs(spec)[1:]:
        if isinstance(other, Superpixels):
            canvas.check(dataclasses.replace(fitted, spec=other), asked)


def fit(given: Given, *, needed: bool = False) -> dict[str, np.ndarray]:
    """What `canvas.fit` keeps, and reference rows where they are `needed`, or neighbours go beside.

    Raises:
        InvalidSpec: There is an encoder, and are no reference rows to encode.
    """
    needed = needed or "neighbours" in given.spec.also
    if given.networks.encoder is not None and not needed:
        raise InvalidSpec(
            f"encoder: {given.spec.kind} makes no use of one where no reference rows are kept: they are for "
            "also: [neighbours], and where superpixels are pasted"
        )
    return canvas.fit(given) | (references.fit(given, given.spec.n_reference) if needed else {})


def search(x: np.ndarray, spec: Any, ground: Ground) -> Search[Explanation]:
    """The search for an answer to each image, and for those of the methods beside it; see `Method`.

    Raises:
        InvalidInput, InvalidSpec, MissingExtra: See `canvas.subjects`.
    """
    specs = _specs(spec)
    most = None if {one.kind for one in specs} <= {"anchor_image", "neighbours"} else canvas.MOST
    subjects = canvas.subjects(x, spec, ground, most=most)
    asked = [(subject.beside(), one) for subject in subjects for one in specs]
    told = yield from lockstep([_method(one.kind).one(subject, one, ground) for subject, one in asked])
    pointed = [answer.pop("pointed", None) for answer in told]
    # All answers come before the quality of any. A search that was told to stop asks no more.
    if spec.quality and all(answer["status"] != BUDGET_EXHAUSTED for answer in told):
        yield from lockstep(
            [
                _measured(*which, ground, where, answer)
                for which, where, answer in zip(asked, pointed, told, strict=True)
                if where is not None
            ]
        )
    answers = []
    for start in range(0, len(told), len(specs)):
        answer = told[start]
        for one, beside in zip(specs[1:], told[start + 1 : start + len(specs)], strict=True):
            answer["raw"][one.kind] = beside.pop("raw")
            answer |= {
                name: beside[old] for old, name in methods.named_beside(one.kind, beside, answer).items()
            }
        answers.append(answer)
    return canvas.explanation(spec.kind, answers)


def draw(explanation: Explanation, x: np.ndarray, inputs: Inputs) -> View:
    """See `Method`: the cards of the method, and beside each those of the others."""
    raw = explanation.raw or ({},) * len(x)
    own = _method(explanation.kind).pictured(explanation, x, inputs)
    cards = [_with_quality(card, said) for card, said in zip(own.cards, raw, strict=True)]
    views = [own]
    first, *others = _specs(_spec(explanation))
    taken = {*methods.of(explanation.kind).fields(Fitted(first, inputs))}
    for one in others:
        fields = methods.of(one.kind).fields(Fitted(one, inputs))
        named = methods.named_beside(one.kind, fields, taken)
        taken |= {*named.values()}
        arrays = {old: explanation.arrays[named.get(old, old)] for old in fields}
        said = tuple(each.get(one.kind, {}) for each in raw)
        meta = {**explanation.meta, "spec": one.model_dump(mode="json")}
        beside = Explanation(one.kind, arrays, said if explanation.raw else (), meta)
        view = _method(one.kind).pictured(beside, x, inputs)
        views.append(view)
        cards = [
            dataclasses.replace(card, beside=(*card.beside, _with_quality(other, each)))
            for card, other, each in zip(cards, view.cards, said, strict=True)
        ]
    title, *titles = (view.title for view in views)
    return dataclasses.replace(
        own,
        cards=tuple(cards),
        title=", ".join([title, *map(str.lower, titles)]),
        found=_said(views, "found"),
        limits=_said(views, "limits"),
    )


# --- helpers --------------------------------------------------------------------------------------------


def _method(kind: str) -> Any:
    return methods.of(kind)


def _spec(explanation: Explanation) -> Any:
    return methods.parse_spec({"kind": explanation.kind, **explanation.meta.get("spec", {})})


def _specs(spec: Any) -> list[Any]:
    """The settings of a method and of those beside it: their defaults, with what they share taken from it.

    Raises:
        InvalidOption: One of them does not know such settings.
    """
    shared = {name: getattr(spec, name) for name in (*Superpixels.model_fields, "fill") if name != "also"}
    others: list[Spec] = []
    for kind in spec.also:
        try:
            settings = methods.settings_of(kind)
            known = {name: value for name, value in shared.items() if name in settings.model_fields}
            others.append(parse(settings, {"kind": kind, **known}, kind))
        except InvalidSpec as error:
            raise InvalidOption(f"also: {error}", "also") from None
    return [spec, *others]


def _measured(
    subject: Subject, spec: Any, ground: Ground, pointed: Pointed, answer: dict[str, Any]
) -> Search[None]:
    """Add to an answer how good it is, where that can be told and the budget allows."""
    if len(pointed.order) == subject.superpixels:
        with contextlib.suppress(Stop):  # the answer stands without it
            answer["raw"]["quality"] = yield from _quality(subject, spec, ground, pointed, answer)


def _quality(
    subject: Subject, spec: Any, ground: Ground, pointed: Pointed, answer: Mapping[str, Any]
) -> Search[dict[str, Any]]:
    said: dict[str, Any] = {"curves": [], "sparsity": float(1 - pointed.where.mean())}
    again = "image_mean" if spec.fill == "blur" else "blur"
    for fill, image in ((spec.fill, subject.beside()), (again, canvas.filled(subject, again))):
        rng = np.random.default_rng([spec.seed, 5])
        curves = yield from quality.curves(pointed.order, pointed.target, image.said, rng)
        said["curves"].append({"fill": fill, **curves._asdict()})
    if (change := pointed.change) is not None:
        said["cout"] = yield from quality.cout(
            change.regions, change.other, pointed.target, subject.superpixels, change.said
        )
        if "reference_rows" in ground.arrays:
            codes = ground.plausible().codes(np.stack([subject.canvas.image, answer["hidden"]]))
            near = References.of(ground.arrays, ground.inputs).near(codes, 1)
            far = [min(one.distance for one in some) for some in near]
            said["reference_distance"] = dict(zip(("original", "answer"), far, strict=True))
    return said


def _said(views: Sequence[View], name: str) -> str:
    """What each of several views says of itself, with whose it is."""
    said = [f"{view.title}: {getattr(view, name)}" for view in views]
    return " ".join(said) if len(said) > 1 else getattr(views[0], name)


def _with_quality(card: Card[Picture], raw: Mapping[str, Any]) -> Card[Picture]:
    """The card with a line of its quality, where that is known."""
    if not card.found or "quality" not in raw:
        return card
    first = raw["quality"]["curves"][0]
    words = (
        f"Mean probability as parts are hidden, those that matter most first: {number(first['deletion'])} "
        f"(the less the better), as they are shown: {number(first['insertion'])} (the more the better); "
        f"in random orders {number(first['random'])}."
    )
    return dataclasses.replace(card, note=f"{card.note} {words}".strip())
