"""What `serve` starts: the explainers, and the model itself where it is a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from explainer_runtime import artifact
from explainer_runtime.errors import InvalidInput, MissingExtra
from explainer_runtime.spec import parse_predictor

try:
    from explainer_runtime.hosts import launcher
except ModuleNotFoundError as error:
    raise MissingExtra(f"{error.name} is not installed; pip install 'explainer-runtime[mlserver]'") from None


def plan(
    paths: Sequence[Path], model: str | None, predictor: str | None, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The settings of everything to serve; nothing is started, but mistakes show here.

    Args:
        paths: Directories of explainers.
        model: File of the model; it is served, too, and the explainers use its graph in the same process.
        predictor: Address of the model where it is served elsewhere.
        names: Names of the explainers, in order, then of the model; file names where there are fewer.

    Raises:
        InvalidInput: Not exactly one of model and predictor, nothing to serve, or a name used twice.
        InvalidArtifact: One of the directories.
        InvalidSpec: The predictor's address.
    """
    if (model is None) == (predictor is None):
        raise InvalidInput("give either --model FILE or --predictor URL", "predictor")
    if predictor is not None and not paths:
        raise InvalidInput("nothing to serve: name a fitted explainer's directory", "ARTIFACT")
    if model is not None and not Path(model).exists():
        raise InvalidInput(f"{model}: no such file", "model")
    served = [*paths, *([Path(model)] if model else [])]
    if len(names) > len(served):
        raise InvalidInput(f"{len(names)} names for {len(served)} models", "name")
    names = [*names, *(path.resolve().stem for path in served[len(names) :])]
    if len(set(names)) < len(names):
        raise InvalidInput(f"expected different names, got {', '.join(names)}; use --name", "name")

    address = f"colocated:{names[-1]}" if model else predictor
    assert address is not None
    parse_predictor(address)
    for path in paths:
        artifact.verify(path)
    # The model first, so that its graph is there when the explainers look for it.
    models = [launcher.keras_settings(model, names[-1])] if model else []
    explainers = zip(paths, names, strict=False)
    return models + [launcher.explainer_settings(path, name, address) for path, name in explainers]


def run(models: Sequence[Mapping[str, Any]], **settings: Any) -> int:
    """Serve until a signal says stop; the exit status. From here on stdout is stderr: servers log to it."""
    sys.stdout.flush()
    os.dup2(2, 1)
    return launcher.serve(models, **settings)
