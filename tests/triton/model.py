"""A linear softmax for Triton's Python backend; its weights lie beside it, NumPy in `PACKAGES`."""

import os
import sys
from pathlib import Path

sys.path.insert(0, os.environ["PACKAGES"])

import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    """What the backend looks for."""

    def initialize(self, _):
        self.weights = np.load(Path(__file__).with_name("weights.npy")).astype(np.float64)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        rows = triton.get_input_tensor_by_name(request, "image").as_numpy()
        exp = np.exp(rows.reshape(len(rows), -1) @ self.weights.T)
        scores = (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)
        return triton.InferenceResponse([triton.Tensor("scores", scores)])
