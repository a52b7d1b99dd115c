"""What the demo has to show: a page for people (`story.py`), a JSON document for machines, a table for the
terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import orjson

from explainer_runtime.data import Dataset
from explainer_runtime.demo import network
from explainer_runtime.demo.roads import Road
from explainer_runtime.predictors import Predictor
from explainer_runtime.predictors.fingerprint import identity
from explainer_runtime.spec import Inputs
from explainer_runtime.views import number

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Network:
    """A network, and how good it is.

    Attributes:
        accuracy: Share of the test images that it gives their class.
        tested: How many those are.
        trained: How many images it was trained on.
        digest: Of its weights.
    """

    accuracy: float
    tested: int
    trained: int
    digest: str

    @classmethod
    def judged(cls, model: Predictor, dataset: Dataset) -> Self:
        """A network that was trained on `dataset`."""
        accuracy, digest = network.accuracy(model, dataset), identity(model).get("digest", "")
        return cls(accuracy, len(dataset.x_test), len(dataset.x_train), digest)


@dataclass(frozen=True)
class Outcome:
    """Everything that came out.

    Attributes:
        roads: One for each question.
        x: The images `(N, H, W, C)`, the last of which the network gets wrong.
        indices: Where they are in the test set.
        labels: The class of each.
        inputs: The input contract.
        network: The one that is explained.
        second: The one that it is held against.
        agrees: How many of the images both give the same class.
        digests: Of the artifacts, by name.
        seconds: From start to here.
        failures: What did not hold.
    """

    roads: list[Road]
    x: np.ndarray
    indices: list[int]
    labels: list[str]
    inputs: Inputs
    network: Network
    second: Network
    agrees: int
    digests: dict[str, str]
    seconds: float
    failures: tuple[str, ...]


def write(outcome: Outcome, out: Path) -> None:
    """Write `report.html` and `summary.json` into `out`."""
    from explainer_runtime.demo import story

    (out / "summary.json").write_bytes(orjson.dumps(summary(outcome), option=orjson.OPT_INDENT_2))
    (out / "report.html").write_text(story.html(outcome, out), encoding="utf-8")


def summary(outcome: Outcome) -> dict[str, Any]:
    """The numbers as JSON values."""
    return {
        "ok": not outcome.failures,
        "failures": list(outcome.failures),
        "seconds": round(outcome.seconds, 2),
        "network": {
            "parameters": network.PARAMETERS,
            "test_accuracy": round(outcome.network.accuracy, 4),
            "digest": outcome.network.digest,
        },
        "second_network": {
            "test_accuracy": round(outcome.second.accuracy, 4),
            "digest": outcome.second.digest,
            "agrees": outcome.agrees,
        },
        "artifacts": outcome.digests,
        "methods": [_method(road, outcome) for road in outcome.roads],
    }


def table(outcome: Outcome) -> Table:
    """The numbers for the terminal, a line for each explainer; the page has more of them."""
    from rich.table import Table

    shown = Table(*(HEAD[column] for column in _SHORT))
    for column in shown.columns[1:]:
        column.justify = "right"
    for road in outcome.roads:
        cells = line(road)
        shown.add_row(*(cells[column] for column in _SHORT))
    return shown


HEAD = (
    "explainer",
    "found",
    "holds",
    "second network agrees",
    "median L1",
    "least precision",
    "REST",
    "gRPC",
    "calls",
    "rows",
)
_SHORT = (0, 1, 2, 6, 8, 9)
"""Columns for which a terminal has room."""


def line(road: Road) -> tuple[str, ...]:
    """The numbers of one road, in words, below `HEAD`."""
    cost, followed = road.explanation.cost, road.followed
    return (
        road.name,
        f"{road.found.sum()} of {len(road.found)}",
        f"{road.valid.sum()} of {len(road.valid)}",
        "–" if followed is None else f"{followed[0]} of {followed[1]}",
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
    checked = {
        "precision_rechecked": road.precision,
        "second_network_class": road.second,
        **{f"precision_with_{name.replace(' ', '_')}": share for name, share in road.elsewhere.items()},
    }
    rows = [
        {
            "test_image": outcome.indices[row],
            "label": outcome.labels[row],
            "valid": bool(road.valid[row]),
            **{name: values[row].item() for name, values in checked.items() if values is not None},
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
