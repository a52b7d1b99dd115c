"""Anchors: which part of the image holds the answer in place while the rest is hidden?

Ribeiro, Singh, Guestrin (AAAI 2018) cut an image into superpixels and look for the fewest of them that, when
shown, keep the model's answer with high probability while all others are masked at random. The search among
sets of superpixels is `search/subsets.py`, the asking `search/subject.py`; this file says what an image is
cut into, what masked parts show, and how the answer is written down.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from explainer_runtime.explanation import COMMON, NOT_FOUND, OK, Fields
from explainer_runtime.fitted import Fitted
from explainer_runtime.methods import canvas
from explainer_runtime.methods.anchor.drawing import EMPTY
from explainer_runtime.methods.anchor.drawing import draw as pictured
from explainer_runtime.methods.anchor.settings import AnchorImage
from explainer_runtime.methods.ground import Ground
from explainer_runtime.methods.together import Pointed, check, draw, fit, search
from explainer_runtime.search import mask_surrogate
from explainer_runtime.search.asks import Search
from explainer_runtime.search.subject import Subject
from explainer_runtime.search.subsets import Holding, Rules, hold

__all__ = ["NETWORKS", "check", "draw", "fields", "fit", "one", "pictured", "search"]

NETWORKS = ("encoder",)


def fields(fitted: Fitted) -> Fields:
    """What an answer holds."""
    inputs, number, image = fitted.inputs, ("FP32", ()), canvas.size(fitted)
    return {
        **COMMON,
        "anchor": ("FP32", inputs.shape),
        "anchor_mask": ("BOOL", image),
        "segments": ("INT64", image),
        "precision": number,
        "coverage": number,
        "size": ("INT64", ()),
        "vacuous": ("BOOL", ()),
        "prediction": ("INT64", ()),
        "original_proba": ("FP32", (inputs.classes,)),
    }


def one(subject: Subject, spec: AnchorImage, ground: Ground) -> Search[dict[str, Any]]:
    """The search for an anchor of one image.

    Superpixels are places, alike in every channel. With `fill='background'` masked pixels show
    a random one of the fitted images.

    Returns:
        `anchor` (the image where the anchor is, `low` elsewhere), `anchor_mask`,
        `segments`, `precision` (share of the draws made to prove it that kept the class), `coverage`
        (share of random masks that show the whole anchor), `size` (superpixels in it), `vacuous` (whether
        it is empty: masking at random hardly ever changes the class), `prediction` and `original_proba`; see
        `_raw` for the rest. Where `found` is false they describe the best candidate. An image that the budget
        did not allow to be predicted has `prediction` -1, scores of zero and no anchor.
    """
    rules = Rules(*(getattr(spec, name) for name in Rules._fields))
    holding = yield from hold(subject.superpixels, rules, spec.seed, subject.ask)
    return _answer(subject, holding, spec, ground.inputs.low)


# --- the answer -----------------------------------------------------------------------------------------


def _answer(subject: Subject, holding: Holding, spec: AnchorImage, low: float) -> dict[str, Any]:
    """What is said of one image: the fields of an explanation, and `raw`."""
    shown, order = subject.canvas, list(holding.features)
    mask = np.isin(shown.segments, order)
    prefixes = np.zeros((len(order) + 1, subject.superpixels), dtype=bool)
    for size in range(1, len(order) + 1):
        prefixes[size, order[:size]] = True
    own, seen = holding.evidence.own(prefixes), holding.evidence.tally(prefixes)
    # Draws of its own had no part in choosing a set, so they do not flatter it.
    tries, hits = np.where(own.tries > 0, own, seen)
    precision = hits / np.maximum(tries, 1)
    # Superpixels are masked independently of each other, so this is exact.
    coverage = (1 - spec.p_sample) ** np.arange(len(order) + 1)
    return {
        "found": holding.found,
        "status": holding.stopped or (OK if holding.found else NOT_FOUND),
        "anchor": np.where(np.expand_dims(mask, shown.channels), shown.image, np.float32(low)),
        "anchor_mask": mask,
        "segments": shown.segments,
        "precision": precision[-1],
        "coverage": coverage[-1],
        "size": len(order),
        "vacuous": holding.found and not order,
        "prediction": subject.prediction,
        "original_proba": subject.scores,
        "raw": _raw(subject, holding, prefixes, precision, coverage, spec),
        "pointed": Pointed(subject.prediction, _order(holding), mask),
    }


def _order(holding: Holding) -> np.ndarray:
    """The anchor, as it was put together, then the others, as a linear model of the draws has them."""
    evidence, first = holding.evidence, list(holding.features)
    if not len(evidence.lead):
        return np.array(first, int)
    weights = mask_surrogate.fit(evidence.shown, evidence.lead).weights
    rest = np.argsort(-weights, kind="stable")
    return np.concatenate([np.array(first, int), rest[~np.isin(rest, first)]])


def _why_empty(subject: Subject, spec: AnchorImage) -> str:
    if subject.holds_masked:
        return (
            f"{EMPTY}. With all of them masked the image still has it, so what they show then (fill "
            f"'{spec.fill}') has the class, too: try another fill, or smaller superpixels."
        )
    return (
        f"{EMPTY}. With a share of {spec.p_sample:g} of them masked enough is left: try a larger "
        "p_sample, or smaller superpixels."
    )


def _raw(
    subject: Subject,
    holding: Holding,
    prefixes: np.ndarray,
    precision: np.ndarray,
    coverage: np.ndarray,
    spec: AnchorImage,
) -> dict[str, Any]:
    """The rest, in the words that clients of anchors know; lists have one entry a feature, as it was added.

    `mean` and `precision` (the same) and `coverage` are those of the anchor's first features, `examples`
    pictures in input units that show them with the class kept (`covered_true`) and lost (`covered_false`).
    `all_precision` is the share of random masks that keep the class with nothing held; `num_preds` counts
    the pictures asked about. `vacuous`: the anchor is empty; `note` says why then, and what to try.
    `holds_masked`: the image with every superpixel masked has the class too, so part of what holds it is the
    fill, and another `fill` tells more.
    """
    evidence = holding.evidence
    about = evidence.about(prefixes)

    def pictures(draws: np.ndarray) -> np.ndarray:
        chosen = np.flatnonzero(draws)[: spec.n_covered_ex]
        return subject.canvas.draw(evidence.shown[chosen], subject.fills[chosen])

    vacuous = holding.found and not holding.features
    return {
        "feature": list(holding.features),
        "mean": precision[1:].tolist(),
        "precision": precision[1:].tolist(),
        "coverage": coverage[1:].tolist(),
        "examples": [
            {
                "covered_true": pictures(draws & evidence.kept),
                "covered_false": pictures(draws & ~evidence.kept),
            }
            for draws in about.T[1:]
            if spec.n_covered_ex
        ],
        "all_precision": float(precision[0]),
        "num_preds": subject.rows,
        "prediction": subject.prediction,
        "holds_masked": subject.holds_masked,
        "vacuous": vacuous,
    } | ({"note": _why_empty(subject, spec)} if vacuous else {})
