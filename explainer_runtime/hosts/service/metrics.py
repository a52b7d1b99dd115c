"""What a served explainer counts, for Prometheus; every name is in this file.

They appear beside MLServer's own at `/metrics`, and on KServe's server at its. `model` is the name under
which an explainer is served, `method` its kind.

| name | labels | what |
| --- | --- | --- |
| explainer_requests_total | model, method, code | requests, by REST status (also those over gRPC) |
| explainer_explanations_total | model, method, status | rows explained: ok, not_found, budget_exhausted |
| explainer_found_total | model, method | rows with an explanation that the model has confirmed |
| explainer_seconds | model, method | histogram: seconds of computing one request |
| explainer_queue_seconds | model | histogram: seconds a request waited for its turn |
| explainer_running, explainer_waiting | model | requests now |
| explainer_demand | model | requests that run, wait, or find no room; what to scale on |
| explainer_predictor_calls_total | model, method | calls of the model being explained |
| explainer_predictor_rows_total | model, method | rows it was asked about |
| explainer_predictor_seconds_total | model, method | seconds waited for it |
| explainer_predictor_errors_total | model, method, kind | failures: error, invalid, unavailable, timeout |
| explainer_coalescing_factor | model | asks that shared one call, on average; 1 is none |
| explainer_other_model | model | 1 while another model answers than the one that it was fitted to, else 0 |
| explainer_student_agreement | model | share of untaught rows where surrogate and model agreed, at fit |

Metrics are made on first use: with worker processes MLServer decides how to keep them before that.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from explainer_runtime.errors import InvalidPrediction, PredictorError, PredictorTimeout, PredictorUnavailable
from explainer_runtime.explanation import Explanation
from explainer_runtime.hosts.service.status import fault
from explainer_runtime.predictors.remote.pace import NoTurn

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_KINDS = {PredictorTimeout: "timeout", PredictorUnavailable: "unavailable", InvalidPrediction: "invalid"}


class _Metrics(NamedTuple):
    requests: Counter
    explanations: Counter
    found: Counter
    seconds: Histogram
    queue: Histogram
    running: Gauge
    waiting: Gauge
    demand: Gauge
    calls: Counter
    rows: Counter
    predictor_seconds: Counter
    errors: Counter
    coalescing: Gauge
    agreement: Gauge
    other: Gauge


@cache
def _metrics() -> _Metrics:
    each = ["model", "method"]
    return _Metrics(
        Counter("explainer_requests", "Requests by REST status.", [*each, "code"]),
        Counter("explainer_explanations", "Rows explained, by status.", [*each, "status"]),
        Counter("explainer_found", "Rows with a confirmed explanation.", each),
        Histogram("explainer_seconds", "Seconds of computing one request.", each, buckets=_SECONDS),
        Histogram("explainer_queue_seconds", "Seconds of waiting for a turn.", ["model"], buckets=_SECONDS),
        Gauge("explainer_running", "Requests being computed.", ["model"], multiprocess_mode="livesum"),
        Gauge("explainer_waiting", "Requests that wait.", ["model"], multiprocess_mode="livesum"),
        Gauge(
            "explainer_demand", "Requests there ought to be room for.", ["model"], multiprocess_mode="livesum"
        ),
        Counter("explainer_predictor_calls", "Calls of the model being explained.", each),
        Counter("explainer_predictor_rows", "Rows it was asked about.", each),
        Counter("explainer_predictor_seconds", "Seconds waited for it.", each),
        Counter("explainer_predictor_errors", "Its failures.", [*each, "kind"]),
        Gauge("explainer_coalescing_factor", "Asks that share a call.", ["model"], multiprocess_mode="max"),
        Gauge("explainer_student_agreement", "Surrogate's agreement.", ["model"], multiprocess_mode="min"),
        Gauge("explainer_other_model", "Another model answers.", ["model"], multiprocess_mode="max"),
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

    def load(self, running: int, waiting: int, demand: int) -> None:
        """Say how many requests run and wait now, and how many there ought to be room for."""
        _metrics().running.labels(self.model).set(running)
        _metrics().waiting.labels(self.model).set(waiting)
        _metrics().demand.labels(self.model).set(demand)

    def coalesced(self, factor: float) -> None:
        """Say how many asks share one call."""
        _metrics().coalescing.labels(self.model).set(factor)

    def other_model(self, another: bool) -> None:
        """Say whether the model is another than the one that the explainer was fitted to."""
        _metrics().other.labels(self.model).set(another)

    def agreed(self, share: float) -> None:
        """Say in what share of rows surrogate and model agreed."""
        _metrics().agreement.labels(self.model).set(share)
