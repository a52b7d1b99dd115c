"""What one server serves: from directories, flags and the environment to settings of models.

Three parties say what to do: whoever wrote the command, the platform that appends to it (`arguments.py`),
and the environment. The platform counts most, because its network is already wired to what it says; then the
command; then the environment; then a `model-settings.json` beside the explainer. The result is a list of
mappings as they stand in that file, which every host can read. No server is known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from explainer_runtime import artifact
from explainer_runtime.artifact.beside import settings as settings_beside
from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.hosts import arguments, storage
from explainer_runtime.hosts.arguments import Line
from explainer_runtime.hosts.names import check_name
from explainer_runtime.hosts.service import lowered
from explainer_runtime.spec import parse_predictor

_PREDICTORS = ("predictor", "model_path", "infer_uri")
"""Keys of `extra` that say where the model is; see `service.parse_settings`."""
_MODEL = "MLSERVER_MODEL_"


def explainer_settings(
    path: str | Path,
    name: str,
    predictor: str | Mapping[str, Any],
    *,
    version: str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Settings that serve the explainer directory `path` as `name`.

    Args:
        path: The explainer's directory.
        name: Name under which it is served.
        predictor: Where the model is; see `spec.parse_predictor`.
        version: Version under which it is served, if any.
        extra: Other settings (`limits`, `threads`); see `service.Settings`.
    """
    return _settings("ExplainerRuntime", path, name, version, {"predictor": predictor, **extra})


def keras_settings(
    path: str | Path, name: str, *, version: str | None = None, **contract: Any
) -> dict[str, Any]:
    """Settings that serve the Keras model at `path` as `name`; `contract` as in `spec.ModelContract`."""
    return _settings("KerasRuntime", path, name, version, contract)


def plan(
    line: Line,
    *,
    scratch: Path,
    model: str | None = None,
    predictor: str | None = None,
    contract: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
    sidecar: bool = False,
    environment: Mapping[str, str] | None = None,
    mount: Path = storage.MOUNT,
) -> list[dict[str, Any]]:
    """The settings of everything to serve; nothing is started, but mistakes show here.

    Args:
        line: Directories of explainers, and what a platform has appended.
        scratch: A private directory that lives as long as the server; see `storage.settle`.
        model: A Keras model's file, or a directory that holds one. It is served too, and the explainers use
            its graph in the same process.
        predictor: Address of the model where it is served elsewhere, or its settings as JSON.
        contract: What is said about a Keras model; see `spec.ModelContract`.
        names: Names of the explainers, in order, then of the model. Where there are fewer: the platform's
            name for the first explainer, then those beside the explainers, then names of files.
        extra: Other settings of every explainer (`limits`, `threads`).
        sidecar: Whether the model is already served beside: it is not served again, and where its files
            are not Keras's it is asked at its address.
        environment: Variables; only `STORAGE_URI` and `MLSERVER_MODEL_*` are read here.
        mount: Where a platform's initialiser downloads to.

    Raises:
        InvalidInput: Not exactly one of model and predictor, nothing to serve, or a name used twice.
        InvalidArtifact: One of the directories.
        InvalidSpec: An address, or an explainer type that the artifact is not of.
    """
    environment = environment or {}
    # A sidecar needs the model's name only where it asks the model.
    named = not sidecar or "model_name" in line.flags
    predictor = (arguments.predictor_address(line.flags) if named else None) or predictor
    paths = _paths(line, environment, mount)
    if not paths and model is None and any(name.startswith(_MODEL) for name in environment):
        return [_from_environment(environment, mount, scratch, line.kind, extra or {})]
    graph = _graph(model, predictor, sidecar)
    if graph is None and predictor is None and not any(settings_beside(path).extra for path in paths):
        raise InvalidInput("give either --model FILE or --predictor URL", "predictor")
    if not paths and (graph is None or sidecar):
        raise InvalidInput("nothing to serve: name a fitted explainer's directory", "ARTIFACT")

    served = graph is not None and not sidecar
    first = None if sidecar else line.flags.get("model_name")  # there it is the model's own name
    taken = _names(paths, [graph] if served and graph else [], names, first)
    address = predictor
    if graph is not None:
        here = str(graph.resolve())
        said = json.dumps({"kind": "keras", "path": here, **contract}) if contract else here
        address = f"colocated:{taken[-1]}" if served else said
    # The model first, so that its graph is there when the explainers look for it.
    models = [keras_settings(graph, taken[-1], **(contract or {}))] if served and graph else []
    for path, name in zip(paths, taken, strict=False):
        models.append(_explainer(storage.settle(path, scratch), name, address, line.kind, extra or {}))
    return models


