"""Seldon's own client, for tests: run in an environment with seldon-core; asks, and prints the answer."""

import json
import sys

import numpy as np
from seldon_core.seldon_client import SeldonClient

gateway, rows = sys.argv[1], np.array(json.loads(sys.argv[2]))
answers = {}
for payload_type in ("tensor", "ndarray"):
    client = SeldonClient(gateway="istio", gateway_endpoint=gateway, payload_type=payload_type)
    # In a cluster the ingress takes the deployment's prefix off the path; here there is none.
    answer = client.explain(predictor="default", data=rows, transport="rest", gateway_prefix="")
    answers[payload_type] = answer.response
    assert answer.success, answer.msg
print(json.dumps(answers))
