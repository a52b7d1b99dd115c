"""Regions: which parts of the image would have to be hidden for the answer to be another?

Vermeire et al. (arXiv:2004.07511, SEDC and SEDC-T) cut an image into superpixels and look for the fewest of
them without which the model gives another class, or a certain one. It is the counterfactual of an anchor:
that says what is enough for the answer, this what it cannot do without. The search among sets of superpixels
is `search/regions.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from explainer_runtime.explanation import COMMON, NOT_FOUND, OK, Explanation, Fields
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods import canvas
from explainer_runtime.methods.canvas import check, fit
from explainer_runtime.methods.ground import Ground
from explainer_runtime.methods.region.drawing import draw
from explainer_runtime.methods.region.settings import Region
from explainer_runtime.search.asks import Search, lockstep
from explainer_runtime.search.regions import Hidden, hide
from explainer_runtime.search.subject import Subject, lead

__all__ = ["NETWORKS", "check", "draw", "fields", "fit", "search"]

NETWORKS = ()


def search(x: np.ndarray, spec: Region, ground: Ground) -> Search[Explanation]:
    """The search for the fewest superpixels of each image whose hiding changes the answer.

    See `Method`. Superpixels are places, alike in every channel.

    Returns:
        An explanation with `hidden`, the image with these superpixels hidden; `region_mask`, where they are;
        `segments`, all of them; `size`, how many; `area`, their share of the pixels; `irreducible`, whether
        the model has been asked about it without each of them, and none could be shown again; the classes
        and scores before and after. `found` is true where the model, asked a second time about just this
        picture, gave another class, or the one that is sought. Elsewhere `hidden` is the image itself. `raw`
        has what hiding each superpixel alone does to the log-odds (`effects`), and what comes nearest
        where nothing was found.

    Raises:
        InvalidInput, InvalidSpec, MissingExtra: See `canvas.subjects`.
    """
    subjects = canvas.subjects(x, spec, ground, most=canvas.MOST)
    answers = yield from lockstep([_one(subject, spec) for subject in subjects])
    return canvas.explanation("region", answers)


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
    }


def _one(subject: Subject, spec: Region) -> Search[dict[str, Any]]:
    said: dict[bytes, np.ndarray] = {}

    def ask(hidden: np.ndarray) -> Search[np.ndarray]:
        known = np.array([mask.tobytes() in said for mask in hidden])
        scores = yield from subject.said(~hidden, again=known)
        said.update(zip((mask.tobytes() for mask in hidden), scores, strict=True))
        if isinstance(spec.target_class, int):
            return lead(scores, spec.target_class)
        return -lead(scores, subject.prediction)

    held = yield from hide(subject.superpixels, ask)
    return _answer(subject, held, said)


def _answer(subject: Subject, held: Hidden, said: dict[bytes, np.ndarray]) -> dict[str, Any]:
    """What is said of one image: the fields of an explanation, and `raw`."""
    shown = subject.canvas
    mask = np.zeros((1, subject.superpixels), bool)
    if held.found:
        mask[0, list(held.regions)] = True
    where = mask[0][shown.segments]
    # What is not found is the image itself; one that was not asked about has scores of zero.
    after = np.exp(said[mask[0].tobytes()]) if held.found else subject.scores
    nearest = [] if held.found else list(held.regions)
    return {
        "found": held.found,
        "status": held.stopped or (OK if held.found else NOT_FOUND),
        "hidden": shown.draw(~mask)[0],
        "region_mask": where,
        "segments": shown.segments,
        "size": mask.sum(),
        "area": where.mean(),
        "irreducible": held.irreducible,
        "original_class": subject.prediction,
        "original_proba": subject.scores,
        "hidden_class": after.argmax() if subject.prediction >= 0 else -1,
        "hidden_proba": after,
        "raw": {
            "regions": list(held.regions) if held.found else [],
            "effects": held.effects,
            "num_preds": subject.rows,
            **({"nearest": nearest} if nearest else {}),
        },
    }
