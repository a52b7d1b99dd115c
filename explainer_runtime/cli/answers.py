"""What a command has to say: an explanation as a file or a table, an artifact in words."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explainer_runtime import methods, render
from explainer_runtime.artifact.directory import MODELS
from explainer_runtime.complaints import printable
from explainer_runtime.errors import InvalidInput
from explainer_runtime.explanation import Explanation
from explainer_runtime.fitted import Fitted
from explainer_runtime.pictures import Sent
from explainer_runtime.predictors import Predictor
from explainer_runtime.predictors.base import named
from explainer_runtime.predictors.fingerprint import identity
from explainer_runtime.spec import Inputs

if TYPE_CHECKING:
    from rich.table import Table

    from explainer_runtime.artifact import Report

_COLUMNS = (
    "original_class",
    "counterfactual_class",
    "hidden_class",
    "unlike_class",
    "target_proba",
    "distance_l1",
    "prediction",
    "precision",
    "coverage",
    "size",
)

_NAMES = 12
"""Names of classes that are listed; of more the first few are."""
_FEW = 5
_LONGEST = 200
"""Characters of a setting that are shown."""
Encoder = Callable[[Explanation, np.ndarray, Fitted, Sequence[Sent], Mapping[str, str]], bytes]
"""Makes the bytes of a file: of an answer, what was explained, with what, the pictures that were sent, and in
words where all that is from."""


def encoder(path: Path) -> Encoder:
    """What makes the bytes of the file `path` from an explanation; asked for before anything is computed.

    Raises:
        InvalidInput: A suffix that is none of `.html`, `.png`, `.json`, `.npz`, or no directory for it.
    """
    encoders: dict[str, Encoder] = {
        ".html": _page,
        ".png": lambda answer, x, fitted, sent, about: render.png(answer, x, fitted.inputs, sent=sent),
        ".json": lambda answer, x, fitted, sent, about: answer.to_json(),
        ".npz": lambda answer, x, fitted, sent, about: _npz(answer),
    }
    if path.suffix.lower() not in encoders:
        raise InvalidInput(f"{path}: expected a name that ends in {', '.join(encoders)}", "out")
    if not path.parent.is_dir():
        raise InvalidInput(f"{path.parent}: no such directory", "out")
    return encoders[path.suffix.lower()]


def check(path: Path, contract: Inputs) -> None:
    """Refuse a picture that cannot be drawn of such rows, before anything is computed.

    Raises:
        InvalidInput: `path` is to be a picture or a page, and rows of this contract are no images.
    """
    if path.suffix.lower() in (".html", ".png"):
        render.check(contract)


def origin(path: Path, data: Path, predictor: Predictor | None, server: str | None) -> dict[str, str]:
    """Where an answer comes from, in words: when it was made, by which artifact and model, of which file.

    Args:
        path: The artifact.
        data: The file that was explained.
        predictor: The model that was asked; None where a `server` has asked its own.
        server: The address of that, without what it is opened with.
    """
    if predictor is None:
        model = f"the one behind {str(server).rpartition('@')[2]}"
    else:
        model = ", ".join([named(predictor), *(f"{k} {v}" for k, v in identity(predictor).items())])
    return {
        "made on": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "model": model,
        "explainer": f"{path}, SHA-256 {_sha256(path / 'explainer.json')}",
        "data": f"{data}, SHA-256 {_sha256(data)}",
    }


def summary(explanation: Explanation, contract: Inputs) -> dict[str, Any]:
    """The answer in short: the numbers of every row and what they cost, as JSON values."""
    small = {name: array.tolist() for name, array in explanation.arrays.items() if array.ndim == 1}
    rows = [dict(zip(small, values, strict=True)) for values in zip(*small.values(), strict=True)]
    for row in rows:
        for name in [name for name in small if name.endswith("_class") or name == "prediction"]:
            if contract.class_names and row[name] >= 0:
                row[f"{name}_name"] = contract.class_names[row[name]]
    for row, picture in zip(rows, explanation.meta.get("pictures", ()), strict=False):
        row["picture"] = picture
    for row, raw in zip(rows, explanation.raw, strict=False):
        if "note" in raw:
            row["note"] = raw["note"]
    cost = explanation.cost
    return {
        "kind": explanation.kind,
        "found": int(explanation["found"].sum()),
        "rows": rows,
        "warnings": list(explanation.meta.get("warnings", ())),
        "cost": {
            "calls": cost.calls,
            "rows": cost.rows,
            "seconds": round(cost.seconds, 6),
            "steps": cost.steps,
        },
        "cached": bool(explanation.meta.get("cached")),
    }


def explained(summary: Mapping[str, Any], out: Path | None) -> Table:
    """The summary of an explanation for people."""
    from rich.markup import escape
    from rich.table import Table

    cost, rows = summary["cost"], summary["rows"]
    caption = f"{cost['calls']:,} model calls, {cost['rows']:,} rows, {cost['seconds']:.2f} s"
    if summary["cached"]:
        caption += "; the answer was kept from earlier"
    lines = [f"{caption}; written to {out}" if out else caption]
    lines += [f"row {index}: {row['note']}" for index, row in enumerate(rows) if "note" in row]
    table = Table(
        title=f"{summary['kind']}: found {summary['found']} of {len(rows)}",
        caption=escape("\n".join([*lines, *summary["warnings"]])),
    )
    columns = [name for name in _COLUMNS if rows and name in rows[0]]
    for name in ("row", "found", *columns):
        table.add_column(name.replace("_", " "), justify="right")
    for index, row in enumerate(rows):
        found = "[green]yes[/]" if row["found"] else f"[red]{row['status']}[/]"
        found = "[yellow]empty[/]" if row.get("vacuous") else found
        table.add_row(str(index), found, *(_short(row.get(f"{name}_name", row[name])) for name in columns))
    return table


def described(path: Path, report: Report) -> dict[str, Any]:
    """An artifact in short, as JSON values."""
    manifest = report.manifest
    return {
        "artifact": str(path),
        "kind": manifest["kind"],
        "digest": report.digest,
        "signature": report.signature,
        "bytes": report.bytes,
        "parts": report.parts,
        "inputs": manifest["inputs"],
        "surrogate": _surrogate(report),
        "model": manifest.get("model", {}),
        "created": manifest.get("created"),
        "provenance": report.made or None,
    }


_RESIZED = {
    "none": "",
    "fit": "; pictures of another size are resized, each side by itself",
    "centre_crop": "; of pictures of another size the middle, resized",
}


def card(title: str, report: Report, *, settings: bool = False) -> Table:
    """An artifact for people: what it is, what it takes, what pins it."""
    manifest, contract = report.manifest, report.manifest["inputs"]
    size = " × ".join(str(side) for side in contract["shape"])
    resized = _RESIZED[contract.get("resize", "none")]  # artifacts of 0.1.0 do not say it
    lines = {
        "method": manifest["kind"],
        "input": f"{size}, from {contract['low']:g} to {contract['high']:g}{resized}",
        "classes": _classes(contract["class_names"] or (), contract["classes"]),
        **{f"model's {name}": text for name, text in manifest.get("model", {}).items()},
        **({"surrogate": taught} if (taught := _taught(report)) else {}),
        "digest": report.digest,
        "signature": report.signature,
        "size": f"{report.bytes:,} bytes in {len(report.files)} file{'s' * (len(report.files) > 1)}",
        **_parts(report),
        **({"created": manifest["created"]} if "created" in manifest else {}),
    }
    if settings:
        lines |= {f"made of {name}": text for name, text in _sources(report.made)}
        lines["written by"] = ", ".join(f"{name} {text}" for name, text in manifest["versions"].items())
        lines["files"] = "\n".join(f"{name}  {size:,}" for name, size in report.files.items())
        said = {name: str(value) for name, value in manifest["spec"].items() if name != "kind"}
        lines |= {name: text[:_LONGEST] + "…" * (len(text) > _LONGEST) for name, text in said.items()}
    return _listed(title, lines)


def _classes(names: Sequence[str], count: int) -> str:
    if len(names) <= _NAMES:
        return ", ".join(names) or str(count)
    return f"{count:,}: {', '.join(names[:_FEW])}, …"


def _sources(made: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What an artifact says it was made of: name, and digest or address. A stranger may have written it."""
    build = made.get("buildDefinition")
    sources = build.get("resolvedDependencies") if isinstance(build, Mapping) else None
    for one in sources if isinstance(sources, list) else ():
        if isinstance(one, Mapping):
            digest = one.get("digest")
            yield (
                str(one.get("name")),
                str(digest.get("sha256") if isinstance(digest, Mapping) else one.get("uri")),
            )


