"""What `helm test` does: explain one row, and fail unless the answer is an explanation of it."""

import json
import math
import os
import urllib.request

address, name = os.environ["ADDRESS"], os.environ["EXPLAINER"]
model = f"{address}/v2/models/{name}"
headers = {"content-type": "application/json", "seldon-model": name}
if os.environ.get("TOKENS"):
    headers["authorization"] = "Bearer " + os.environ["TOKENS"].split()[0]


def call(url, body=None):
    """The JSON that an address answers with, to a GET or to a POST of `body`."""
    request = urllib.request.Request(url, body and json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=float(os.environ.get("TIMEOUT", "60"))) as answer:
        return json.load(answer)


shape = json.loads(os.environ.get("SHAPE", "[]"))
if not shape:
    shape = [abs(size) for size in call(model)["inputs"][0]["shape"][1:]]
row = [float(os.environ.get("VALUE", "0.5"))] * math.prod(shape)
rows = {"name": "image", "datatype": "FP32", "shape": [1, *shape], "data": row}
answer = call(f"{model}/infer", {"inputs": [rows]})
outputs = {output["name"]: output["data"] for output in answer["outputs"]}
explanation = json.loads(outputs["explanation"][0])
assert {"meta", "data"} <= set(explanation), explanation
print("explained one row:", outputs["status"][0])
