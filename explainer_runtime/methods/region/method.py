"""Regions: which parts of the image would have to be hidden for the answer to be another?

Vermeire et al. (arXiv:2004.07511, SEDC and SEDC-T) cut an image into superpixels and look for the fewest of
them without which the model gives another class, or a certain one. It is the counterfactual of an anchor:
that says what is enough for the answer, this what it cannot do without.

What is hidden shows nothing in particular. Goyal et al. (arXiv:1904.07451) ask instead which regions would
have to be those of another image, which the model gives another class: what would have to be there. To the
search that is one more fill. Superpixels are exchanged for what is at the same place of a nearest unlike
neighbour, with soft edges, until the image has its class; unlike the paper, which exchanges cells of a
feature map and lets them move, it needs nothing but answers. Several neighbours are tried side by side, and
the smallest set wins.

The search among sets of superpixels is `search/regions.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from explainer_runtime.errors import InvalidOption
from explainer_runtime.explanation import COMMON, NOT_FOUND, OK, Fields
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods import canvas, references, together
from explainer_runtime.methods.ground import Given, Ground
from explainer_runtime.methods.references import Neighbour, References
from explainer_runtime.methods.region.drawing import draw as pictured
from explainer_runtime.methods.region.settings import Region
from explainer_runtime.methods.together import Change, Pointed, draw, search
from explainer_runtime.search.asks import Search, Stop, lockstep
from explainer_runtime.search.kept import Kept
from explainer_runtime.search.regions import Hidden, hide
from explainer_runtime.search.subject import Subject, lead

__all__ = ["NETWORKS", "check", "draw", "fields", "fit", "one", "pictured", "search"]

NETWORKS = ("encoder",)
_OF_NEIGHBOUR: Fields = {"neighbour_row": ("INT64", ()), "neighbour_class": ("INT64", ())}
_SOFT = 56
"""Of the shorter side, what the edge of a pasted superpixel takes to fade in: 4 pixels of 224, none of 28."""


def check(fitted: Fitted, asked: Collection[str] = ()) -> None:
    """See `Method`."""
    together.check(fitted, asked)
    spec: Any = fitted.spec
    if "change" in asked and spec.change == "paste" and "reference_rows" not in fitted.arrays:
        raise InvalidOption("change: this explainer was fitted without reference rows", "change")
    if spec.change == "paste":
        references.check(fitted)


def fit(given: Given) -> dict[str, np.ndarray]:
    """Some of the training rows, where superpixels are to be pasted from them, too; see `together.fit`."""
    return together.fit(given, needed=given.spec.change == "paste")


def fields(fitted: Fitted) -> Fields:
    """What an answer holds."""
    inputs, image = fitted.inputs, canvas.size(fitted)
    scores = ("FP32", (inputs.classes,))
    return {
        **COMMON,
        "hidden": ("FP32", inputs.shape),
        "region_mask": ("BOOL", image),
        "segments": ("INT64", image),
        "size": ("INT64", ()),
        "area": ("FP32", ()),
        "irreducible": ("BOOL", ()),
        "original_class": ("INT64", ()),
        "original_proba": scores,
        "hidden_class": ("INT64", ()),
        "hidden_proba": scores,
        **(
            _OF_NEIGHBOUR | {"neighbour": ("FP32", inputs.shape)} if "reference_rows" in fitted.arrays else {}
        ),
    }


def one(subject: Subject, spec: Region, ground: Ground) -> Search[dict[str, Any]]:
    """The search for the fewest superpixels of one image whose hiding, or exchange, changes the answer.

    Superpixels are places, alike in every channel.

    Returns:
        `hidden`, the image with these superpixels hidden, or those of a neighbour in
        their place; `region_mask`, where they are; `segments`, all of them; `size`, how many; `area`, their
        share of the pixels; `irreducible`, whether the model has been asked about it without each of them,
        and none could be shown again; the classes and scores before and after. `found` is true where the
        model, asked about just this picture (a second time, if the budget allowed), gave another class, or
        the one that is sought; of what is pasted, that of the neighbour. Elsewhere `hidden` is the image
        itself. An explainer that was fitted to paste says which `neighbour` it was, its number
        `neighbour_row` and its class `neighbour_class`: the image itself and -1 where nothing was pasted.
        `raw` has what changing each superpixel alone does to the log-odds (`effects`), and what comes
        nearest where nothing was found.
    """
    if spec.change == "hide":
        tried = yield from _hide(subject, spec)
    else:
        known = References.of(ground.arrays, ground.inputs)
        (near,) = known.near(ground.plausible().codes(subject.canvas.image[None]), spec.k)
        tried = yield from _paste(subject, near, spec, known.rows)
    return _answer(tried, "reference_rows" in ground.arrays)


class _Try(NamedTuple):
    """What came of one way to change superpixels.

    Attributes:
        subject: The image, with what its superpixels turn into.
        held: The set.
        said: Log-scores with sets hidden, or pasted, by the bytes of their masks.
        fill: Which of the subject's fills they show.
        neighbour: Where that comes from, or None.
    """

    subject: Subject
    held: Hidden
    said: dict[bytes, np.ndarray]
    fill: int = 0
    neighbour: Neighbour | None = None


def _hide(
    subject: Subject,
    spec: Region,
    fill: int = 0,
    neighbour: Neighbour | None = None,
    rivals: Sequence[int] = (),
) -> Search[_Try]:
    said: dict[bytes, np.ndarray] = {}
    wanted = spec.target_class if neighbour is None else neighbour.known

    def ask(hidden: np.ndarray) -> Search[np.ndarray]:
        known = np.array([mask.tobytes() in said for mask in hidden])
        scores = yield from subject.said(~hidden, np.full(len(hidden), fill), again=known)
        said.update(zip((mask.tobytes() for mask in hidden), scores, strict=True))
        return lead(scores, wanted) if isinstance(wanted, int) else -lead(scores, subject.prediction)

    held = yield from hide(subject.superpixels, ask, rivals)
    return _Try(subject, held, said, fill, neighbour)


def _paste(subject: Subject, near: list[Neighbour], spec: Region, rows: Kept) -> Search[_Try]:
    """The smallest set of those of several neighbours: the nearest ones of the class sought, or of each of
    the likeliest other classes the nearest one."""
    itself = np.ones((1, subject.superpixels), bool)
    try:
        (scores,) = yield from subject.said(itself)
    except Stop as stop:
        return _Try(subject, Hidden((), False, False, [], stop.status), {})
    wanted = spec.target_class if isinstance(spec.target_class, int) else None
    if wanted == subject.prediction:
        return _Try(subject, Hidden((), True, True, []), {(~itself).tobytes(): scores})
    chosen = _chosen(near, scores, subject.prediction, wanted, spec.k)
    if not chosen:
        return _Try(subject, Hidden((), False, False, []), {})
    soft = min(subject.canvas.segments.shape) // _SOFT
    pasted = subject.filled("paste", rows[[one.row for one in chosen]], soft)
    ended: list[int] = []

    def alone(fill: int, neighbour: Neighbour) -> Search[_Try]:
        tried = yield from _hide(pasted, spec, fill, neighbour, ended)
        if tried.held.found:
            ended.append(len(tried.held.regions))
        return tried

    tries = yield from lockstep([alone(fill, one) for fill, one in enumerate(chosen)])
    best = min(tries, key=lambda one: (not one.held.found, len(one.held.regions)))
    stopped = next((one.held.stopped for one in tries if one.held.stopped), None)
    return best._replace(held=best.held._replace(stopped=stopped))


def _chosen(
    near: list[Neighbour], scores: np.ndarray, own: int, wanted: int | None, k: int
) -> list[Neighbour]:
    """At most k neighbours of the class that is wanted, or of others than its `own`."""
    if wanted is not None:
        return [one for one in near if one.known == wanted]
    firsts = {one.known: one for one in reversed(near) if one.known != own}
    return sorted(firsts.values(), key=lambda one: -scores[one.known])[:k]


def _answer(tried: _Try, pastes: bool) -> dict[str, Any]:
    """What is said of one image: the fields of an explanation, and `raw`."""
    subject, shown, held, said = tried.subject, tried.subject.canvas, tried.held, tried.said
    mask = np.zeros((1, subject.superpixels), bool)
    if held.found:
        mask[0, list(held.regions)] = True
    where = mask[0][shown.segments]
    # What is not found is the image itself; one that was not asked about has scores of zero. As scores of
    # their own near one are no longer told apart, the class is that of their logarithms.
    logs = said[mask[0].tobytes()] if held.found else None
    after = subject.scores if logs is None else np.exp(logs)
    other = subject.prediction if logs is None else int(logs.argmax())
    nearest = [] if held.found else list(held.regions)
    pasted = tried.neighbour if held.found else None
    neighbour = {
        "neighbour": shown.image if pasted is None or shown.fills is None else shown.fills[tried.fill],
        "neighbour_row": -1 if pasted is None else pasted.row,
        "neighbour_class": -1 if pasted is None else pasted.known,
    }
    return {
        "found": held.found,
        "status": held.stopped or (OK if held.found else NOT_FOUND),
        "hidden": shown.draw(~mask, np.array([tried.fill]))[0],
        "region_mask": where,
        "segments": shown.segments,
        "size": mask.sum(),
        "area": where.mean(),
        "irreducible": held.irreducible,
        "original_class": subject.prediction,
        "original_proba": subject.scores,
        "hidden_class": other,
        "hidden_proba": after,
        **(neighbour if pastes else {}),
        "raw": {
            "regions": list(held.regions) if held.found else [],
            "effects": held.effects,
            "num_preds": subject.rows,
            **({"nearest": nearest} if nearest else {}),
        },
        "pointed": _pointed(tried, where, other),
    }


def _pointed(tried: _Try, where: np.ndarray, other: int) -> Pointed:
    """The region first, then the others, each by what changing it alone does."""
    subject, held = tried.subject, tried.held
    rest = np.argsort(-np.array(held.effects), kind="stable")
    first = rest[np.isin(rest, held.regions)] if held.found else rest[:0]
    order = np.concatenate([first, rest[~np.isin(rest, first)]])

    def said(shown: np.ndarray) -> Search[np.ndarray]:
        return subject.said(shown, np.full(len(shown), tried.fill))

    change = Change(first.tolist(), other, said) if len(first) else None
    return Pointed(subject.prediction, order, where, change)