def _parts(report: Report) -> dict[str, str]:
    """What makes the size of an artifact, and whether training rows are in it."""
    some = [f"{name}  {size:,}" for name, size in report.parts.items() if size >= report.bytes / 100]
    rows = report.manifest["arrays"].get("reference_rows")
    kept = {"training rows": f"{rows['shape'][0]:,} are in it (reference_rows)"} if rows else {}
    return {"of that": "\n".join(some), **kept}


def _surrogate(report: Report) -> dict[str, Any] | None:
    """How many answers a surrogate was taught from, and on what share of other rows it agrees, where the
    artifact says so; None where it holds none."""
    if not ("surrogate_kernel_0" in report.arrays or f"{MODELS}/student.json" in report.files):
        return None
    known = {}
    for name in ("rows", "agreement"):
        arrays = (
            report.arrays.get(f"{called}_{name}") for called in ("surrogate", "student")
        )  # as 0.1.0 did
        known[name] = next((array.item() for array in arrays if array is not None), None)
    return known


def _taught(report: Report) -> str:
    """The same in words; nothing of a method that has no use for one."""
    if not methods.parse_spec(report.manifest["spec"]).slopes:
        return ""
    if (known := _surrogate(report)) is None:
        return "none: behind an endpoint, slopes are estimated, a thousand rows and more an explanation"
    taught = "" if known["rows"] is None else f" from {known['rows']:,} answers of the model"
    agrees = "" if known["agreement"] is None else f"; agrees on {known['agreement']:.1%} of untaught rows"
    return f"taught{taught}{agrees}"


