"""The whole way once, for newcomers: train, fit, save, verify, serve, explain over the network, check.

Nothing is taken on trust. The model is one server, the explainers another one, so what the explainers know
of the model they have asked over gRPC; each answer is fetched by REST and by gRPC and both must be equal; and
whatever an explainer has found is put to the served model again.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from explainer_runtime import artifact, data, explainers
from explainer_runtime.artifact import Fitted
from explainer_runtime.data import Dataset
from explainer_runtime.demo import network, report
from explainer_runtime.demo.asking import request
from explainer_runtime.demo.questions import BLACK, CF, QUESTIONS, SPECS
from explainer_runtime.demo.report import Network, Outcome
from explainer_runtime.demo.roads import Jury, failures, travel
from explainer_runtime.demo.servers import Server, free_ports, serving, tail
from explainer_runtime.errors import ExplainerError, InvalidSpec
from explainer_runtime.predictors import Predictor, connect
from explainer_runtime.predictors.keras import KerasPredictor
from explainer_runtime.predictors.settings import Endpoint
from explainer_runtime.spec import Inputs

IMAGES = 8
MODEL, SECOND = "fashion-cnn", "second-cnn"
_PAGE = ("--page", "--page-samples")

Bar = Callable[[str], AbstractContextManager[Callable[[float], None]]]


def run(
    out: Path,
    *,
    retrain: bool = False,
    say: Callable[[str], None] = lambda line: None,
    bar: Bar = lambda label: nullcontext(lambda fraction: None),
    ready: Callable[[Outcome, list[Server]], None] = lambda outcome, servers: None,
) -> Outcome:
    """Go the whole way.

    Args:
        out: Directory for the network, the explainers, logs, `report.html` and `summary.json`.
        retrain: Train the network also if there is one.
        say: Told each step that is done, one line.
        bar: Makes a progress bar for a step that takes long.
        ready: Told the outcome while the servers are still up.

    Returns:
        What came out; `outcome.failures` is empty if everything held.

    Raises:
        ExplainerError: A server that does not come up or answers with an error; with the end of its log.
    """
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    for stale in ("report.html", "summary.json"):
        (out / stale).unlink(missing_ok=True)

    dataset = data.load("fashion_mnist", sample=True, scale="symmetric")
    model = _network(network.build, out / f"{MODEL}.keras", dataset, retrain, bar)
    second = _network(network.build_second, out / f"{SECOND}.keras", dataset, retrain, bar)
    judged = [Network.judged(one, dataset) for one in (model, second)]
    say(f"network: {network.PARAMETERS:,} parameters, {judged[0].accuracy:.1%} of the test images")
    say(f"another to hold it against: {judged[1].accuracy:.1%}")
    with bar("fitting the explainers"):
        fitted = {name: _fit(out / name, dataset, model) for name in SPECS}
    digests = {name: artifact.verify(out / name).digest for name in SPECS}
    say(f"explainers: {len(fitted)} fitted, saved and verified")
    chosen = choose(model, dataset)
    (out / "request.json").write_bytes(orjson.dumps(request(dataset.x_test[chosen[:1]])))

    with _terminable(), _servers(out, bar) as servers:
        say("servers: the network, and in a process of their own the explainers")
        x = dataset.x_test[chosen]
        beside, alone = servers
        served = connect(Endpoint(url=f"grpc://{beside.target}", model=MODEL, timeout=60))
        others = {"black": np.full_like(x[:1], BLACK), "other images": dataset.x_train[:200]}
        jury, roads = Jury(served, model, second, others), []
        for question in QUESTIONS:
            with bar(question.name):
                server = beside if question.beside else alone
                road = travel(question, server, fitted[question.explainer], x, jury)
            say(f"{question.name}: {road.valid.sum()} of {len(x)} hold, {road.seconds_rest:.1f} s")
            roads.append(road)
        outcome = Outcome(
            roads=roads,
            x=x,
            indices=chosen.tolist(),
            labels=[dataset.class_names[label] for label in dataset.y_test[chosen]],
            inputs=fitted[CF].inputs,
            network=judged[0],
            second=judged[1],
            agrees=int((second(x).argmax(axis=1) == model(x).argmax(axis=1)).sum()),
            digests=digests,
            seconds=time.monotonic() - start,
            failures=tuple(failures(roads)),
        )
        report.write(outcome, out)
        ready(outcome, servers)
    return outcome


def choose(model: Predictor, dataset: Dataset) -> np.ndarray:
    """Indices of eight test images: of seven classes the first that the model gets right, in order, and the
    first of all that it gets wrong."""
    right = model(dataset.x_test).argmax(axis=1) == dataset.y_test
    known = np.flatnonzero(right)
    _, first = np.unique(dataset.y_test[known], return_index=True)
    return np.append(known[np.sort(first)[: IMAGES - 1]], np.flatnonzero(~right)[:1])


# --- steps ----------------------------------------------------------------------------------------------


def _network(
    made: Callable[[], Any], path: Path, dataset: Dataset, retrain: bool, bar: Bar
) -> KerasPredictor:
    if not retrain:
        with suppress(InvalidSpec):  # there is none yet, or it was damaged
            return KerasPredictor.load(path)
    with bar(f"training {path.stem}") as step:
        network.train(made, dataset, path, step)
    return KerasPredictor.load(path)


def _fit(path: Path, dataset: Dataset, model: Predictor) -> Fitted:
    classes = model(dataset.x_train[:1]).shape[1]
    inputs = Inputs(
        shape=dataset.x_train.shape[1:], low=-0.5, high=0.5, classes=classes, class_names=dataset.class_names
    )
    # Only the counterfactuals are asked for from outside, too; teaching a surrogate takes seconds.
    x, y, taught = dataset.x_train, dataset.y_train, path.name == CF
    made = explainers.fit(SPECS[path.name], x, y=y, inputs=inputs, predictor=model, surrogate=taught)
    artifact.save(made, path)
    return artifact.load(path)


@contextmanager
def _servers(out: Path, bar: Bar) -> Iterator[list[Server]]:
    """The network with explainers beside it that follow its gradients, and explainers alone."""
    ports = free_ports(6)
    beside, alone = (
        [str(out / one.explainer) for one in QUESTIONS if one.beside == here] for here in (True, False)
    )
    commands = [
        (out / "model.log", [*beside, "--model", str(out / f"{MODEL}.keras"), *_PAGE]),
        (out / "explainers.log", [*alone, "--predictor", f"grpc://127.0.0.1:{ports[1]}/{MODEL}", *_PAGE]),
    ]
    with ExitStack() as stack:
        with bar("starting the servers"):
            servers = stack.enter_context(serving(commands, ports))
        try:
            yield servers
        except ExplainerError as error:
            logs = "\n".join(f"--- {server.log}\n{tail(server.log)}" for server in servers)
            raise ExplainerError(f"{error}\n{logs}") from error


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end this process as an exception does, so that servers are stopped."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
