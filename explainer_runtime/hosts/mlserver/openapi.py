"""The routes of explainers in the server's OpenAPI documents.

MLServer ships its document as a file, which knows nothing of what models add, and FastAPI makes one of its
routes, which is right. Here the paths that the file lacks are taken from the latter, with the components that
they refer to, and the one type in the file that OpenAPI does not know is mended, so that tools can read it.
"""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from mlserver.rest.app import APIRoute
from mlserver.rest.openapi import get_openapi_schema

from explainer_runtime.hosts.door.gate import EXPLAINS
from explainer_runtime.hosts.door.pictured import FILES

PATH = "/v2/docs/dataplane.json"


def install(app: FastAPI) -> None:
    """Answer MLServer's path of the document with the whole document."""

    async def document() -> JSONResponse:
        return JSONResponse(merged(app))

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


def _mended(part: Any) -> Any:
    if isinstance(part, list):
        return [_mended(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: "string" if (key, value) == ("type", "bytes") else _mended(value) for key, value in part.items()
    }
