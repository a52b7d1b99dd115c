"""The routes of an explainer that MLServer does not know, one for each platform's convention.

They are registered for each model, so that a plain `mlserver start` has them, too. MLServer's custom
handlers pass by its data plane, and what that would do - an id, no headers of the request in the answer - is
done here. Paths are global to a server: those that name no model answer for its only explainer, and where two
versions share a path the one that MLServer itself would take as the default answers.
"""

# Annotations are evaluated here: with parallel workers MLServer wraps a custom handler in a function of
# another module, and FastAPI would look their names up there.

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fastapi.responses import Response
from mlserver.context import model_context
from mlserver.errors import MLServerError
from mlserver.handlers.custom import CustomHandler, register_custom_handler

from explainer_runtime.errors import InvalidSpec
from explainer_runtime.hosts.door.aside import aside
from explainer_runtime.hosts.mlserver import infer, v2types
from explainer_runtime.hosts.mlserver.faults import faults
from explainer_runtime.hosts.mlserver.refusals import answer
from explainer_runtime.hosts.service.asked import asked_in, document, explained, listed, marks
from explainer_runtime.hosts.service.names import check_name

SELDON_PATHS = ("/explain", "/api/v1.0/explain", "/api/v0.1/explain")

_loaded: dict[tuple[str, str | None], Any] = {}
"""The explainers that this process serves, by name and version."""


def enter(runtime: Any) -> None:
    """Answer for this explainer on the routes that it shares with others."""
    _loaded[runtime.name, runtime.version] = runtime


def leave(runtime: Any) -> None:
    """Answer for it no more, unless another has taken its place."""
    key = runtime.name, runtime.version
    if key in _loaded and _loaded[key] is runtime:
        del _loaded[key]


def register(runtime: Any) -> None:
    """Give this explainer's instance a handler for each of its paths.

    MLServer finds them among its attributes; its workers look them up by the names of the functions.
    """
    try:
        check_name(runtime.name)
        check_name(runtime.version or "0")
    except InvalidSpec:  # loading says so
        return
    paths = {
        "explain": (f"/v2/models/{runtime.name}/explain", _v2),
        "explain_v1": (f"/v1/models/{runtime.name}:explain", _v1),
    }
    if runtime.version:
        paths["explain_version"] = (f"/v2/models/{runtime.name}/versions/{runtime.version}/explain", _v2)
    for index, path in enumerate(SELDON_PATHS):
        paths[f"explain_seldon_{index}"] = (path, _seldon)
    for name, (path, make) in paths.items():
        handler = make(runtime, own=name == "explain_version")
        handler.__name__ = name
        register_custom_handler(CustomHandler(rest_path=path), handler)
        setattr(runtime, name, handler)
    for version in ("v1", "v2"):
        handler = _listing()
        handler.__name__ = f"explainers_{version}"
        register_custom_handler(CustomHandler(rest_path=f"/{version}/models", rest_method="GET"), handler)
        setattr(runtime, handler.__name__, handler)


def _v2(runtime: Any, own: bool) -> Callable[..., Any]:
    async def handler(body: dict[str, Any]) -> Response:
        """Explain the rows of a V2 request; the answer is that of `/infer`."""
        return await _answered(_v2_answer, runtime if own else _default(runtime.name), body)

    return handler


def _v1(runtime: Any, own: bool) -> Callable[..., Any]:
    async def handler(body: dict[str, Any]) -> Response:
        """Explain `instances`; the answer is the bare `{"meta", "data"}`."""
        return await _answered(_bare_answer, _default(runtime.name), body)

    return handler


def _seldon(runtime: Any, own: bool) -> Callable[..., Any]:
    async def handler(body: dict[str, Any]) -> Response:
        """Explain a V2 request, `instances` or a SeldonMessage; the answer is the bare `{"meta", "data"}`."""
        return await _answered(_bare_answer, None, body)

    return handler


def _listing() -> Callable[..., Any]:
    async def handler() -> Response:
        """The explainers of this server: their names, and what is to be known before one asks."""
        names = sorted({name for name, _ in _loaded})
        explainers = []
        for name in names:
            runtime = _default(name)
            versions = sorted(version for known, version in _loaded if known == name and version)
            state = "ready" if runtime.ready else "loading"
            explainers.append(listed(runtime.service(), state, versions))
        return v2types.as_json({"models": names, "explainers": explainers})

    return handler


async def _answered(act: Callable[..., Any], runtime: Any, body: Any) -> Response:
    try:
        runtime = runtime or _only()
        with model_context(runtime.settings):
            return await act(runtime, body)
    except MLServerError as error:
        return answer(error)


async def _v2_answer(runtime: Any, body: Mapping[str, Any]) -> Response:
    with faults():
        payload = infer.request_of(body)
    response = await runtime.predict(payload)
    headers, response.parameters.headers = response.parameters.headers, None
    return await infer.as_json(response, headers)


async def _bare_answer(runtime: Any, body: Mapping[str, Any]) -> Response:
    with faults():
        if "inputs" in body:
            read = await aside(partial(runtime.read, bare=True), infer.request_of(body))
        else:
            read = await aside(asked_in, runtime.service(), body)
        service = runtime.service()
        explanation = await explained(service, read)
        said = await aside(document, service, read, explanation)
        return v2types.as_json(said, headers=marks(service, explanation))


def _only() -> Any:
    """The explainer that a path without a name means."""
    names = sorted({name for name, _ in _loaded})
    if len(names) != 1:
        routes = ", ".join(f"/v2/models/{name}/explain" for name in names)
        raise MLServerError(f"path: several explainers are served here; use one of {routes}", 422)
    return _default(names[0])


def _default(name: str) -> Any:
    """The version that a path without one means: an explainer without a version, else the highest."""
    versions = [(version, runtime) for (known, version), runtime in _loaded.items() if known == name]
    if not versions:
        raise MLServerError(f"{name} is still loading", 503)
    return max(versions, key=lambda pair: _rank(pair[0]))[1]


def _rank(version: str | None) -> tuple[bool, int, str]:
    number = int(version) if version is not None and version.isdecimal() else -1
    return version is None, number, version or ""
