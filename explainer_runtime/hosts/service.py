"""What every host of one explainer needs: load it, find its model, explain on a bounded pool of threads.

No server is known here: a host is a thin shell that turns its requests into a call of `Service.submit` and
errors into its own (`status.py`). The settings are the operator's, and come in whatever clothes a platform
gives them: Seldon and environment variables send every value as a string.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
from pydantic import Field

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidSpec, PredictorUnavailable
from explainer_runtime.explainers import Prepared, prepare
from explainer_runtime.explanation import Explanation
from explainer_runtime.predictors import connect
from explainer_runtime.solve import Progress
from explainer_runtime.spec import (
    Colocated,
    Endpoint,
    KerasModel,
    Limits,
    PredictorSettings,
    Value,
    parse,
    parse_predictor,
)


class Settings(Value):
    """What an operator configures for one served explainer."""

    artifact: Path
    """The explainer's directory."""
    predictor: Annotated[PredictorSettings, Field(discriminator="kind")]
    """Where the model being explained is."""
    limits: Limits = Limits()
    """What one request may use."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Explanations computed at the same time; more wait their turn."""


_FOREIGN = {"explainer_type", "init_parameters", "ssl_verify_path"}
"""Written by Seldon beside `infer_uri`. The artifact says the first two; the last goes with an https URI."""


def parse_settings(path: str, extra: Mapping[str, Any] | None) -> Settings:
    """The settings of an explainer at `path` from a host's free-form parameters.

    Args:
        path: The explainer's directory.
        extra: `predictor` (a mapping or a string, see `spec.parse_predictor`), or instead of it
            `model_path` (a Keras model to load here) or Seldon's `infer_uri`; `limits`; `threads`. Any
            value may be a string holding JSON.

    Raises:
        InvalidSpec: No predictor, two of them, an unknown key, or a value out of range.
    """
    extra = extra or {}
    values = {name: _unquoted(name, value) for name, value in extra.items() if name not in _FOREIGN}
    predictor = _predictor(values, extra.get("ssl_verify_path"))
    return parse(Settings, {"artifact": path, **values, "predictor": predictor}, "parameters.extra")


def _predictor(values: dict[str, Any], ca_path: str | None) -> PredictorSettings:
    named, local, uri = (values.pop(name, None) for name in ("predictor", "model_path", "infer_uri"))
    if named is not None and local is not None:
        raise InvalidSpec("parameters.extra: give predictor or model_path, not both")
    if named is not None:
        return parse_predictor(named)
    if local is not None:
        return parse(KerasModel, {"path": local}, "model_path")
    if uri is None:
        raise InvalidSpec(
            "parameters.extra.predictor: missing; give the address of the model being explained, "
            "such as grpc://host:port/model, or model_path to load it here"
        )
    predictor = parse_predictor(uri)
    if isinstance(predictor, Endpoint) and predictor.url.startswith("https") and ca_path:
        return predictor.model_copy(update={"ca_path": ca_path})
    return predictor


def _unquoted(name: str, value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise InvalidSpec(f"parameters.extra.{name}: expected JSON, {error}") from None
    return value


class Service:
    """One explainer, ready to be asked by many threads. Making it touches nothing; `load` does."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._prepared: Prepared | None = None
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="explain")

    def load(self) -> None:
        """Read the artifact and, for a model in this process, compile and run once.

        A model behind an endpoint is not asked anything: being ready does not depend on it. Neither does
        it on a colocated model, which may be loading at this moment.

        Raises:
            InvalidArtifact, InvalidSpec, MissingExtra: What the operator must change.
            PredictorError: A model in this process failed.
        """
        self.fitted = artifact.load(self.settings.artifact)
        with suppress(PredictorUnavailable):
            self._prepared = prepare(self.fitted, connect(self.settings.predictor))

    def explain(
        self,
        rows: np.ndarray,
        options: Mapping[str, Any] | None = None,
        *,
        cancel: Callable[[], bool] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Explanation:
        """The explanation of `rows` `(N, *S)`, computed in the calling thread; see `Prepared`."""
        prepared = self._current()
        return prepared(rows, options, limits=self.settings.limits, cancel=cancel, progress=progress)

    def submit(
        self, rows: np.ndarray, options: Mapping[str, Any] | None, cancel: Callable[[], bool]
    ) -> Future[Explanation]:
        """The same on the pool, in the caller's context (servers keep a request's labels there)."""
        context = contextvars.copy_context()
        return self._pool.submit(context.run, lambda: self.explain(rows, options, cancel=cancel))

    def close(self) -> None:
        """Let running explanations finish and take no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _current(self) -> Prepared:
        prepared = self._prepared
        if prepared is not None and not isinstance(self.settings.predictor, Colocated):
            return prepared
        # A colocated model may be another object by now: it was loaded late, or again.
        predictor = connect(self.settings.predictor)
        with self._lock:
            if self._prepared is None or self._prepared.predictor is not predictor:
                self._prepared = prepare(self.fitted, predictor)
            return self._prepared
