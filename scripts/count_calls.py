"""How many functions of this package, in how many files, one request runs: how much there is to understand.

    python scripts/count_calls.py [--files]

Three requests of the same two rows: prototypes and anchors by a call of what `prepare` returns, and anchors
once more through MLServer's runtime, from a V2 request to a V2 answer. Counted with `sys.setprofile` in every
thread, after a first request that compiles and imports what there is to.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from explainer_runtime import AnchorImage, CounterfactualProto, Grid, Inputs, connect, fit, prepare, save

PACKAGE = str(Path(sys.modules["explainer_runtime"].__file__ or "").parent)
INPUTS = Inputs(shape=(6, 6, 1), low=0, high=1, classes=3)
RNG = np.random.default_rng(0)
TRAIN = RNG.uniform(size=(60, 6, 6, 1)).astype(np.float32)
WEIGHTS = RNG.normal(size=(36, 3)).astype(np.float32)
ROWS = TRAIN[:2]
ANCHOR = AnchorImage(segmentation=Grid(rows=3, columns=3))


def model(x: np.ndarray) -> np.ndarray:
    """A linear softmax."""
    scores = np.exp(x.reshape(len(x), -1) @ WEIGHTS)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


class Counter:
    """What of this package is called, in every thread that begins after it was made."""

    def __init__(self) -> None:
        self.seen: set[CodeType] = set()
        self.calls, self.on = 0, False
        threading.setprofile(self.note)
        sys.setprofile(self.note)

    def note(self, frame: Any, event: str, _: Any) -> None:
        """Called by Python at each event."""
        if self.on and event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            self.seen.add(frame.f_code)
            self.calls += 1

    def during(self, run: Callable[[], Any]) -> tuple[set[CodeType], int]:
        """The functions that `run` runs, and how often it calls one."""
        self.seen, self.calls, self.on = set(), 0, True
        run()
        self.on = False
        return self.seen, self.calls


def served(folder: Path) -> Callable[[], Any]:
    """A request of anchors to MLServer's runtime, in this process."""
    from mlserver import ModelSettings
    from mlserver.types import InferenceRequest, RequestInput

    from explainer_runtime import ExplainerRuntime
    from explainer_runtime.predictors import colocated

    colocated.announce("linear", connect(model))
    uri = str(save(fit(ANCHOR, inputs=INPUTS), folder / "anchor"))
    extra = {"predictor": "colocated:linear"}
    settings = ModelSettings.model_validate(
        {"name": "anchor", "implementation": ExplainerRuntime, "parameters": {"uri": uri, "extra": extra}}
    )
    runtime = ExplainerRuntime(settings)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(runtime.load())
    rows = RequestInput(name="image", shape=[*ROWS.shape], datatype="FP32", data=ROWS.ravel().tolist())
    return lambda: loop.run_until_complete(runtime.predict(InferenceRequest(inputs=[rows])))


def main() -> None:
    """Print a line for each request, and with `--files` its files."""
    counter = Counter()
    proto = prepare(fit(CounterfactualProto(theta=1.0), TRAIN, predictor=model, inputs=INPUTS), model)
    anchor = prepare(fit(ANCHOR, inputs=INPUTS), model)
    with tempfile.TemporaryDirectory() as folder:
        requests = {
            "prototype": lambda: proto(ROWS),
            "anchor": lambda: anchor(ROWS),
            "anchor, served": served(Path(folder)),
        }
        for name, run in requests.items():
            run()
            seen, calls = counter.during(run)
            files = sorted({Path(code.co_filename).relative_to(PACKAGE).as_posix() for code in seen})
            print(f"{name}: {len(seen)} functions in {len(files)} files, {calls} calls")
            if "--files" in sys.argv:
                print(*files, sep="\n  ", end="\n\n")


if __name__ == "__main__":
    main()
