"""What one server serves: from directories, flags and the environment to settings of models.

Three parties say what to do: whoever wrote the command, the platform that appends to it (`arguments.py`),
and the environment. The platform counts most, because its network is already wired to what it says; then the
command; then the environment; then a `model-settings.json` beside the explainer. The result is a list of
mappings as they stand in that file, which every host can read. No server is known here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from explainer_runtime import artifact, methods
from explainer_runtime.artifact.beside import settings as settings_beside
from explainer_runtime.complaints import json_object
from explainer_runtime.errors import InvalidInput, InvalidSpec
from explainer_runtime.hosts.platform import arguments, needs, storage, unfitted
from explainer_runtime.hosts.platform.arguments import Line
from explainer_runtime.hosts.service.names import check_name
from explainer_runtime.hosts.service.settings import lowered, required
from explainer_runtime.predictors.settings import Endpoint, parse_predictor

_PREDICTORS = ("predictor", "model_path", "infer_uri")
"""Keys of `extra` that say where the model is; see `service.parse_settings`."""
_MODEL = "MLSERVER_MODEL_"
_SAID = ("name", "uri", "extra", "implementation", "version")
"""What follows that prefix. A Service called `mlserver-model` makes Kubernetes set others."""


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
        predictor: Address of the model where it is served elsewhere, or a JSON object with settings of
            it (`spec.Endpoint`), of which the platform may say the address.
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
        MissingExtra: An explainer needs what is not installed; see `needs.check`.
    """
    environment = environment or {}
    if line.kind is not None:  # words of explainers that ask their models over V1
        line = line._replace(flags={"protocol": "v1", **line.flags})
    told = _Told(line.flags, predictor, sidecar)
    paths = _paths(line, environment, mount)
    if not paths and line.kind is not None and told.address and not _described(environment):
        paths = [_from_arguments(line, told, scratch)]
    if not paths and model is None and _described(environment):
        return _from_environment(environment, mount, scratch, line.kind, told, extra or {})
    graph = _graph(model, told.address, sidecar)
    if graph is None and not told.address and not any(settings_beside(path).extra for path in paths):
        raise InvalidInput("give either --model FILE or --predictor URL", "predictor")
    if not paths and (graph is None or sidecar):
        raise InvalidInput("nothing to serve: name a fitted explainer's directory", "ARTIFACT")

    served = graph is not None and not sidecar
    first = None if sidecar else line.flags.get("model_name")  # there it is the model's own name
    taken = _names(paths, [graph] if served and graph else [], names, first)
    over: Callable[[Mapping[str, Any]], Mapping[str, Any]] = told.over
    if graph is not None:
        file = str(graph.resolve())
        said = json.dumps({"kind": "keras", "path": file, **contract}) if contract else file
        over = partial(_asking, predictor=f"colocated:{taken[-1]}" if served else said)
    # The model first, so that its graph is there when the explainers look for it.
    models = [keras_settings(graph, taken[-1], **(contract or {}))] if served and graph else []
    for path, name in zip(paths, taken, strict=False):
        settled = storage.settle(path, scratch)
        models.append(_explainer(settled, name, over, line.kind, extra or {}))
    return models


class _Told:
    """What the platform and the command say about the model being explained.

    Attributes:
        address: Whether they say where it is.
    """

    def __init__(self, flags: Mapping[str, str], command: str | None, sidecar: bool) -> None:
        self._command = _settings_of(command)
        # A sidecar needs the model's name only where it asks the model.
        silent = sidecar and "model_name" not in flags
        self._flags = {name: said for name, said in flags.items() if not silent or name != "predictor_host"}
        self.address = (
            not _endpoint(self._command) or "url" in self._command or bool(self._flags.get("predictor_host"))
        )

    def over(self, beside: Mapping[str, Any]) -> Mapping[str, Any]:
        """Other settings of an explainer, with what these two say over what they say about the model."""
        known = dict(self._command) if _endpoint(self._command) else {}
        if _endpoint(self._command) and arguments.predictor(self._flags, known):
            known = {**_known(beside), **known}
        predictor: Any = arguments.predictor(self._flags, known)
        if not _endpoint(self._command) and "url" not in predictor:
            predictor = self._command
        elif not predictor:
            return beside
        else:
            predictor.setdefault("kind", "v2")
        parse_predictor(predictor)
        return _asking(beside, predictor)


