"""A linear model on KServe's own server, for tests: run in KServe's environment with two ports."""

import sys

import numpy as np
from toys import rowwise, weights

ports = [int(port) for port in sys.argv[1:3]]
sys.argv[1:] = []

import kserve  # noqa: E402
from kserve import InferOutput, InferRequest, InferResponse  # noqa: E402


class Linear(kserve.Model):
    """Class probabilities; V2 as tensors, binary where asked for, and V1 as lists."""

    def load(self):
        self.classify = rowwise(weights())
        self.ready = True
        return True

    def get_input_types(self):
        return [{"name": "image", "datatype": "FP32", "shape": [-1, 4, 4, 1]}]

    def get_output_types(self):
        return [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}]

    def predict(self, payload, headers=None, response_headers=None):
        if not isinstance(payload, InferRequest):
            return {"predictions": self.classify(np.array(payload["instances"], np.float32)).tolist()}
        scores = self.classify(payload.inputs[0].as_numpy())
        output = InferOutput("scores", list(scores.shape), "FP32")
        output.set_data_from_numpy(scores, binary_data=payload.use_binary_outputs)
        return InferResponse(
            payload.id or "none",
            self.name,
            [output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


model = Linear("linear")
model.load()
kserve.ModelServer(http_port=ports[0], grpc_port=ports[1], workers=1).start([model])
