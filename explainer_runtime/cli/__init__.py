"""`explainer-runtime`: fit, explain, batch, serve, inspect, sign, verify, pack, replay, demo.

This file is the table of contents: each command says what it takes, does its work in a few lines, and tells
the result once, as words for people or as one JSON object (`--json`). Whatever takes long to import is
imported inside the command, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import typer

from explainer_runtime.cli import batch, evidence, jobs
from explainer_runtime.cli.output import Commands, import_tensorflow_quietly, progress, say, tell
from explainer_runtime.cli.serve import CONTEXT, serve
from explainer_runtime.cli.words import Address, Artifact, Json, Label, Later, Logits, ModelFile, Resize

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the command line."""
    # NumPy's library for matrices starts a thread for each core and lets them spin: three times the seconds
    # where others compute on the same cores, for a tenth fewer where nobody does. It reads this on import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    app()


def _version(asked: bool) -> None:
    if asked:
        from explainer_runtime import __version__

        typer.echo(f"explainer-runtime {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Explain image classifiers: fit an explainer once, save it as a directory, serve it anywhere."""


@app.command()
def fit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="YAML or JSON with `kind` and settings.")],
    out: Annotated[Path, typer.Option(help="Directory to write the explainer to.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Training rows: a .npz with x_train or x, a .npy, or fashion_mnist or mnist. Methods that "
            "need none do with --range, and --shape where the model does not say it."
        ),
    ] = None,
    shape: Annotated[
        str | None, typer.Option(metavar="SIZES", help="Shape of a row, such as 224,224,3; without --data.")
    ] = None,
    model: ModelFile = None,
    predictor: Address = None,
    logits: Logits = False,
    label: Label = None,
    class_names: Annotated[
        str | None, typer.Option(help="Names separated by commas, or @FILE with one a line.")
    ] = None,
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range",
            metavar="LOW HIGH",
            help="Values the model takes; bytes are scaled to it. Default: as the data; -0.5 0.5 by name.",
        ),
    ] = None,
    autoencoder: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A .keras file that rebuilds rows; what gamma weighs, or plausibility."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|LAYER", help="A .keras file that places rows, or a layer of the model, or auto."
        ),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A .keras file that makes rows of codes; for space: latent."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="channels_last or channels_first; default: as the shape shows."),
    ] = None,
    resize: Resize = None,
    force: Annotated[
        bool, typer.Option("--force", help="Fit even if the model is wrong about most of the rows.")
    ] = False,
    surrogate: Annotated[
        bool,
        typer.Option(
            help="Teach a small stand-in of the model, to explain it cheaply where only an endpoint is there."
        ),
    ] = True,
    json: Json = False,
) -> None:
    """Fit an explainer to a model and its data, and save it."""
    from explainer_runtime import artifact, explainers
    from explainer_runtime.cli import answers, models, training
    from explainer_runtime.spec import Inputs, parse

    # Everything is looked at before anything that takes seconds is imported, or asked.
    settings = training.read_spec(spec)
    artifact.check_place(out)
    said = models.chosen(model, predictor, **models.said(logits, label))
    for network in filter(None, (autoencoder, training.file_of(encoder), decoder)):
        models.check(network)
    rows = training.read_training(data, value_range) if data is not None else None
    if rows is not None:
        say(f"{data}: {rows.seen()}")
    connected = models.connected(said)
    rows = rows or training.without_data(shape, value_range, connected)
    with progress("fitting") as step:
        contract = {
            "shape": rows.shape,
            "low": rows.low,
            "high": rows.high,
            "classes": connected(rows.probe()).shape[1],
            "class_names": training.read_names(class_names) or rows.class_names,
            **({"layout": layout} if layout else {}),
            **({"resize": resize} if resize else {}),
        }
        fitted = explainers.fit(
            settings,
            rows.x,
            y=rows.y if label is None else None,
            predictor=connected,
            inputs=parse(Inputs, contract, "inputs"),
            autoencoder=training.read_network(autoencoder),
            encoder=training.read_encoder(encoder),
            decoder=training.read_network(decoder),
            force=force,
            surrogate=surrogate,
            progress=step,
        )
        artifact.save(fitted, out)
    report = artifact.verify(out)
    tell(json, answers.described(out, report), lambda: answers.card(f"Fitted {out}", report))