def _asking(beside: Mapping[str, Any], predictor: str | Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an explainer that asks this model, whatever they said of it."""
    rest = {key: value for key, value in beside.items() if key not in (*_PREDICTORS, "ssl_verify_path")}
    return {**rest, "predictor": predictor}


def _endpoint(settings: str | Mapping[str, Any]) -> TypeGuard[Mapping[str, Any]]:
    """Whether these are settings of an endpoint, or some of them."""
    return not isinstance(settings, str) and settings.get("kind", "v2") in ("v1", "v2")


def _settings_of(predictor: Any) -> str | dict[str, Any]:
    """Settings of an endpoint, or those or the address of something else (a file, a model beside)."""
    if predictor is None:
        return {}
    if isinstance(predictor, str) and predictor.lstrip().startswith("{"):
        predictor = json_object(predictor, "predictor")
    if isinstance(predictor, Mapping):
        return {"kind": "v2", **predictor} if "url" in predictor else dict(predictor)
    parsed = parse_predictor(predictor)
    return parsed.model_dump(exclude_unset=True) if isinstance(parsed, Endpoint) else str(predictor)


def _known(beside: Mapping[str, Any]) -> dict[str, Any]:
    """What an explainer's own settings say about an endpoint that it asks."""
    said = beside.get("predictor") or beside.get("infer_uri")
    settings = _settings_of(said) if said else {}
    if not _endpoint(settings):
        return {}
    settings = dict(settings)
    if beside.get("ssl_verify_path") and str(settings.get("url", "")).startswith("https"):
        settings.setdefault("ca_path", beside["ssl_verify_path"])
    return settings


def _described(environment: Mapping[str, str]) -> bool:
    """Whether variables describe a model."""
    return any(f"{_MODEL}{name.upper()}" in environment for name in _SAID)


def _paths(line: Line, environment: Mapping[str, str], mount: Path) -> list[Path]:
    """Directories of the explainers: those named, else what the platform has put into the container."""
    if line.paths:
        return [
            one for path in line.paths for one in (storage.explainers_in(path) if path.is_dir() else [path])
        ]
    uri = line.flags.get("storage_uri") or environment.get("STORAGE_URI")
    platform = bool(line.flags) and not _described(environment)
    if not uri and not (platform and mount.is_dir()):
        return []
    place = storage.locate(uri, mount) if uri else mount
    try:
        return storage.explainers_in(place)
    except InvalidSpec:
        if line.kind is None or not fitless(line.kind):
            raise
        return []  # of another maker; what it is to do stands on the line


def fitless(name: str) -> str | None:
    """The kind that a platform's name means, where nothing has to be fitted for it."""
    return next((kind for kind in methods.called(name) if methods.settings_of(kind).fitless), None)


def _from_arguments(line: Line, told: _Told, scratch: Path) -> Path:
    """An explainer with the settings of the command line; see `unfitted.explainer`."""
    kind = fitless(line.kind or "")
    if kind is None:
        raise InvalidSpec(f"{line.kind}: has to be fitted; name the directory of a fitted explainer")
    model = parse_predictor(told.over({})["predictor"])
    if not isinstance(model, Endpoint):
        raise InvalidSpec(f"{line.kind}: without a fitted explainer the model has to be at an endpoint")
    return unfitted.explainer(kind, line.settings, model, scratch)


def _graph(model: str | None, address: bool, sidecar: bool) -> Path | None:
    """The Keras model that is run in this process."""
    if model is None:
        return None
    if address and not sidecar:
        raise InvalidInput("give either --model FILE or --predictor URL", "predictor")
    if not Path(model).exists():
        raise InvalidInput(f"{model}: no such file", "model")
    found = storage.model_in(Path(model))
    if sidecar and address and not needs.installed("tensorflow"):
        return None  # it is asked at its port, which takes longer and needs nothing here
    if found is None and not address:
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
    path: Path,
    name: str,
    over: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    kind: str | None,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    _check(path, name, kind)
    beside = settings_beside(path)
    if beside.version is not None:
        check_name(beside.version, "parameters.version")
    settings = {**extra, **over(lowered(beside.extra, extra))}
    return _settings("ExplainerRuntime", path, name, beside.version, settings)


def _check(path: Path, name: str, kind: str | None) -> None:
    """Refuse an artifact of another type than was asked for, or that cannot run here."""
    report = artifact.verify(path, trust=required())
    arguments.check_kind(kind, report.manifest["spec"]["kind"])
    needs.check(report, name)


def _from_environment(
    environment: Mapping[str, str],
    mount: Path,
    scratch: Path,
    kind: str | None,
    told: _Told,
    extra: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """What `MLSERVER_MODEL_*` describe, as Seldon's operator and MLServer's own images do: one explainer, or
    a directory of several, of which the first has the name that is given."""
    said = {name: environment.get(f"{_MODEL}{name.upper()}") for name in _SAID}
    given = json_object(said["extra"] or "{}", f"{_MODEL}EXTRA")
    found = storage.explainers_in(storage.locate(said["uri"] or str(mount), mount))
    names = [said["name"] or found[0].name, *(path.name for path in found[1:])]
    models = []
    for name, path in zip(names, found, strict=True):
        check_name(name, f"{_MODEL}NAME")
        settled = storage.settle(path, scratch)
        _check(settled, name, kind)
        settings = _settings(
            "ExplainerRuntime", settled, name, said["version"], {**told.over(given), **extra}
        )
        settings["implementation"] = said["implementation"] or settings["implementation"]
        models.append(settings)
    return models


def _settings(
    implementation: str, path: str | Path, name: str, version: str | None, extra: Mapping[str, Any]
) -> dict[str, Any]:
    parameters = {"uri": str(Path(path).resolve()), "extra": dict(extra)}
    if version is not None:
        parameters["version"] = version
    return {"name": name, "implementation": f"explainer_runtime.{implementation}", "parameters": parameters}
