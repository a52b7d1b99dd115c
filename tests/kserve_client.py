"""KServe's own client, for tests: run in KServe's environment; asks, and prints what it was answered.

Arguments: the server's address, the model's name, the rows as JSON, and `binary` where the server takes
tensors as bytes.
"""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

rest, model, rows = sys.argv[1], sys.argv[2], np.array(json.loads(sys.argv[3]), np.float32)


def arrays(response):
    return {
        output.name: [output.datatype, np.asarray(output.as_numpy()).ravel().tolist()]
        for output in response.outputs
    }


async def infer(binary, outputs=None):
    image = InferInput("image", list(rows.shape), "FP32")
    image.set_data_from_numpy(rows, binary_data=binary)
    parameters = {"explain_parameters": '{"seed": 3}'} | ({"binary_data_output": True} if binary else {})
    request = InferRequest(model, [image], request_id="42", parameters=parameters)
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=30))
    response = await client.infer(rest, request, model_name=model)
    told = {**arrays(response), "id": response.id}
    told["explanation"] = None
    return told


async def explain():
    client = InferenceRESTClient(RESTConfig(protocol="v1", timeout=30))
    body = {"instances": rows.tolist(), "parameters": {"seed": 3}}
    return await client.explain(rest, model_name=model, data=body)


async def main():
    answers = {"json": await infer(False), "explain": await explain()}
    if "binary" in sys.argv:
        answers["binary"] = await infer(True)
    print(json.dumps(answers))


asyncio.run(main())
