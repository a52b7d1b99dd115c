"""Strangers' code on the same question, weights and images: `python -m benchmarks.peers`.

    python3.11 -m venv .venv-peers
    .venv-peers/bin/pip install --editable '.[tensorflow]' 'foolbox==3.3.4' numba
    .venv-peers/bin/python -m benchmarks.peers

An attack of least L1 norm asks for another class, a counterfactual for a probability of .99 of one. So the
model is wrapped: its logit is 0 for the class that a row has, and for any other class t how far t's log-odds
are beyond those of .99. The class changes to t just where p_t = .99. Brendel-Bethge starts from the nearest
of 9,000 other test images that are as sure as that of another class. All are given the whole batch, and one
thread; what is valid is asked of the model again, and medians are of what is. What is compiled on first use
is compiled before.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import reference
from benchmarks.counterfactual import CONTRACT, LIMITS
from benchmarks.table import timed
from explainer_runtime import Counterfactual, fit, prepare

LEAST = 0.99
_STARTS = slice(1_000, None)


class Wrapped:
    """The reference's network as attacks are given it, and how often it was asked.

    Args:
        name: Which network.
        own: The class of each row that is attacked.
    """

    def __init__(self, name: str, own: np.ndarray) -> None:
        import keras

        network = reference.keras_model(name)
        last = network.layers[-1]
        self._before = keras.Model(network.inputs, last.input)
        self._last, self._own = last, own
        self.rows = self.gradients = 0

    def __call__(self, x: Any) -> Any:
        """Logits `(N, K)` of rows: 0 at their own class, log-odds beyond `LEAST` elsewhere."""
        import tensorflow as tf

        @tf.custom_gradient
        def counted(x: Any) -> Any:
            self.rows += len(x)

            def back(gradient: Any) -> Any:
                self.gradients += len(x)
                return gradient

            return x, back

        z = self._before(counted(x), training=False) @ self._last.kernel + self._last.bias
        others = tf.reduce_logsumexp(
            tf.where(tf.eye(z.shape[1], dtype=bool)[None], -np.inf, z[:, None, :]), axis=2
        )
        beyond = z - others - np.log(LEAST / (1 - LEAST))
        return tf.where(tf.one_hot(self._own, z.shape[1], on_value=True, off_value=False), 0.0, beyond)


def main() -> None:
    """Run ours and theirs, and print a table in Markdown."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    words.add_argument("--first", type=int, default=200, help="index of the first test image")
    words.add_argument("--count", type=int, default=32, help="how many")
    words.add_argument("--only", default="", help="peers whose names contain this")
    asked = words.parse_args()
    x = reference.images("mnist")[asked.first : asked.first + asked.count]
    own = reference.model("mnist_cnn")(x).argmax(axis=1)
    print("| search | valid | L1, median | mean | pixels | gradients + rows | cpu, s an image |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for objective, effort in (("balanced", "standard"), ("smallest", "standard"), ("smallest", "thorough")):
        spec = Counterfactual(tol=1 - LEAST, objective=objective, effort=effort)  # type: ignore[arg-type]
        explain = prepare(fit(spec, inputs=CONTRACT), reference.model("mnist_cnn"))
        explain(x, limits=LIMITS)
        with timed() as clock:
            answer = explain(x, limits=LIMITS)
        cost = answer.cost
        _say(
            f"ours, {objective}, {effort}",
            x,
            own,
            answer["counterfactual"],
            cost.steps,
            cost.rows - cost.steps,
            clock.cpu,
        )
    for name, attack in _attacks().items():
        if asked.only in name:
            _attacked(name, attack, x, own)


def _attacks() -> dict[str, Callable[[], Any]]:
    from foolbox import attacks

    return {
        "Brendel-Bethge L1, 100 steps": lambda: attacks.L1BrendelBethgeAttack(steps=100),
        "Brendel-Bethge L1, 1,000 steps": lambda: attacks.L1BrendelBethgeAttack(steps=1000),
        "EAD, 9 x 100 steps": lambda: attacks.EADAttack(steps=100, decision_rule="L1"),
        "FMN L1, 100 steps": lambda: attacks.L1FMNAttack(steps=100),
        "FMN L1, 1,000 steps": lambda: attacks.L1FMNAttack(steps=1000),
    }


def _attacked(name: str, made: Callable[[], Any], x: np.ndarray, own: np.ndarray) -> None:
    import foolbox
    import tensorflow as tf

    starts = _starts(x, own)
    for attack, rows in ((made(), slice(1)), (made(), slice(None))):
        if rows.stop:
            attack.steps = 2
        wrapped = Wrapped("mnist_cnn", own[rows])
        model = foolbox.TensorFlowModel(wrapped, bounds=(CONTRACT.low, CONTRACT.high), device="/CPU:0")
        given = {"starting_points": tf.constant(starts[rows])} if "Bethge" in name else {}
        with timed() as clock:
            _, found, _ = attack(model, tf.constant(x[rows]), tf.constant(own[rows]), epsilons=None, **given)
    _say(name, x, own, found.numpy(), wrapped.gradients, wrapped.rows - wrapped.gradients, clock.cpu)


def _starts(x: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The nearest image that the model is sure is something else, for each row."""
    others = reference.images("mnist")[_STARTS]
    scores = reference.model("mnist_cnn")(others)
    others, scores = others[scores.max(axis=1) > LEAST + 1e-3], scores[scores.max(axis=1) > LEAST + 1e-3]
    chosen = []
    for row, mine in zip(x, own, strict=True):
        far = np.abs(others - row).reshape(len(others), -1).sum(axis=1)
        chosen.append(np.where(scores.argmax(axis=1) == mine, np.inf, far).argmin())
    return np.asarray(others[chosen])


def _say(
    name: str, x: np.ndarray, own: np.ndarray, found: np.ndarray, gradients: int, rows: int, cpu: float
) -> None:
    scores = reference.model("mnist_cnn")(found)
    valid = (scores.argmax(axis=1) != own) & (scores.max(axis=1) >= LEAST - 1e-4)
    change = np.abs(found - x).reshape(len(x), -1)[valid]
    l1, pixels = change.sum(axis=1), (change > 1e-4).sum(axis=1)
    distances = (
        f"{np.median(l1):.2f} | {l1.mean():.2f} | {np.median(pixels):g}" if valid.any() else "- | - | -"
    )
    count = len(x)
    print(
        f"| {name} | {valid.sum()} of {count} | {distances} | {gradients / count:,.0f} + {rows / count:,.0f} "
        f"| {cpu / count:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
