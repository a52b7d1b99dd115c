"""What the demo has to show: a page for people, a JSON document for machines, a table for the terminal."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from explainer_runtime.demo.checks import SAMPLES
from explainer_runtime.demo.network import PARAMETERS
from explainer_runtime.demo.roads import Road
from explainer_runtime.render import cards, page
from explainer_runtime.spec import Inputs
from explainer_runtime.views import number

if TYPE_CHECKING:
    from rich.table import Table

_SIZE = 336
"""Pixels of a panel: more than are shown, so that outlines stay sharp on dense screens."""


NEAREST = "counterfactual, network in process"
FROM_OUTSIDE = "counterfactual, network behind gRPC"
ENOUGH = "anchor, network behind gRPC"
_QUESTIONS = {
    NEAREST: (
        "What would have to be different?",
        "The smallest change found that makes the network see something else, and be at least 95% sure of "
        "it. This explainer runs beside the network and follows its gradients.",
    ),
    FROM_OUTSIDE: (
        "The same question, asked from outside",
        "The same explainer, served by another process. It sees nothing of the network but its answers over "
        "gRPC: it searches a small surrogate of it, and asks the network itself about all that it finds.",
    ),
    ENOUGH: (
        "What is enough?",
        "The tiles outlined in orange hold the answer in place: with four in five of the others, picked at "
        "random, painted over in the image's mean grey, the network still says the same 95 times in 100.",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """Everything that came out.

    Attributes:
        roads: One for each explainer.
        x: The images `(N, H, W, C)`.
        indices: Where they are in the test set.
        labels: The class of each.
        inputs: The input contract.
        accuracy: Of the network, on the test set.
        digests: Of the artifacts, by name.
        seconds: From start to here.
        failures: What did not hold.
    """

    roads: list[Road]
    x: np.ndarray
    indices: list[int]
    labels: list[str]
    inputs: Inputs
    accuracy: float
    digests: dict[str, str]
    seconds: float
    failures: tuple[str, ...]


def write(outcome: Outcome, out: Path) -> None:
    """Write `report.html` and `summary.json` into `out`."""
    (out / "summary.json").write_bytes(orjson.dumps(summary(outcome), option=orjson.OPT_INDENT_2))
    (out / "report.html").write_text(html(outcome, out), encoding="utf-8")


def summary(outcome: Outcome) -> dict[str, Any]:
    """The numbers as JSON values."""
    return {
        "ok": not outcome.failures,
        "failures": list(outcome.failures),
        "seconds": round(outcome.seconds, 2),
        "network": {"parameters": PARAMETERS, "test_accuracy": round(outcome.accuracy, 4)},
        "artifacts": outcome.digests,
        "methods": [_method(road, outcome) for road in outcome.roads],
    }


def table(outcome: Outcome) -> Table:
    """The numbers for the terminal, a column for each explainer."""
    from rich.table import Table

    head, *lines = zip(_HEAD, *map(_line, outcome.roads), strict=True)
    shown = Table(*head)
    for column in shown.columns[1:]:
        column.justify = "right"
    for line in lines:
        shown.add_row(*line)
    return shown


def html(outcome: Outcome, out: Path) -> str:
    """The page; `out` is the directory that its commands name."""
    return page.document(
        "Why does the network say so?",
        f"A small network sorts clothes: {PARAMETERS:,} parameters, right for {outcome.accuracy:.0%} of the "
        f"test images. Here are {len(outcome.x)} images that it gets right and what explains its answers, "
        "fetched from running servers and checked against the served network.",
        *(_gallery(road, outcome) for road in outcome.roads),
        page.section(
            "The numbers",
            page.table(_HEAD, map(_line, outcome.roads)),
            page.prose(_CHECKED),
            *(page.prose(f"Failed: {failure}.") for failure in outcome.failures),
        ),
        page.section("Do it again", *_again(shlex.quote(str(out)))),
    )


_HEAD = ("explainer", "found", "holds", "median L1", "precision", "REST", "gRPC", "model calls", "model rows")
_CHECKED = (
    "Found is what the explainer says; holds is what was seen when the network was asked again: the served "
    "one about every counterfactual, and its copy in the demo's own process about "
    f"{SAMPLES:,} freshly masked images for every anchor (precision is the lowest of them). Seconds, calls "
    "and rows are for all images in one request, sent over REST and over gRPC; the two answers must be equal "
    "to the last bit."
)


def _again(out: str) -> list[str]:
    return [
        page.prose("All of this, with the servers left running:"),
        page.code(f"explainer-runtime demo --out {out} --keep"),
        page.prose("One explainer beside its network, asked about one image from another terminal:"),
        page.code(f"explainer-runtime serve {out}/fashion-cf --model {out}/fashion-cnn.keras"),
        page.code(
            "curl -s localhost:8080/v2/models/fashion-cf/explain \\\n"
            f"  -H 'content-type: application/json' -d @{out}/request.json"
        ),
        page.prose("Without a server, from a request (or a picture of 28 by 28 pixels) to a page:"),
        page.code(
            f"explainer-runtime explain {out}/fashion-cf --model {out}/fashion-cnn.keras \\\n"
            f"  --input {out}/request.json --out explained.html"
        ),
    ]


def _line(road: Road) -> tuple[str, ...]:
    cost = road.explanation.cost
    return (
        road.name,
        f"{road.found.sum()} of {len(road.found)}",
        f"{road.valid.sum()} of {len(road.valid)}",
        "–" if road.l1 is None else number(road.l1),
        "–" if road.precision is None else f"{road.precision.min():.3f}",
        f"{road.seconds_rest:.1f} s",
        f"{road.seconds_grpc:.1f} s",
        f"{cost.calls:,}",
        f"{cost.rows:,}",
    )


def _method(road: Road, outcome: Outcome) -> dict[str, Any]:
    cost = road.explanation.cost
    small = [name for name, array in road.explanation.arrays.items() if array.ndim == 1]
    rows = [
        {
            "test_image": outcome.indices[row],
            "label": outcome.labels[row],
            "valid": bool(road.valid[row]),
            **({} if road.precision is None else {"precision_rechecked": float(road.precision[row])}),
            **{name: road.explanation[name][row].item() for name in small},
        }
        for row in range(len(road.valid))
    ]
    return {
        "method": road.name,
        "found": int(road.found.sum()),
        "valid": int(road.valid.sum()),
        "l1_median": road.l1,
        "precision_min": None if road.precision is None else float(road.precision.min()),
        "seconds": {"rest": round(road.seconds_rest, 3), "grpc": round(road.seconds_grpc, 3)},
        "predictor_calls": cost.calls,
        "predictor_rows": cost.rows,
        "rest_equals_grpc": not road.differing,
        "rows": rows,
    }


def _gallery(road: Road, outcome: Outcome) -> str:
    shown = cards(road.explanation, outcome.x, outcome.inputs, size=_SIZE)
    question, text = _QUESTIONS[road.name]
    return page.section(question, page.prose(text), page.gallery(shown))
