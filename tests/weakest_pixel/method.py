"""Fade each pixel to its mean over the training rows, and see which takes most from the class."""

from __future__ import annotations

import numpy as np

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.explanation import COMMON, OK, Explanation
from explainer_runtime.fitted import check_arrays
from explainer_runtime.search.asks import Rows, Stop
from explainer_runtime.views import Card, Picture, View, image, name, number, photograph

NETWORKS = ()


def fit(given):
    rows = given.rows()
    if rows is None:
        raise InvalidSpec("weakest_pixel: needs training rows `x`")
    return {"mean": rows.mean(axis=0)}


def check(fitted, asked=()):
    check_arrays(fitted, {"mean": ("f", fitted.inputs.shape)})


def fields(fitted):
    classes = fitted.inputs.classes
    return {
        **COMMON,
        "original_class": ("INT64", ()),
        "original_proba": ("FP32", (classes,)),
        "pixel": ("INT64", ()),
        "loss": ("FP32", ()),
    }


def search(x, spec, ground):
    scores, loss, status = np.zeros((len(x), ground.inputs.classes), np.float32), None, OK
    try:
        scores = yield Rows(x)
        size = x[0].size
        faded = np.repeat(x.reshape(len(x), 1, size), size, axis=1)
        each = np.arange(size)
        faded[:, each, each] += spec.fade * (ground.arrays["mean"].reshape(-1) - faded[:, each, each])
        told = yield Rows(faded.reshape(-1, *x.shape[1:]), 0.5)
        own = np.repeat(scores.argmax(axis=1), size)
        loss = np.exp(scores.max(axis=1))[:, None] - np.exp(told[np.arange(len(told)), own]).reshape(-1, size)
    except Stop as stop:
        status = stop.status
    found = np.full(len(x), loss is not None)
    fields = {
        "found": found,
        "status": np.full(len(x), status),
        "original_class": scores.argmax(axis=1),
        "original_proba": np.exp(scores).astype(np.float32),
        "pixel": np.full(len(x), -1) if loss is None else loss.argmax(axis=1),
        "loss": np.zeros(len(x), np.float32) if loss is None else loss.max(axis=1).astype(np.float32),
    }
    return Explanation("weakest_pixel", fields)


def draw(explanation, x, inputs):
    cards = []
    for row, pixel in zip(x, explanation["pixel"], strict=True):
        shown, index = image(row, inputs), len(cards)
        mask = (np.arange(row.size) == pixel).reshape(shown.shape).any(axis=-1)
        lost = f"costs {number(float(explanation['loss'][index]))}"
        called = name(int(explanation["original_class"][index]), inputs)
        where = Picture("weakest pixel", lost, f"The pixel that {lost}", shown, "spotlight", mask)
        cards.append(Card(True, called, lost, (photograph("input", called, row, inputs), where)))
    return View("Weakest pixels", "The pixel that the class depends on most.", tuple(cards), {"loss": "loss"})
