"""CloudEvents 1.0 for an operator's sink: that an explanation was completed, or failed.

In binary mode over HTTP: attributes are headers, the body says the same as the job does, without a row. The
sink is told at least once: again and again, by any server, until it says 2xx or the job has expired. An event
that comes twice has the same `ce-source` and `ce-id`.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import httpcore
import orjson

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.jobs.store import Job

TYPE = "io.github.explainer-runtime.explanation"
_SECONDS = 5.0


class Sink:
    """Where events go.

    Raises:
        InvalidSpec: The URL is none of `http://` or `https://`.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and parts.hostname and httpcore.URL(url)
        except (ValueError, TypeError):  # a port that is none, letters that no URL has
            known = None
        if not known:
            raise InvalidSpec(f"jobs_sink: expected a URL http://... or https://..., got {url!r}")
        self._url = url
        self._pool = httpcore.ConnectionPool(ssl_context=ssl.create_default_context(), max_connections=1)

    def post(self, job: Job) -> bool:
        """Whether the sink took the event of a job that has ended; blocks for some seconds at most."""
        attributes = {
            "ce-specversion": "1.0",
            "ce-id": job.id,
            "ce-source": f"/v2/models/{quote(job.model)}",
            "ce-type": f"{TYPE}.{'completed' if job.state == 'done' else 'failed'}",
            "ce-subject": job.id,
            "ce-time": _written(job.ended or job.created),
            "content-type": "application/json",
        }
        told = {"id": job.id, "model": job.model, "state": job.state, "status": job.status}
        try:
            with self._pool.stream(
                "POST",
                self._url,
                headers=[*attributes.items()],
                content=orjson.dumps({**told, "created": _written(job.created)}),
                extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), _SECONDS)},
            ) as response:  # whatever it says besides is not read
                return 200 <= response.status < 300
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
            return False

    def close(self) -> None:
        """Let the connection go."""
        self._pool.close()


def _written(seconds: float) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
