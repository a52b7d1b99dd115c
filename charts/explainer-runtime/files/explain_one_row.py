"""What `helm test` does: explain one row with each explainer, and say in one line what came of it."""

import contextlib
import json
import math
import os
import ssl
import sys
import urllib.error
import urllib.request

address, served = os.environ["ADDRESS"], os.environ["EXPLAINER"]
headers = {"content-type": "application/json"}
if os.environ.get("TOKENS"):
    headers["authorization"] = "Bearer " + os.environ["TOKENS"].split()[0]
trust = None
if folder := os.environ.get("CERTIFICATES"):
    authority = os.path.join(folder, "ca.crt")
    pair = os.path.join(folder, "tls.crt"), os.path.join(folder, "tls.key")
    trust = ssl.create_default_context(cafile=authority if os.path.exists(authority) else pair[0])
    trust.load_cert_chain(*pair)  # where clients must show one, too


class Refused(Exception):
    """What the server said instead of an answer."""


def call(path, body=None, **more):
    """The JSON that an address answers with, to a GET or to a POST of `body`."""
    request = urllib.request.Request(address + path, body and json.dumps(body).encode(), {**headers, **more})
    seconds = float(os.environ.get("TIMEOUT", "60"))
    try:
        with urllib.request.urlopen(request, timeout=seconds, context=trust) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read(2000).decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["error"]
        raise Refused(f"{path} answered {error.code}: {text}") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{path} at {address}: {getattr(error, 'reason', error)}") from None


def names():
    """The explainers that the server has; where it cannot say, the one that the chart has named."""
    try:
        return call("/v1/models")["models"] or [served]
    except (Refused, KeyError, TypeError):
        return [served]


def explained(name):
    """What became of one row."""
    model = f"/v2/models/{name}"
    shape = json.loads(os.environ.get("SHAPE", "[]"))
    if not shape:
        shape = [abs(size) for size in call(model, **{"seldon-model": name})["inputs"][0]["shape"][1:]]
    row = [float(os.environ.get("VALUE", "0.5"))] * math.prod(shape)
    rows = {"name": "image", "datatype": "FP32", "shape": [1, *shape], "data": row}
    answer = call(f"{model}/infer", {"inputs": [rows]}, **{"seldon-model": name})
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    if not {"meta", "data"} <= set(json.loads(outputs["explanation"][0])):
        raise Refused(f"{model}/infer answered with something that is no explanation")
    return outputs["status"][0]


failed = False
for name in names():
    try:
        print(f"{name}: explained one row: {explained(name)}")
    except Refused as error:
        print(f"{name}: {error}")
        failed = True
sys.exit(failed)
