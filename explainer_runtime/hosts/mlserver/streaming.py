"""`/infer_stream`: progress while an explanation is computed, then the explanation, as server-sent events.

MLServer has this route and sends the status before it asks the model, so that a refusal breaks the
connection. Here the first event is waited for: what fails before it has a status and an error body like
everywhere else, what fails after it becomes the last event, `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse

from explainer_runtime.errors import InvalidInput
from explainer_runtime.hosts.mlserver import infer, v2types
from explainer_runtime.hosts.mlserver.refusals import answer

_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def install(app: FastAPI, data_plane: Any) -> None:
    """Put these routes before MLServer's own."""

    async def infer_stream(
        payload: dict[str, Any], model_name: str, model_version: str | None = None
    ) -> Response:
        try:
            read = infer.request_of(payload)
        except InvalidInput as error:
            return answer(v2types.refusal(error))
        events = _Events(data_plane, read, model_name, model_version)
        first = await events.next()
        if isinstance(first, MLServerError):
            return answer(first)
        return StreamingResponse(events.encoded(first), headers=_HEADERS, media_type="text/event-stream")

    infer.answer_first(app, infer_stream, "_stream")


class _Events:
    """Answers of one stream, made by a task of their own: a context variable that MLServer sets there must
    be reset there, and a response is sent by another task than the one that made it."""

    def __init__(self, data_plane: Any, payload: InferenceRequest, *name: str | None) -> None:
        self._made: asyncio.Queue[InferenceResponse | MLServerError | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._make(data_plane, payload, *name))

    async def next(self) -> InferenceResponse | MLServerError | None:
        """The next answer, the error that ended the stream, or None at its end."""
        try:
            return await self._made.get()
        except asyncio.CancelledError:
            self._task.cancel()
            raise

    async def encoded(self, event: InferenceResponse | MLServerError | None) -> AsyncIterator[bytes]:
        """Events as they are sent, beginning with `event`."""
        try:
            while event is not None:
                if isinstance(event, MLServerError):
                    yield b"event: error\ndata: " + answer(event).body + b"\n\n"
                    return
                yield b"data: " + await infer.in_json(event) + b"\n\n"
                event = await self.next()
        finally:
            self._task.cancel()

    async def _make(self, data_plane: Any, payload: InferenceRequest, *name: str | None) -> None:
        async def payloads() -> AsyncIterator[InferenceRequest]:
            yield payload

        try:
            async for response in data_plane.infer_stream(payloads(), *name):
                if response.parameters is not None:
                    response.parameters.headers = None  # events have none
                self._made.put_nowait(response)
            self._made.put_nowait(None)
        except MLServerError as error:  # the data plane raises nothing else, see refusals.py
            self._made.put_nowait(error)
