"""From nothing to the first answer, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import reference
from benchmarks.counterfactual import CONTRACT
from benchmarks.table import Row, row
from explainer_runtime import Counterfactual, fit, save

_PROGRAM = """
import sys, time
start = time.perf_counter()
import explainer_runtime as er
imported = time.perf_counter()
model = er.connect(sys.argv[2])
fitted = er.load(sys.argv[1])
loaded = time.perf_counter()
run = er.prepare(fitted, model)
ready = time.perf_counter()
import numpy as np
run(np.zeros((1, 28, 28, 1), "float32"))
print(imported - start, loaded - imported, ready - loaded, time.perf_counter() - ready)
"""


def run() -> Iterator[Row]:
    """Seconds of each step for a white-box counterfactual."""
    with tempfile.TemporaryDirectory() as folder:
        artifact = save(fit(Counterfactual(), inputs=CONTRACT), Path(folder) / "cf")
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(artifact), str(reference.path("mnist_cnn"))],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    steps = ("import", "load model and artifact", "compile and warm up", "first answer")
    for step, seconds in zip(steps, done.stdout.split(), strict=True):
        yield row("cold start", "counterfactual, white box", step, float(seconds), "s wall")
