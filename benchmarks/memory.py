"""Resident memory of a process that explains a batch of 64, one process for each method.

The figure is the most that the process has ever held: TensorFlow, the model and its compiled loops are in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.table import Row, row

BATCH = 64
LIMIT = 2.0
"""Gigabytes that a batch of 64 should stay under."""


def run() -> Iterator[Row]:
    """The most gigabytes resident, for each method."""
    for method in _METHODS:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", method],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[1],
        )
        start, most = map(float, done.stdout.split())
        yield row("memory", method, "before the batch", start, "GB resident")
        yield row("memory", method, f"most, batch of {BATCH}", most, "GB resident", LIMIT)


def _counterfactual() -> Callable:
    from benchmarks import reference
    from benchmarks.counterfactual import CONTRACT
    from explainer_runtime import Counterfactual, fit, prepare

    return prepare(fit(Counterfactual(tol=0.01), inputs=CONTRACT), reference.model("mnist_cnn"))


def _prototype() -> Callable:
    import dataclasses

    from benchmarks import elastic, reference
    from explainer_runtime import CounterfactualProto, prepare

    spec = CounterfactualProto(gamma=100, theta=100, k=20)
    fitted = dataclasses.replace(elastic.fitted(), spec=spec)
    return prepare(fitted, reference.model("mnist_cnn_proto"))


def _negative() -> Callable:
    from benchmarks import elastic

    return elastic.contrast("PN", "absolute")


def _positive() -> Callable:
    from benchmarks import elastic

    return elastic.contrast("PP", "absolute")


def _anchor() -> Callable:
    from benchmarks import reference
    from benchmarks.anchors import CONTRACT, SPEC
    from explainer_runtime import fit, prepare

    return prepare(fit(SPEC, inputs=CONTRACT), reference.model("fashion_cnn01"))


_METHODS: dict[str, Callable[[], Callable]] = {
    "counterfactual": _counterfactual,
    "prototype": _prototype,
    "negative": _negative,
    "positive": _positive,
    "anchor": _anchor,
}


def _gigabytes(field: str) -> float:
    """`VmRSS` is what is resident now, `VmHWM` the most that ever was."""
    status = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in status if line.startswith(field))
    return int(kilobytes) / 2**20


def _measure(method: str) -> None:
    from benchmarks import reference
    from benchmarks.counterfactual import LIMITS

    explain = _METHODS[method]()
    before = _gigabytes("VmRSS")
    images = reference.images("fashion", "unit") if method == "anchor" else reference.images("mnist")
    explain(images[:BATCH], limits=LIMITS)
    print(before, _gigabytes("VmHWM"))


if __name__ == "__main__":
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _measure(sys.argv[1])
