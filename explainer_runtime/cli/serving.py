"""What `serve` starts: from the words of a command line to a server that runs."""

from __future__ import annotations

import contextlib
import importlib
import logging
import logging.config
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from explainer_runtime import cache, methods
from explainer_runtime.cli import models
from explainer_runtime.complaints import json_object
from explainer_runtime.errors import InvalidInput, MissingExtra
from explainer_runtime.hosts.door.desk import Desk, opening
from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.hosts.door.traffic import Traffic
from explainer_runtime.hosts.page import File, Shown
from explainer_runtime.hosts.platform import arguments, deployment, unfitted
from explainer_runtime.hosts.platform.arguments import Line, number
from explainer_runtime.hosts.service import audit, logs, output
from explainer_runtime.hosts.service.settings import REQUIRED, required
from explainer_runtime.predictors.settings import Endpoint, parse_predictor
from explainer_runtime.spec import parse

_PORTS = {"http_port": "8080", "grpc_port": "8081", "metrics_port": "8082"}
_LINK = re.compile(r"(tcp|udp|sctp)://")

_log = logging.getLogger("explainer_runtime.serve")
_HOSTS = {"mlserver": ("launcher", "mlserver"), "kserve": ("kserve", "kserve")}
"""Module and extra of each host."""
_TLS = ("tls_cert", "tls_key", "tls_client_ca")


@dataclass(frozen=True)
class Request:
    """The command's arguments and options, as they were given; see `explainer-runtime serve --help`."""

    words: Sequence[str] | None
    model: str | None
    predictor: str | None
    logits: bool
    label: int | None
    name: Sequence[str] | None
    host: str | None
    http_port: str
    grpc_port: str
    metrics_port: str
    limits: str | None
    threads: int | None
    guard: str | None
    repository: Path | None
    methods: str | None
    sidecar: bool
    upstream_grpc: str | None
    server: str
    require_signature: Path | None
    audit: str | None
    cache: str | None
    jobs: str | None
    jobs_sink: str | None
    jobs_limits: str | None
    page: bool
    page_samples: bool
    log_format: str
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    json: bool


@dataclass(frozen=True)
class Ready:
    """What is about to be served, with everything checked that can be checked without serving it.

    Attributes:
        names: Names under which models are served.
        host: Address to listen on.
        ports: `http_port`, `grpc_port` and `metrics_port`.
        ignored: Words of the command line that mean nothing here.
        json_logs: Whether to write the log as JSON.
        serve: Serves until a signal says stop; the exit status.
    """

    names: list[str]
    host: str
    ports: Mapping[str, int]
    ignored: Sequence[str]
    json_logs: bool
    serve: Callable[[], int]


@contextlib.contextmanager
def prepared(request: Request) -> Iterator[Ready]:
    """Read everything that was said, and refuse what cannot be served.

    Copies of mounted artifacts live as long as the block.

    Raises:
        InvalidInput, InvalidSpec, InvalidArtifact: What the operator must change.
    """
    if request.methods:
        methods.admit(methods.listed(request.methods))
        os.environ[methods.ADMITTED] = request.methods  # for worker processes
    if request.require_signature:
        # Of whatever is loaded, in any process: no repository, no settings beside an artifact lift it.
        os.environ[REQUIRED] = str(request.require_signature.resolve())
        required()
    if request.audit == "":
        raise InvalidInput("expected a file, - or otel, got nothing", "audit")
    if request.audit:
        named = request.audit in ("-", "otel")
        os.environ[audit.SINK] = request.audit if named else str(Path(request.audit).resolve())
        audit.check()
    if request.cache is not None:
        os.environ[cache.PLACE] = request.cache
        cache.of(request.cache)
    line = arguments.read(request.words or [])
    contract = models.said(request.logits, request.label)
    predictor = request.predictor and models.written(request.predictor)
    if predictor and contract:
        predictor = models.with_contract(predictor, contract)
    if request.server not in _HOSTS:
        raise InvalidInput(f"expected mlserver or kserve, got {request.server!r}", "server")
    with tempfile.TemporaryDirectory(prefix="explainer-runtime-") as folder:
        plan: list[dict[str, Any]] = []
        if request.repository is None or request.words:
            plan = deployment.plan(
                line,
                scratch=Path(folder),
                model=request.model,
                predictor=predictor,
                contract=contract,
                names=request.name or [],
                extra=_extra(request, line),
                sidecar=request.sidecar,
                environment=os.environ,
            )
        ports, foreign = _ports(request, line)
        pod = "KUBERNETES_SERVICE_HOST" in os.environ  # the kubelet probes from outside
        host = request.host or ("0.0.0.0" if pod else "127.0.0.1")  # noqa: S104
        server = _host(*_HOSTS[request.server])  # what is not installed is said before anything is promised
        json_logs = request.log_format != "text"
        more: dict[str, Any] = {"host": host, **ports, "guard": _guard(request), "jobs": _jobs(request)}
        more["page"] = _page(request, plan)
        if request.server == "mlserver":
            more |= {"json_logs": json_logs, **_more(request, line, server)}
        names, ignored = [model["name"] for model in plan], (*line.ignored, *_unused(line, plan), *foreign)
        yield Ready(names, host, ports, ignored, json_logs, partial(server.serve, plan, **more))


