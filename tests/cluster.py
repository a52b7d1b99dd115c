"""As much of a cluster's API as Helm asks for, on loopback: objects are kept and patched, and nothing runs.

Patches are those of the API: strategic merges, which Helm 3 sends, and server-side apply, which Helm 4 sends
and which here simply takes what is sent, since nobody else owns a field.
"""

from __future__ import annotations

import base64
import copy
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

KINDS = {
    "v1": {"secrets": "Secret", "services": "Service", "pods": "Pod", "configmaps": "ConfigMap",
           "serviceaccounts": "ServiceAccount"},
    "apps/v1": {"deployments": "Deployment"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "serving.kserve.io/v1beta1": {"inferenceservices": "InferenceService"},
}  # fmt: skip
_MERGED_BY = ("name", "mountPath", "containerPort", "port", "topologyKey")
_PATH = re.compile(
    r"/(?:api|apis)/(?P<group>v1|[^/]+/[^/]+)/namespaces/(?P<space>[^/]+)/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?"
)


class Cluster:
    """The objects that are there, by kind and name, and where to ask for them."""

    def __init__(self, config: Path) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.config = config
        self.lock = threading.Lock()

    def made(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What a release has made, without Helm's own records."""
        return {key: one for key, one in self.objects.items() if one.get("type") != "helm.sh/release.v1"}


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that is empty, and a kubeconfig for it."""
    one = Cluster(folder / "kubeconfig")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Api", (_Api,), {"cluster": one}))
    address = f"http://127.0.0.1:{server.server_address[1]}"
    one.config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": {"server": address}}],
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                "users": [{"name": "me", "user": {}}],
            }
        )
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def merged(old: Any, patch: Any) -> Any:
    """A strategic merge: objects by their fields, lists of objects by the field that names them."""
    if isinstance(old, dict) and isinstance(patch, dict):
        made = copy.deepcopy(old)
        for key, value in patch.items():
            if key.startswith("$"):
                continue
            if value is None:
                made.pop(key, None)
            else:
                made[key] = merged(made.get(key), value)
        for key in [
            key for key in made if f"$setElementOrder/{key}" in patch and isinstance(made[key], list)
        ]:
            made[key] = _ordered(made[key], patch[f"$setElementOrder/{key}"])
        return made
    by = _merge_key(old, patch)
    if by is None:
        return copy.deepcopy(patch)
    made = {one[by]: one for one in copy.deepcopy(old)}
    for one in patch:
        if one.get("$patch") == "delete":
            made.pop(one[by], None)
        else:
            made[one[by]] = merged(made.get(one[by], {}), one)
    return list(made.values())


def _merge_key(old: Any, patch: Any) -> str | None:
    if not (isinstance(old, list) and isinstance(patch, list) and old and patch):
        return None
    if not all(isinstance(one, dict) for one in [*old, *patch]):
        return None
    keys = (key for key in _MERGED_BY if all(key in one for one in [*old, *patch]))
    return next(keys, None)


def _ordered(items: list[Any], order: list[Any]) -> list[Any]:
    by = _merge_key(items, order)
    if by is None:
        return items
    places = [one[by] for one in order]
    return sorted(items, key=lambda one: places.index(one[by]) if one[by] in places else len(places))


class _Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if (said := _discovery(parts.path)) is not None:
            return self.say(200, said)
        found = _PATH.fullmatch(parts.path)
        if found is None:
            return self.missing()
        kind = self.kind(found)
        if found["name"]:
            one = self.cluster.objects.get((kind, found["name"]))
            return self.say(200, one) if one else self.missing()
        wanted = parse_qs(parts.query).get("labelSelector", [""])[0]
        pairs = dict(pair.split("=", 1) for pair in wanted.split(",") if "=" in pair and "!=" not in pair)
        items = [
            one
            for (of, _), one in self.cluster.objects.items()
            if of == kind and pairs.items() <= one["metadata"].get("labels", {}).items()
        ]
        return self.say(200, {"kind": f"{kind}List", "apiVersion": found["group"], "items": items})

    def do_POST(self) -> None:
        found = _PATH.fullmatch(urlsplit(self.path).path)
        assert found
        return self.keep(found, self.body())

    do_PUT = do_POST

    def do_PATCH(self) -> None:
        found = _PATH.fullmatch(urlsplit(self.path).path)
        assert found
        key = self.kind(found), found["name"]
        patch = self.body()
        if "apply" in self.headers["content-type"]:
            return self.keep(found, patch)
        if key not in self.cluster.objects:
            return self.missing()
        if "strategic" in self.headers["content-type"]:
            return self.keep(found, merged(self.cluster.objects[key], patch))
        assert "merge-patch" in self.headers["content-type"]  # of custom kinds: lists are replaced
        return self.keep(found, _merge_patch(self.cluster.objects[key], patch))

    def do_DELETE(self) -> None:
        found = _PATH.fullmatch(urlsplit(self.path).path)
        assert found
        self.body()
        gone = self.cluster.objects.pop((self.kind(found), found["name"]), None)
        return self.say(200, gone) if gone else self.missing()

    def kind(self, found: re.Match[str]) -> str:
        return KINDS[found["group"]][found["plural"]]

    def keep(self, found: re.Match[str], made: dict[str, Any]) -> None:
        made.setdefault("apiVersion", found["group"])
        made.setdefault("kind", self.kind(found))
        made["metadata"]["uid"] = made["metadata"]["name"]
        made["metadata"]["resourceVersion"] = "1"
        self.cluster.objects[made["kind"], made["metadata"]["name"]] = made
        self.say(201 if self.command == "POST" else 200, made)

    def body(self) -> Any:
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        if sent.startswith(b"k8s\0"):  # Helm's own records come as protobuf
            return _secret(dict(_fields(sent[4:]))[2])
        return yaml.safe_load(sent or b"null")

    def missing(self) -> None:
        said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        self.say(404, said)

    def say(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _merge_patch(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = copy.deepcopy(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merge_patch(made.get(key), value)
    return made


def _secret(message: bytes) -> dict[str, Any]:
    """A Secret (k8s.io/api/core/v1/generated.proto), as far as Helm uses it."""
    about, data, labels, name, kind = b"", {}, {}, "", ""
    for number, value in _fields(message):
        match number:
            case 1:
                about = value
            case 2:
                pair = dict(_fields(value))
                data[pair[1].decode()] = base64.b64encode(pair[2]).decode()
            case 3:
                kind = value.decode()
    for number, value in _fields(about):
        if number == 1:
            name = value.decode()
        if number == 11:
            pair = dict(_fields(value))
            labels[pair[1].decode()] = pair.get(2, b"").decode()
    metadata = {"name": name, "namespace": "models", "labels": labels}
    return {"metadata": metadata, "data": data, "type": kind}


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protobuf message's fields."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == 2:  # a length, and so many bytes
            value, at = message[at : at + value], at + value
        yield tag >> 3, value


def _varint(message: bytes, at: int) -> tuple[Any, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at


def _discovery(path: str) -> Any:
    """What the API offers."""
    if path == "/version":
        return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for version in KINDS:
            if "/" in version:
                one = {"groupVersion": version, "version": version.split("/")[1]}
                groups.append({"name": version.split("/")[0], "versions": [one], "preferredVersion": one})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    for version, kinds in KINDS.items():
        if path == f"/api{'s' if '/' in version else ''}/{version}":
            verbs = ["create", "delete", "get", "list", "patch", "update"]
            resources = [
                {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
                for name, kind in kinds.items()
            ]
            return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    return None