@app.command()
def explain(
    path: Artifact,
    input_path: Annotated[
        Path,
        typer.Option("--input", metavar="FILE", help="An image, a .npz or .npy, or a V2 request as .json."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to write the answer: .html, .png, .json or .npz.")
    ] = None,
    model: ModelFile = None,
    predictor: Address = None,
    logits: Logits = False,
    label: Label = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="This explainer served elsewhere: http://host:port/name."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="An option of the method, such as seed=1; segments=@FILE.npy."
        ),
    ] = None,
    chosen: Annotated[
        str | None, typer.Option("--rows", metavar="LIST", help="Which rows of the input, such as 0,3,8:12.")
    ] = None,
    resize: Resize = None,
    later: Later = False,
    json: Json = False,
) -> None:
    """Explain images with a fitted explainer."""
    from explainer_runtime import artifact, explainers
    from explainer_runtime.artifact.directory import MODELS
    from explainer_runtime.cli import answers, models, remote, requests
    from explainer_runtime.fitted import check_rows
    from explainer_runtime.hosts.platform import needs
    from explainer_runtime.methods import parse_spec
    from explainer_runtime.spec import Inputs, Limits, parse, parse_options

    # Everything is looked at before anything that takes seconds is imported.
    encode = answers.encoder(out) if out else None
    report = artifact.verify(path)
    spec, inputs = parse_spec(report.manifest["spec"]), parse(Inputs, report.manifest["inputs"], "inputs")
    if out:
        answers.check(out, inputs)
    contract = parse(Inputs, {**dict(inputs), **({"resize": resize} if resize else {})}, "inputs")
    request = requests.read_rows(input_path, contract, spec.kind).select(chosen)
    x, sent = request.x, request.sent
    options = {**request.options, **requests.read_options(option or [])}
    if later:
        jobs.check(server, out)
    if server is not None:
        models.refuse(model, predictor, logits, label)
    else:
        parse_options(spec, options)
        check_rows(x, inputs, len(x))
        needs.check(report, str(path))
        connected = models.connected(models.chosen(model, predictor, **models.said(logits, label)))
    if later and server is not None:
        jobs.show_one(json, remote.submit(server, x, options))
        raise typer.Exit
    if any(name.startswith(f"{MODELS}/") for name in report.files):
        import_tensorflow_quietly()
    fitted = artifact.load(path, digest=report.digest)
    if server is not None:
        asked = None
        with progress("explaining", quiet=True) as step:
            explanation = remote.explain(server, x, options, step)
    else:
        prepared = explainers.prepare(fitted, connected, warm=False)
        if prepared.dear:
            say(prepared.dear)
        # Nobody else waits here: only what the caller asks for limits the work.
        limits = Limits(max_batch=max(1, len(x)), max_rows=10**9, max_calls=10**9, max_seconds=10**6)
        with progress("explaining", quiet=True) as step:
            explanation = prepared(x, options, limits=limits, progress=lambda at: step(at.fraction))
        asked = prepared.predictor
    if sent:
        said = {**explanation.meta, "pictures": [one.said() for one in sent]}
        explanation = dataclasses.replace(explanation, meta=said)
    if out and encode:
        about = answers.origin(path, input_path, asked, server)
        out.write_bytes(encode(explanation, x, fitted, sent, about))
    summary = answers.summary(explanation, inputs)
    document = {"artifact": str(path), **summary, "out": str(out) if out else None}
    tell(json, document, lambda: answers.explained(summary, out))


app.command(context_settings=CONTEXT)(serve)


@app.command()
def inspect(
    path: Artifact,
    needs: Annotated[
        bool, typer.Option("--needs", help="Show which extras, and which image, it needs to be served.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what a fitted explainer is: method, settings, input contract, files."""
    from explainer_runtime import artifact
    from explainer_runtime.cli import answers
    from explainer_runtime.hosts.platform import needs as hosted

    report = artifact.verify(path)
    if needs:
        found = hosted.of(report)
        document = {
            "artifact": str(path),
            "extras": dict(found.reasons),
            "image": {"target": found.target, "tensorflow": found.tensorflow},
        }
        tell(json, document, lambda: answers.needed(str(path), found.reasons, found.target))
        return
    document = {**answers.described(path, report), "manifest": report.manifest}
    tell(json, document, lambda: answers.card(str(path), report, settings=True))


for command in (batch.batch, evidence.sign, evidence.verify, evidence.pack, evidence.replay):
    app.command()(command)
app.add_typer(jobs.app, name="jobs")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory for models, explainers, logs and the report.")] = Path(
        "demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers up until Ctrl-C.")] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train the network again.")] = False,
    json: Json = False,
) -> None:
    """Train, fit, serve, explain and check, from nothing to a page of explanations."""
    from explainer_runtime.hosts.platform import needs

    needs.require("the demo", "tensorflow", "mlserver")
    say("loading Keras ...")
    import_tensorflow_quietly()
    from explainer_runtime.cli import walk

    raise typer.Exit(walk.walk(out, keep=keep, retrain=retrain, json=json))