def needed(title: str, reasons: Mapping[str, str], target: str) -> Table:
    """What an artifact needs, for people."""
    image = f"target {target}; image.tensorflow: {str(target.endswith('tensorflow')).lower()}"
    extras = {f"explainer-runtime[{extra}]": why for extra, why in reasons.items()}
    return _listed(title, {**extras, "image": image})


def packed(to: Path | None, document: Mapping[str, Any]) -> Table:
    """An artifact that was packed, for people."""
    lines = {"image": document["image"], "artifact": document["digest"], "signature": document["signature"]}
    return _listed(f"{to}: {document['artifact']} in /models", lines)


def replayed(document: Mapping[str, Any]) -> Table:
    """How an explanation that was made again compares, for people."""
    same = "the bytes are the same" if document["same"] else "the bytes are not the same"
    pairs = [(name, document[name]) for name in ("result", "release", "model")]
    lines = {f"{name}, {when}": str(pair[when]) for name, pair in pairs for when in ("recorded", "now")}
    return _listed(f"{document['id']}: {same}", lines)


def _listed(title: str, lines: Mapping[str, str]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(printable(title)), show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(escape(name), escape(printable(text, "\n")))
    return table


def _page(
    answer: Explanation, x: np.ndarray, fitted: Fitted, sent: Sequence[Sent], about: Mapping[str, str]
) -> bytes:
    accuracy = fitted.model.get("accuracy")
    return render.html(answer, x, fitted.inputs, sent=sent, accuracy=accuracy, about=about).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _npz(explanation: Explanation) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **explanation.arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _short(value: Any) -> str:
    from rich.markup import escape

    return f"{value:.3g}" if isinstance(value, float) else escape(printable(str(value), "\n"))