def _paths(line: Line, environment: Mapping[str, str], mount: Path) -> list[Path]:
    """Directories of the explainers: those named, else what the platform has put into the container."""
    if line.paths:
        return [
            one for path in line.paths for one in (storage.explainers_in(path) if path.is_dir() else [path])
        ]
    uri = line.flags.get("storage_uri") or environment.get("STORAGE_URI")
    if uri:
        return storage.explainers_in(storage.locate(uri, mount))
    platform = bool(line.flags) and not any(name.startswith(_MODEL) for name in environment)
    return storage.explainers_in(mount) if platform and mount.is_dir() else []


def _graph(model: str | None, predictor: str | None, sidecar: bool) -> Path | None:
    """The Keras model that is run in this process."""
    if model is None:
        return None
    if predictor is not None and not sidecar:
        raise InvalidInput("give either --model FILE or --predictor URL", "predictor")
    if not Path(model).exists():
        raise InvalidInput(f"{model}: no such file", "model")
    found = storage.model_in(Path(model))
    if found is None and predictor is None:
        raise InvalidInput(f"{model}: expected a .keras file or a SavedModel, or one in a directory", "model")
    return found


def _names(
    paths: Sequence[Path], models: Sequence[Path], given: Sequence[str], first: str | None
) -> list[str]:
    served = [*paths, *models]
    if len(given) > len(served):
        raise InvalidInput(f"{len(given)} names for {len(served)} models", "name")
    names = list(given)
    for index, path in enumerate(served[len(given) :], len(given)):
        beside = settings_beside(path).name if index < len(paths) else None
        platform = first if index == 0 and paths else None
        names.append(platform or beside or path.resolve().stem)
    for name in names:
        check_name(name)
    if len(set(names)) < len(names):
        raise InvalidInput(f"expected different names, got {', '.join(names)}; use --name", "name")
    return names


def _explainer(
    path: Path, name: str, address: str | None, kind: str | None, extra: Mapping[str, Any]
) -> dict[str, Any]:
    arguments.check_kind(kind, artifact.verify(path).manifest["spec"]["kind"])
    beside = lowered(settings_beside(path).extra, extra)
    if address is not None:
        parse_predictor(address)
        beside = {key: value for key, value in beside.items() if key not in _PREDICTORS}
        beside["predictor"] = address
    version = settings_beside(path).version
    if version is not None:
        check_name(version, "parameters.version")
    return _settings("ExplainerRuntime", path, name, version, {**extra, **beside})


def _from_environment(
    environment: Mapping[str, str], mount: Path, scratch: Path, kind: str | None, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The one model that `MLSERVER_MODEL_*` describe, as Seldon's operator and MLServer's own images do."""
    said = {key.removeprefix(_MODEL).lower(): value for key, value in environment.items() if _MODEL in key}
    path = storage.settle(storage.locate(said.get("uri") or str(mount), mount), scratch)
    try:
        given = json.loads(said.get("extra") or "{}")
    except ValueError as error:
        raise InvalidSpec(f"{_MODEL}EXTRA: expected a JSON object, {error}") from None
    if not isinstance(given, dict):
        raise InvalidSpec(f"{_MODEL}EXTRA: expected a JSON object")
    check_name(said.get("name") or path.name, f"{_MODEL}NAME")
    settings = _settings(
        "ExplainerRuntime", path, said.get("name") or path.name, said.get("version"), {**given, **extra}
    )
    if "implementation" in said:
        settings["implementation"] = said["implementation"]
    if kind:
        arguments.check_kind(kind, artifact.verify(path).manifest["spec"]["kind"])
    return settings


def _settings(
    implementation: str, path: str | Path, name: str, version: str | None, extra: Mapping[str, Any]
) -> dict[str, Any]:
    parameters = {"uri": str(Path(path).resolve()), "extra": dict(extra)}
    if version is not None:
        parameters["version"] = version
    return {"name": name, "implementation": f"explainer_runtime.{implementation}", "parameters": parameters}
