"""Counterfactuals a second on an accelerator: `python -m benchmarks.gpu --batch 2048 --threads 8`.

The reference's MNIST network, or `--model FILE`, through `prepare` and `explain` as they are, by Keras on
JAX. It needs `explainer-runtime[jax]`, on a GPU also `jax[cuda13]`, and no TensorFlow. Steps are NumPy on
the host, so what is asked is how much of the time is theirs: every thread explains its share of the batch,
and while one steps the model may answer another. All is run once before it is measured, for what JAX
compiles.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("KERAS_BACKEND", "jax")
for _library in ("OMP", "OPENBLAS", "MKL"):  # the threads are ours
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")


def main() -> None:
    """Measure, and print a line for each number."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    words.add_argument("--batch", type=int, default=2048, help="images explained together")
    words.add_argument("--threads", type=int, default=1, help="explanations that run side by side")
    words.add_argument("--effort", default="standard", choices=("quick", "standard", "thorough"))
    words.add_argument("--objective", default="smallest", choices=("balanced", "smallest"))
    words.add_argument("--model", help="a .keras file for 28x28 images in [-0.5, 0.5]")
    words.add_argument("--data", default="mnist", choices=("mnist", "fashion"), help="whose test images")
    asked = words.parse_args()

    import jax
    import numpy as np

    from benchmarks import reference
    from explainer_runtime import Counterfactual, Inputs, Limits, connect, fit, prepare

    model = connect(asked.model or reference.path(f"{asked.data}_cnn"))
    images = reference.images(asked.data)
    x = images[np.arange(asked.batch) % len(images)]
    spec = Counterfactual(tol=0.01, effort=asked.effort, objective=asked.objective)
    explain = prepare(fit(spec, inputs=Inputs(shape=(28, 28, 1), low=-0.5, high=0.5, classes=10)), model)
    limits = Limits(max_batch=asked.batch, max_rows=10**9, max_calls=10**9, max_seconds=3600)

    def once() -> tuple[list, float]:
        begun = time.perf_counter()
        with ThreadPoolExecutor(asked.threads) as threads:
            parts = [part for part in np.array_split(x, asked.threads) if len(part)]
            answers = list(threads.map(lambda part: explain(part, limits=limits), parts))
        return answers, time.perf_counter() - begun

    _, first = once()
    answers, wall = once()
    found = np.concatenate([one["found"] for one in answers])
    changed = np.concatenate([one["counterfactual"] for one in answers])
    wanted = np.concatenate([one["target_class"] for one in answers])
    own, scores = model(x).argmax(axis=1), model(changed)
    valid = found & (wanted != own) & (scores[np.arange(len(x)), wanted] >= 0.99 - 1e-4)
    waited = sum(one.cost.seconds for one in answers)  # of all threads
    busy = wall * len(answers)
    device, rate = jax.devices()[0], f"{len(x) / wall:,.0f}"
    share, each = waited / busy, (busy - waited) / len(x) * 1e3
    said = {
        "device": f"{device.device_kind} ({device.platform}), {os.cpu_count()} cores, JAX {jax.__version__}",
        "counterfactuals a second": f"{rate} ({len(x)} in {wall:.2f} s, {asked.threads} threads)",
        "the first time, with compiling": f"{first:.1f} s",
        "valid, asked again": f"{valid.mean():.4f}",
        "L1, median": f"{np.median(np.concatenate([one['distance_l1'] for one in answers])):.2f}",
        "gradients an image": f"{sum(one.cost.steps for one in answers) / len(x):.0f}",
        "other rows an image": f"{sum(one.cost.rows - one.cost.steps for one in answers) / len(x):.0f}",
        "of a thread's time, waiting for the model": f"{share:.2f}",
        "and on the host": f"{1 - share:.2f}, {each:.2f} ms an image",
    }
    for name, value in said.items():
        print(f"{name:>42}  {value}")


if __name__ == "__main__":
    main()