def run(ready: Ready) -> int:
    """Serve until a signal says stop; the exit status. From here on stdout is stderr: servers log to it."""
    with output.one_voice():
        logging.config.dictConfig(logs.settings(ready.json_logs))
        rest, grpc = (f"{ready.host}:{ready.ports[name]}" for name in ("http_port", "grpc_port"))
        names = ", ".join(ready.names) or "no models yet"
        _log.info("loading: %s, to be served at http://%s and grpc://%s", names, rest, grpc)
        for word in ready.ignored:
            _log.warning("ignored, not known here: %s", word)
        for name in [name for name in os.environ if name.startswith("MLSERVER_MODEL_")]:
            del os.environ[name]  # read already; MLServer would apply them to every model
        return ready.serve()


def _host(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(f"explainer_runtime.hosts.{module}")
    except ModuleNotFoundError as error:
        wanted = f"explainer-runtime[{extra}]"
        raise MissingExtra(f"{error.name} is not installed; pip install '{wanted}'") from None


def _page(request: Request, plan: Sequence[Mapping[str, Any]]) -> Mapping[str, File]:
    """The files of the page, where it is to be served."""
    if not request.page and not request.page_samples:
        return {}
    explainers = [
        Path(model["parameters"]["uri"])
        for model in plan
        if request.page_samples and "KerasRuntime" not in str(model["implementation"])
    ]
    return Shown(bool(request.jobs), request.sidecar, explainers).files()


def _unused(line: Line, models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings of an explainer that nobody has looked at: those of a fitted one are in its artifact."""
    here = any(Path(model["parameters"]["uri"]).name == unfitted.FOLDER for model in models)
    kind = deployment.fitless(line.kind or "")
    names = unfitted.unused(kind, line.settings) if here and kind else line.settings
    return [f"--{name}={line.settings[name]}" for name in names]


def _ports(request: Request, line: Line) -> tuple[dict[str, int], list[str]]:
    """The ports, and variables that say none.

    For a Service called `mlserver-http` Kubernetes sets `MLSERVER_HTTP_PORT=tcp://10.0.0.7:80` in every pod
    of the namespace. Nobody has meant this server by it.
    """
    ports, foreign = {}, []
    for name, default in _PORTS.items():
        said = line.flags.get(name) or getattr(request, name)
        if _LINK.match(said):
            foreign.append(f"{name}={said}, which Kubernetes has made of a Service")
            said = default
        ports[name] = arguments.port({name: said}, name)
    return ports, foreign


def _extra(request: Request, line: Line) -> dict[str, Any]:
    """Settings of every explainer: those of the command, and the concurrency that KServe bounds.

    KServe passes a service's `containerConcurrency` as `--workers`: how many requests it sends at a time.
    """
    chosen: dict[str, Any] = {}
    if request.limits is not None:
        chosen["limits"] = _json_object(request.limits, "limits")
    if request.threads is not None or "workers" in line.flags:
        chosen["threads"] = request.threads or min(64, number(line.flags, "workers", 1))
    return chosen


def _more(request: Request, line: Line, launcher: Any) -> dict[str, Any]:
    """Arguments that only MLServer's launcher takes."""
    said = os.environ.get("MLSERVER_PARALLEL_WORKERS", "0")
    workers = int(said) if said.isdecimal() else 0
    if workers and os.environ.get(audit.SINK) == "-":  # theirs is the log
        raise InvalidInput("worker processes have no stdout of their own; name a file", "audit")
    if workers and request.jobs:
        raise InvalidInput("jobs are done in this process; expected MLSERVER_PARALLEL_WORKERS=0", "jobs")
    return {
        "repository": request.repository,
        "workers": workers,
        "upstream": launcher.Upstream(*_upstream(request, line)) if request.sidecar else None,
    }


def _guard(request: Request) -> Guard:
    """The operator's limits of the whole server, and its certificates, which KServe has variables for."""
    guard = _json_object(request.guard, "guard") if request.guard is not None else {}
    guard |= {name: getattr(request, name) for name in _TLS if getattr(request, name) is not None}
    if request.server == "kserve":
        said = {name: os.environ.get(f"KSERVE_{name.upper()}_FILE") for name in ("tls_cert", "tls_key")}
        guard = {**{name: file for name, file in said.items() if file}, **guard}
    return parse(Guard, guard, "guard")


def _jobs(request: Request) -> Callable[[Traffic], Desk] | None:
    """What opens the desk of jobs, where the operator says where they are kept."""
    if request.jobs is None:
        if request.jobs_sink or request.jobs_limits:
            raise InvalidInput("needs --jobs DIR or --jobs postgresql://... beside it", "jobs-sink")
        return None
    if request.jobs == "":
        raise InvalidInput("expected a directory or postgresql://..., got nothing", "jobs")
    limits = _json_object(request.jobs_limits, "jobs-limits") if request.jobs_limits else None
    return opening(request.jobs, request.jobs_sink or None, limits)


def _upstream(request: Request, line: Line) -> tuple[str, str | None, str | None]:
    """Where a sidecar's model is: REST, gRPC, and its name if that is known."""
    host = line.flags.get("predictor_host", "").rpartition("://")[2]
    if not host and request.predictor is not None:
        settings = parse_predictor(models.written(request.predictor))
        url = settings.url if isinstance(settings, Endpoint) else ""
        host = urlsplit(url).netloc if url.startswith("http://") else ""
    if not host:
        raise InvalidInput(
            "a sidecar needs the model's REST port: --predictor_host=localhost:PORT", "sidecar"
        )
    return f"http://{host}", request.upstream_grpc, line.flags.get("model_name")


def _json_object(text: str, name: str) -> dict[str, Any]:
    return json_object(text, f"--{name}", lambda message: InvalidInput(message, name))
