"""V1, TensorFlow Serving's `:predict`, which KServe speaks as well: `instances` there, `predictions` back.

Lists of numbers and nothing else: no datatypes, no metadata, no version in the answer. It is here because
many models are served no other way; whoever has the choice takes V2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from explainer_runtime.errors import InvalidPrediction
from explainer_runtime.predictors.remote.http import Http, path, read_json
from explainer_runtime.predictors.remote.tensors import TEXT, Answer, Described, Tensor, decode, pick
from explainer_runtime.predictors.settings import Endpoint


class Predict:
    """V1's side of a `RemotePredictor`; see `Transport` there. Opens nothing until it is used."""

    def __init__(self, settings: Endpoint, http: Http, source: str) -> None:
        self._path = path(settings, ":predict")
        self._input, self._output = settings.input_name, settings.output_name
        self._signature = settings.signature
        self._source, self._http = source, http

    def infer(self, inputs: Sequence[Tensor], until: float) -> Answer:
        """Send the rows, by name where they have one, and return the predictions; those named `output_name`
        where there are several."""
        instances: Any = inputs[0].data
        if self._input is not None or len(inputs) > 1:
            names = [one.name for one in inputs]
            instances = [
                dict(zip(names, row, strict=True)) for row in zip(*(one.data for one in inputs), strict=True)
            ]
        signature = {} if self._signature is None else {"signature_name": self._signature}
        body = orjson.dumps({**signature, "instances": instances}, option=orjson.OPT_SERIALIZE_NUMPY)
        answer = read_json(self._http.post(self._path, body, until).content, self._source)
        try:
            numbers = np.asarray([self._chosen(one) for one in answer["predictions"]])
        except (KeyError, TypeError):
            raise InvalidPrediction(f"{self._source} answered with JSON that is no V1 response") from None
        except ValueError:
            raise InvalidPrediction(f"{self._source} answered with a ragged list") from None
        # JSON has one kind of number: a list of whole ones is labels, rows of them are scores.
        datatype = "INT64" if numbers.dtype.kind == "i" and numbers.ndim == 1 else "FP64"
        return Answer(decode(numbers, datatype, numbers.shape, self._source))

    def bytes_of(self, datatype: str) -> int:
        """Most bytes that one number of this datatype takes, as text with a comma and brackets."""
        return TEXT[datatype] + 2

    def describe(self, until: float) -> Described:
        """Nothing: V1 has no metadata that all its servers share."""
        return Described({})

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def _chosen(self, prediction: Any) -> Any:
        """One row's output; a model with several answers an object a row."""
        if not isinstance(prediction, dict):
            return prediction
        names = list(prediction)
        return prediction[names[pick(names, self._output, self._source)]]
