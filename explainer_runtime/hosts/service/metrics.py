"""What a served explainer counts, for Prometheus; every name is in this file.

They appear beside MLServer's own at `/metrics`, and on KServe's server at its; docs/serving.md has a table of
them, and docs/jobs.md of those of jobs.

Metrics are made on first use: with worker processes MLServer decides how to keep them before that.
"""

from __future__ import annotations

import threading
from functools import cache
from types import SimpleNamespace
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

from explainer_runtime.errors import InvalidPrediction, PredictorError, PredictorTimeout, PredictorUnavailable
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.service.status import fault
from explainer_runtime.jobs.store import Standing
from explainer_runtime.predictors.remote.pace import NoTurn

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_KINDS = {PredictorTimeout: "timeout", PredictorUnavailable: "unavailable", InvalidPrediction: "invalid"}


_making = threading.Lock()


def _metrics() -> SimpleNamespace:
    with _making:  # two explainers of one server may be the first at the same time
        return _made()


@cache
def _made() -> SimpleNamespace:
    each = ["model", "method"]

    def gauge(name: str, words: str, mode: Literal["livesum", "max", "min"]) -> Gauge:
        return Gauge(f"explainer_{name}", words, ["model"], multiprocess_mode=mode)

    return SimpleNamespace(
        requests=Counter("explainer_requests", "Requests by REST status.", [*each, "code"]),
        explanations=Counter("explainer_explanations", "Rows explained, by status.", [*each, "status"]),
        found=Counter("explainer_found", "Rows with a confirmed explanation.", each),
        cached=Counter("explainer_cached", "Requests answered with what was kept.", each),
        seconds=Histogram("explainer_seconds", "Seconds of computing one request.", each, buckets=_SECONDS),
        queue=Histogram(
            "explainer_queue_seconds", "Seconds of waiting for a turn.", ["model"], buckets=_SECONDS
        ),
        running=gauge("running", "Requests being computed.", "livesum"),
        waiting=gauge("waiting", "Requests that wait.", "livesum"),
        demand=gauge("demand", "Requests there ought to be room for.", "livesum"),
        calls=Counter("explainer_predictor_calls", "Calls of the model being explained.", each),
        rows=Counter("explainer_predictor_rows", "Rows it was asked about.", each),
        predictor_seconds=Counter("explainer_predictor_seconds", "Seconds waited for it.", each),
        errors=Counter("explainer_predictor_errors", "Its failures.", [*each, "kind"]),
        coalescing=gauge("coalescing_factor", "Asks that share a call.", "max"),
        agreement=gauge("student_agreement", "Surrogate's agreement.", "min"),
        other=gauge("other_model", "Another model answers.", "max"),
    )


class Meter:
    """Counts for one served explainer."""

    def __init__(self, model: str, method: str) -> None:
        self.model, self.method = model, method

    def answered(self, explanation: Explanation, seconds: float) -> None:
        """Count one request that was answered, `seconds` after it was its turn."""
        all_, each = _metrics(), (self.model, self.method)
        all_.requests.labels(*each, "200").inc()
        all_.seconds.labels(*each).observe(seconds)
        for status in explanation["status"].tolist():
            all_.explanations.labels(*each, status).inc()
        all_.cached.labels(*each).inc("cached" in explanation.meta)
        all_.found.labels(*each).inc(int(explanation["found"].sum()))
        all_.calls.labels(*each).inc(explanation.cost.calls)
        all_.rows.labels(*each).inc(explanation.cost.rows)
        all_.predictor_seconds.labels(*each).inc(explanation.cost.seconds)

    def failed(self, error: BaseException) -> None:
        """Count one request that was refused or failed."""
        all_, each = _metrics(), (self.model, self.method)
        all_.requests.labels(*each, str(fault(error).status)).inc()
        if isinstance(error, PredictorError) and not isinstance(error, NoTurn):  # no failure of the model
            kind = next((word for kind, word in _KINDS.items() if isinstance(error, kind)), "error")
            all_.errors.labels(*each, kind).inc()

    def waited(self, seconds: float) -> None:
        """Count what one request has waited for its turn."""
        _metrics().queue.labels(self.model).observe(seconds)

    def now(self, **gauges: float) -> None:
        """Say how it stands: values of gauges, by their names in `_metrics`."""
        for name, value in gauges.items():
            getattr(_metrics(), name).labels(self.model).set(value)


def jobs(standing: Standing, retried: int, expired: int) -> None:
    """Say how the queue of jobs stands, and count those given back to pause, and those that expired."""
    all_ = _of_jobs()
    all_.queued.set(standing.queued)
    all_.running.set(standing.running)
    all_.oldest.set(standing.age)
    all_.retries.inc(retried)
    all_.expired.inc(expired)


@cache
def _of_jobs() -> SimpleNamespace:
    def gauge(name: str, words: str) -> Gauge:
        return Gauge(f"explainer_jobs_{name}", words, multiprocess_mode="max")

    return SimpleNamespace(
        queued=gauge("queued", "Jobs that wait, of all servers that share them."),
        running=gauge("running", "Jobs that run, of all servers that share them."),
        oldest=gauge("oldest_seconds", "Seconds for which the oldest of those has waited."),
        retries=Counter("explainer_jobs_retries", "Jobs that this server gave back to try again later."),
        expired=Counter("explainer_jobs_expired", "Jobs that this server found too late to be begun."),
    )
