"""Explain again what an audit record tells of, and compare: the record has digests, the caller has the rows.

Everything that the answer depends on is held to the record before anything is computed: the artifact, the
rows, the options. What is left is the model and the machine; where the bytes differ, the report says what is
known of both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explainer_runtime.artifact.provenance import digest
from explainer_runtime.artifact.strict_json import short
from explainer_runtime.cli import files
from explainer_runtime.errors import InvalidInput
from explainer_runtime.hosts.service import audit
from explainer_runtime.predictors.fingerprint import identity
from explainer_runtime.spec import Limits, parse

if TYPE_CHECKING:
    from explainer_runtime.explainers import Prepared

_NEEDED = {"record": int, "artifact": str, "input": dict, "options": dict, "limits": dict}


def read(path: Path, chosen: str | None) -> dict[str, Any]:
    """One record of a file of them, one a line.

    Args:
        path: The file.
        chosen: The `id` of the record; it may be left out where there is one record only.

    Raises:
        InvalidInput: It cannot be read, or there is no such record, or several, or it is of no answer.
    """
    lines, torn = [], []
    # Not `splitlines`: JSON leaves in strings what else begins a line in Unicode.
    for number, text in enumerate(files.text(path, "record").split("\n"), 1):
        try:
            lines += [json.loads(text)] if text.strip() else []
        except (ValueError, RecursionError):  # as a disk that was full leaves
            torn.append(number)
    found = [one for one in lines if isinstance(one, dict) and chosen in (None, one.get("id"))]
    if len(found) != 1:
        of = f"with id {chosen}" if chosen else "in it; say --id"
        damage = f"; line {torn[0]} is no JSON" if torn else ""
        raise InvalidInput(f"{path}: expected one record, got {len(found)} {of}{damage}", "record")
    (line,) = found
    wrong = [name for name, kind in _NEEDED.items() if not isinstance(line.get(name), kind)]
    if wrong or line["record"] != 1:
        raise InvalidInput(
            f"{path}: is no audit record of this format ({', '.join(wrong) or 'record'})", "record"
        )
    if not isinstance(line.get("result"), str):
        raise InvalidInput(
            f"{path}: that request was answered with status {short(line.get('status'))}: nothing to compare",
            "record",
        )
    return line


def again(
    line: Mapping[str, Any], prepared: Prepared, x: np.ndarray, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Explain again, and say how the two compare.

    Args:
        line: The record.
        prepared: The explainer of that artifact, with a model.
        x: The rows `(N, *S)`.
        options: Options that the record tells by a digest only, because they are as large as a row.

    Raises:
        InvalidInput: These are not the rows, or not the options, that the record tells of.
    """
    from explainer_runtime import __version__

    rows = np.asarray(x, np.float32)
    if digest(rows) != line["input"].get("sha256"):
        raise InvalidInput(
            f"is not what the record tells of: digest {digest(rows)} of shape {rows.shape}, not "
            f"{short(line['input'].get('sha256'))} of {short(line['input'].get('shape'))}",
            "input",
        )
    asked = {name: _option(name, value, options) for name, value in line["options"].items()}
    allowed = parse(
        Limits, {**line["limits"], "max_seconds": 10**6}, "limits"
    )  # a slower machine may be as right
    explanation = prepared(rows, {**asked, "max_seconds": None}, limits=allowed)
    result = explanation.digest()
    return {
        "same": result == line["result"],
        "result": {"recorded": line["result"], "now": result},
        "release": {"recorded": line.get("release"), "now": __version__},
        "model": {"recorded": line.get("model"), "now": identity(prepared.predictor)},
        "warnings": list(explanation.meta.get("warnings", ())),
    }


def _option(name: str, value: Any, options: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    if name not in options:
        raise InvalidInput("the record has its digest only; give it with --option, or in the request", name)
    if audit.short(options[name]) != value:
        raise InvalidInput("is not what the record tells of", name)
    return options[name]
