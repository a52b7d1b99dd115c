"""What every host of one explainer needs: load it, find its model, explain when it is the caller's turn.

No server is known here: a host is a thin shell that turns requests into what is asked (`asked.py`) and errors
into its own (`status.py`). Admission, the deadline, metrics and spans are therefore the same on all.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any
from weakref import WeakSet

import numpy as np

from explainer_runtime import artifact, cache
from explainer_runtime.driver import Progress
from explainer_runtime.errors import Cancelled, ExplainerError, PredictorUnavailable
from explainer_runtime.explainers import Prepared, check, prepare
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.service import audit
from explainer_runtime.hosts.service.admission import Admission
from explainer_runtime.hosts.service.caller import caller
from explainer_runtime.hosts.service.metrics import Meter
from explainer_runtime.hosts.service.settings import Settings, required
from explainer_runtime.hosts.service.tracing import Traced, span
from explainer_runtime.predictors import Predictor, connect
from explainer_runtime.predictors.settings import Colocated, KerasModel
from explainer_runtime.spec import Limits


class Service:
    """One explainer, ready to be asked by many. Making it touches nothing; `load` does.

    Args:
        settings: What an operator has configured.
        name: Under which it is served, for metrics.
    """

    def __init__(self, settings: Settings, name: str = "") -> None:
        self.settings, self.name = settings, name
        self._lock = threading.Lock()
        self._prepared: Prepared | None = None
        self._expected = _FIRST_GUESS
        # Expectations may be wrong by half, and what has waited must still have time to be computed.
        patience = settings.limits.max_seconds / 3
        self._admission = Admission(
            settings.threads, settings.queue, settings.queue_rows, patience, self._tell_load
        )

    def load(self) -> None:
        """Read the artifact and, for a model in this process, compile and run once.

        A model behind an endpoint is not asked anything: being ready does not depend on it. Neither does
        it on a colocated model, which may be loading at this moment.

        Raises:
            InvalidArtifact, InvalidSpec, MissingExtra: What the operator must change.
            PredictorError: A model in this process failed.
        """
        # In a thread that computes: those which TensorFlow starts inherit its priority.
        self._admission.run(self._load).result()
        _loaded.add(self)

    def check(self, rows: np.ndarray, options: Mapping[str, Any] | None) -> None:
        """Refuse what would be refused when it is its turn; see `explainers.check`."""
        try:
            check((self._prepared or self).fitted, rows, options, self.settings.limits)
        except ExplainerError as error:
            self.refused(error)
            raise

    @property
    def digest(self) -> str:
        """SHA-256 of the artifact; see `artifact.verify`."""
        return self._report.digest

    def submit(
        self,
        rows: np.ndarray,
        options: Mapping[str, Any] | None,
        cancel: Callable[[], bool],
        *,
        client: str = "",
        progress: Callable[[Progress], None] | None = None,
        give_way: Callable[[], None] | None = None,
    ) -> Future[Explanation]:
        """The explanation of `rows` `(N, *S)` when it is `client`'s turn; see `Prepared`.

        It is computed in the caller's context: a request's labels are there.

        What it waited for its turn is taken off its time: an answer comes within the limit from now.

        Raises:
            Overloaded: There is no room for it.
        """
        context = contextvars.copy_context()

        def work(waited: float) -> Explanation:
            return context.run(self._answer, rows, options, cancel, progress, waited)

        try:
            return self._admission.submit(work, self._expected * len(rows), client, give_way)
        except ExplainerError as error:
            if give_way is None:  # a job has all day, and asks again
                self.refused(error)
            raise

    def refused(self, error: BaseException) -> None:
        """Count a request that was refused before it came to `submit`."""
        self._meter.failed(error)

    @property
    def free(self) -> int:
        """How many threads have nothing to do."""
        return self._admission.free

    def close(self) -> None:
        """Let running explanations finish and take no more; let go of connections."""
        _loaded.discard(self)
        self._admission.close()
        if self._prepared is not None:
            self._prepared.close()

    @cached_property
    def _meter(self) -> Meter:
        return Meter(self.name, self.fitted.spec.kind)

    def _load(self) -> None:
        path, trust = self.settings.artifact, required()
        self._report = artifact.verify(path, trust=trust)
        self.fitted = artifact.load(path, digest=self._report.digest, trust=trust)  # what was verified
        self._audited = audit.check()
        self._cache = cache.of(os.environ.get(cache.PLACE))
        with suppress(PredictorUnavailable):
            self._prepared = prepare(self.fitted, self._connect())
            if self._prepared.dear:
                _log.warning("%s: %s", self.name, self._prepared.dear)
        for name in ("surrogate_agreement", "student_agreement"):  # the second is what 0.1.0 called it
            if name in self.fitted.arrays:
                self._meter.now(agreement=float(self.fitted.arrays[name][0]))
        # From the start, for whoever scales on it: to KEDA a series that is not there is an error.
        self._tell_load(0, 0, 0)

    def _answer(
        self,
        rows: np.ndarray,
        options: Mapping[str, Any] | None,
        cancel: Callable[[], bool],
        progress: Callable[[Progress], None] | None,
        waited: float,
    ) -> Explanation:
        self._meter.waited(waited)
        start = time.monotonic()
        limits = _less(self.settings.limits, options, waited)
        try:
            if cancel():
                raise Cancelled("nobody waits for this explanation any more")
            with span("explain", method=self.fitted.spec.kind, rows=len(rows)):
                prepared = self._current()
                with self._recorded(prepared, (rows, options, limits)) as answer:
                    how: dict[str, Any] = {"limits": limits, "cancel": cancel, "progress": progress}
                    if self._cache:
                        digest = self._report.digest
                        explanation = self._cache.explain(prepared, digest, rows, options, **how)
                    else:
                        explanation = prepared(rows, options, **how)
                    answer.append(explanation)
        except BaseException as error:
            self._meter.failed(error)
            raise
        self._meter.answered(explanation, time.monotonic() - start)
        self._meter.now(other=prepared.strangeness.warning is not None)
        if prepared.merging is not None and prepared.merging.sent:
            self._meter.now(coalescing=prepared.merging.asked / prepared.merging.sent)
        if not explanation.meta.get("cached"):
            self._expected += (explanation.cost.rows / len(rows) - self._expected) * _NEWS
        return explanation

    @contextmanager
    def _recorded(
        self, prepared: Prepared, asked: tuple[np.ndarray, Mapping[str, Any] | None, Limits]
    ) -> Iterator[list[Explanation]]:
        """Write down what is explained within, or what went wrong, where that is asked for."""
        start = time.monotonic()
        answer: list[Explanation] = []
        failure: BaseException | None = None
        try:
            yield answer
        except BaseException as error:
            failure = error
            raise
        finally:
            if self._audited:
                came = failure or answer[0]
                seconds = time.monotonic() - start
                audit.write(audit.record(self.name, self._report, prepared, caller(), asked, came, seconds))

    def _tell_load(self, running: int, waiting: int, demand: int) -> None:
        self._meter.now(running=running, waiting=waiting, demand=demand)

    def _connect(self) -> Predictor:
        predictor = connect(self.settings.predictor)
        remote = not isinstance(self.settings.predictor, Colocated | KerasModel)
        return Traced(predictor) if remote else predictor

    def _current(self) -> Prepared:
        prepared = self._prepared
        if prepared is not None and not isinstance(self.settings.predictor, Colocated):
            return prepared
        # A colocated model may be another object by now: it was loaded late, or again.
        predictor = self._connect()
        with self._lock:
            if self._prepared is None or self._prepared.predictor is not predictor:
                self._prepared = prepare(self.fitted, predictor)
            return self._prepared


def free() -> int:
    """How many threads have nothing to do, of all explainers that this process serves."""
    return sum(service.free for service in list(_loaded))


def names() -> set[str]:
    """Names of all explainers that this process serves."""
    return {service.name for service in list(_loaded)}


_log = logging.getLogger(__name__)
_loaded: WeakSet[Service] = WeakSet()
_FIRST_GUESS = 1000.0
"""Rows that explaining one row is expected to take before anything is known."""
_NEWS = 0.2
"""Weight of the newest request in what is expected."""


def _less(limits: Limits, options: Mapping[str, Any] | None, waited: float) -> Limits:
    """The limits of a request that has waited, whose caller may have asked for less time."""
    asked = (options or {}).get("max_seconds")
    seconds = limits.max_seconds
    if isinstance(asked, int | float) and 0 < asked < seconds:
        seconds = float(asked)
    return limits.model_copy(update={"max_seconds": max(1e-3, seconds - waited)})
