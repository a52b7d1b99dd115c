"""The routes of explainers in the server's OpenAPI documents.

MLServer ships its document as a file, which knows nothing of what models add, and FastAPI makes one of its
routes, which is right. Here the paths that the file lacks are taken from the latter, with the components that
they refer to, and the one type in the file that OpenAPI does not know is mended, so that tools can read it.
"""

from __future__ import annotations

import copy
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from mlserver.rest.app import APIRoute
from mlserver.rest.openapi import get_openapi_schema

from explainer_runtime.hosts.door.gate import EXPLAINS
from explainer_runtime.hosts.door.pictured import FILES
from explainer_runtime.jobs.store import State

PATH = "/v2/docs/dataplane.json"


def install(app: FastAPI, jobs: bool = False) -> None:
    """Answer MLServer's path of the document with the whole document, and places of jobs, if any."""

    async def document() -> JSONResponse:
        whole = merged(app)
        return JSONResponse({**whole, "paths": {**whole["paths"], **(_jobs() if jobs else {})}})

    app.router.routes.insert(0, APIRoute(PATH, document, response_model=None, include_in_schema=False))


def merged(app: FastAPI) -> dict[str, Any]:
    """MLServer's document and what it lacks of this app's routes."""
    whole: dict[str, Any] = copy.deepcopy(get_openapi_schema())
    app.openapi_schema = None  # routes come with each model that is loaded
    made = app.openapi()
    known = set(whole["paths"]) | {path for path in made["paths"] if path.startswith("/v2/repository")}
    for path, item in made["paths"].items():
        if path not in known:
            whole["paths"][path] = _with_body(path, item)
    for kind, components in made.get("components", {}).items():
        mine = whole.setdefault("components", {}).setdefault(kind, {})
        for name, component in components.items():
            mine.setdefault(name, component)
    mended: dict[str, Any] = _mended(whole)
    return mended


def _with_body(path: str, item: dict[str, Any]) -> dict[str, Any]:
    """A path's item; of those that explain with the bodies and answers that FastAPI does not see."""
    if not EXPLAINS.search(path):
        return item
    content = item["post"]["requestBody"]["content"]
    if path.startswith("/v2/models/"):
        content["application/json"]["schema"] = {"$ref": "#/components/schemas/InferenceRequest"}
    file = {"type": "string", "format": "binary"}
    parts = {
        "image": {"type": "array", "items": file, "minItems": 1, "description": "Pictures, each a row."},
        "options": {"type": "string", "description": "Options of the method: a JSON object."},
        "outputs": {"type": "string", "description": "Names of the outputs that are wanted: a JSON list."},
    }
    form = {"type": "object", "properties": parts, "required": ["image"]}
    content |= {"multipart/form-data": {"schema": form}, **{kind: {"schema": file} for kind in FILES}}
    drawn = {"image/png": {"schema": file}, "text/html": {"schema": {"type": "string"}}}
    events = {"text/event-stream": {"schema": {"type": "string"}}}
    item["post"]["responses"]["200"].setdefault("content", {}).update(drawn | events)
    return item


def _jobs() -> dict[str, Any]:
    """The places of jobs, which no route of the app has: they are answered before it."""
    place = "/v2/models/{model_name}/explanations"
    job = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "state": {"enum": list(get_args(State))}},
    }
    page = {"type": "object", "properties": {"explanations": {"type": "array", "items": job}}}
    query = {
        "state": {"enum": list(get_args(State))},
        "limit": {"type": "integer"},
        "after": {"type": "string"},
    }
    asked = [{"name": name, "in": "query", "schema": schema} for name, schema in query.items()]
    told = {"application/json": {"schema": job}, "text/event-stream": {"schema": {"type": "string"}}}
    answers: dict[str, Any] = {kind: {} for kind in ("application/json", "image/png", "text/html")}

    def method(says: str, content: dict[str, Any], status: str = "200", **more: Any) -> dict[str, Any]:
        found = {"description": says, **({"content": content} if content else {})}
        return {
            "summary": says,
            "responses": {status: found, "404": {"description": "There is none."}},
            **more,
        }

    def named(*names: str) -> dict[str, Any]:
        where = {"in": "path", "required": True, "schema": {"type": "string"}}
        return {"parameters": [{"name": name, **where} for name in names]}

    listed = {"application/json": {"schema": page}}
    one = named("model_name", "id")
    return {
        place: {**named("model_name"), "get": method("The caller's jobs.", listed, parameters=asked)},
        f"{place}/{{id}}": {
            **one,
            "get": method("How far a job is.", told),
            "delete": method("Cancels a job, or forgets it.", {}, "204"),
        },
        f"{place}/{{id}}/result": {**one, "get": method("The answer of a job.", answers)},
    }


def _mended(part: Any) -> Any:
    if isinstance(part, list):
        return [_mended(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: "string" if (key, value) == ("type", "bytes") else _mended(value) for key, value in part.items()
    }
