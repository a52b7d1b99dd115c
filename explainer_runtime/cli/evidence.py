"""Commands by which others believe an explainer, or an explanation: sign, verify, pack, replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from explainer_runtime.cli.output import progress, tell
from explainer_runtime.cli.words import Address, Artifact, Json, Label, Logits, ModelFile
from explainer_runtime.errors import InvalidInput


def sign(
    path: Artifact,
    key: Annotated[Path, typer.Option(metavar="FILE", help="PEM private key, P-256, P-384 or P-521.")],
    certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM certificate of the key, then those between it and a root."),
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(envvar="EXPLAINER_RUNTIME_KEY_PASSWORD", hidden=True, help="Of an encrypted key."),
    ] = None,
    json: Json = False,
) -> None:
    """Sign every file of a fitted explainer, as OpenSSF Model Signing says; writes model.sig into it."""
    from explainer_runtime import artifact
    from explainer_runtime.cli import answers

    report = artifact.sign(path, key, certificate, password=password)
    tell(json, answers.described(path, report), lambda: answers.card(f"{path} is signed", report))


def verify(
    path: Artifact,
    digest: Annotated[
        str | None, typer.Option(metavar="SHA256", help="Digest that it must have, as printed by fit.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM public key by which it must be signed.")
    ] = None,
    certificate_chain: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM roots, and what is between, to which its signer must lead."),
    ] = None,
    json: Json = False,
) -> None:
    """Check that a directory is exactly what was saved, and who signed it: format, files, digests."""
    from explainer_runtime import artifact
    from explainer_runtime.cli import answers

    if key and certificate_chain:
        raise InvalidInput("give --key or --certificate-chain, not both", "key")
    given = key or certificate_chain
    name = "key" if key else "certificate-chain"
    trust = artifact.trusted(given, name) if given else None
    if trust is not None and (trust.key is None) == (key is not None):
        raise InvalidInput(f"expected {'a public key' if key else 'certificates'} in {given}", name)
    report = artifact.verify(path, digest=digest, trust=trust)
    tell(json, answers.described(path, report), lambda: answers.card(f"{path} is intact", report))


def pack(
    path: Artifact,
    layout: Annotated[
        Path | None, typer.Option("--oci", metavar="DIR", help="Directory to write an OCI image layout to.")
    ] = None,
    tar: Annotated[Path | None, typer.Option(metavar="FILE", help="The same as one tar file.")] = None,
    base: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="OCI image layout to lie on; KServe's modelcars need one with sh."),
    ] = None,
    arch: Annotated[
        str, typer.Option(metavar="NAME", help="Of the nodes, where there is no base.")
    ] = "amd64",
    json: Json = False,
) -> None:
    """Pack a fitted explainer as an OCI image with it in /models; the same explainer gives the same bytes."""
    from explainer_runtime import artifact
    from explainer_runtime.artifact import oci
    from explainer_runtime.artifact.directory import MANIFEST
    from explainer_runtime.artifact.manifest import digest_of
    from explainer_runtime.cli import answers, files

    if (layout is None) == (tar is None):
        raise InvalidInput("give either --oci DIR or --tar FILE", "oci")
    if path.resolve() in (layout or tar or path).resolve().parents:
        raise InvalidInput("lies within the artifact, which holds nothing else", "oci" if layout else "tar")
    held = artifact.contents(path)
    image = oci.image(held, architecture=arch, base=base)
    report = artifact.verify(
        path, digest=digest_of(held[MANIFEST])
    )  # of what is packed, whoever writes there
    if layout is not None:
        files.write_new(layout, image, "oci")
    if tar is not None:
        tar.write_bytes(oci.archive(image))
    document = {**answers.described(path, report), "image": oci.digest(image)}
    tell(json, document, lambda: answers.packed(layout or tar, document))


def replay(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="Audit records, one JSON object a line.")],
    path: Artifact,
    input_path: Annotated[
        Path, typer.Option("--input", metavar="FILE", help="The rows, as `explain` takes them.")
    ],
    model: ModelFile = None,
    predictor: Address = None,
    logits: Logits = False,
    label: Label = None,
    chosen: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Which record, where there are several.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option that the record has no words for."),
    ] = None,
    rows: Annotated[
        str | None, typer.Option("--rows", metavar="LIST", help="Which rows of the input, such as 0,3,8:12.")
    ] = None,
    json: Json = False,
) -> None:
    """Explain again what was recorded, and say whether the bytes are the same; status 1 if not."""
    from explainer_runtime import artifact, explainers
    from explainer_runtime.cli import answers, models, replaying, requests

    line = replaying.read(record, chosen)
    fitted = artifact.load(path, digest=line["artifact"])
    request = requests.read_rows(input_path, fitted.inputs, fitted.spec.kind)
    given = {**request.options, **requests.read_options(option or [])}
    connected = models.connected(models.chosen(model, predictor, **models.said(logits, label)))
    prepared = explainers.prepare(fitted, connected, warm=False)
    with progress("explaining"):
        report = replaying.again(line, prepared, requests.select(request.x, rows), given)
    document = {"id": line.get("id"), "time": line.get("time"), **report}
    tell(json, document, lambda: answers.replayed(document))
    raise typer.Exit(0 if report["same"] else 1)
