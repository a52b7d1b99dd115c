"""`explainer-runtime serve`: every option of a server in one place, and what each is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from explainer_runtime.cli.output import tell
from explainer_runtime.cli.words import Address, Json, Label, Logits

CONTEXT = {"ignore_unknown_options": True, "auto_envvar_prefix": "EXPLAINER_RUNTIME"}
"""Of its command: platforms append flags, and set variables."""


def serve(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARTIFACT]...",
            help="Directories of fitted explainers; flags of KServe and Seldon may stand here, too.",
            envvar="EXPLAINER_RUNTIME_ARTIFACT",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A .keras file or SavedModel; served, too, and explained here."),
    ] = None,
    predictor: Address = None,
    logits: Logits = False,
    label: Label = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name of each explainer, in order, then of the model. Default: file names."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on. Default: 127.0.0.1; in a pod 0.0.0.0.", envvar="MLSERVER_HOST"
        ),
    ] = None,
    http_port: Annotated[
        str, typer.Option(metavar="PORT", help="Port of REST.", envvar="MLSERVER_HTTP_PORT")
    ] = "8080",
    grpc_port: Annotated[
        str, typer.Option(metavar="PORT", help="Port of gRPC.", envvar="MLSERVER_GRPC_PORT")
    ] = "8081",
    metrics_port: Annotated[
        str, typer.Option(metavar="PORT", help="Port of metrics.", envvar="MLSERVER_METRICS_PORT")
    ] = "8082",
    limits: Annotated[
        str | None, typer.Option(metavar="JSON", help="What one request may use: max_batch, max_seconds, ...")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=64, help="Explanations computed at the same time.")
    ] = None,
    guard: Annotated[
        str | None, typer.Option(metavar="JSON", help="Limits of the whole server: max_body, token_file, ...")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folders with a model-settings.json each, served too.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Methods of other packages to admit, with commas.")
    ] = None,
    sidecar: Annotated[
        bool, typer.Option("--sidecar", help="Pass on to the model what is not for an explainer.")
    ] = False,
    upstream_grpc: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="gRPC port of a sidecar's model.")
    ] = None,
    server: Annotated[
        str, typer.Option(metavar="HOST", help="mlserver, or kserve for its SDK.")
    ] = "mlserver",
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM certificate chain of REST and gRPC.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="PEM private key of it.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM authorities of client certificates, asked for.")
    ] = None,
    require_signature: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM key or certificates by which every explainer must be signed."),
    ] = None,
    audit: Annotated[
        str | None,
        typer.Option(metavar="SINK", help="Record each explanation: a file, - for stdout, or otel."),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR[:SIZE]", help="Keep answers there, and give them again to the same question."
        ),
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="Take explanations that outlive their connection; kept there, or in postgresql://...",
        ),
    ] = None,
    jobs_sink: Annotated[
        str | None, typer.Option(metavar="URL", help="Post a CloudEvent there when one has ended.")
    ] = None,
    jobs_limits: Annotated[
        str | None, typer.Option(metavar="JSON", help="How many, how large, how long: owner_jobs, keep, ...")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Serve a page to look at, too: a picture in, explanations out.")
    ] = False,
    page_samples: Annotated[
        bool,
        typer.Option("--page-samples", help="Let it offer reference rows that explainers keep, to try."),
    ] = False,
    log_format: Annotated[str, typer.Option(metavar="FORMAT", help="json or text, on stderr.")] = "json",
    json: Json = False,
) -> None:
    """Serve explainers, a Keras model, or both in one process, over V2 (REST and gRPC).

    Every option may be a variable, such as EXPLAINER_RUNTIME_PREDICTOR. What KServe and Seldon append or set
    is understood; flags that nobody knows are reported and ignored.
    """
    from explainer_runtime.cli import serving

    with serving.prepared(serving.Request(**ctx.params)) as ready:
        if json:
            tell(json, {"models": ready.names, "host": ready.host, **ready.ports}, str)
        status = serving.run(ready)
    raise typer.Exit(status)
