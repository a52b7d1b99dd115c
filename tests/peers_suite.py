"""What two other makers' clients can ask of a model server: asks all of it, and prints the answers.

Arguments: which client (`triton`, or `kserve` in KServe's environment), `host:port` of REST, gRPC, the
model's name.
"""

import asyncio
import json
import sys

import numpy as np

client, rest, grpc, model = sys.argv[1:5]
rows = np.linspace(0, 1, 32, dtype=np.float32).reshape(2, 4, 4, 1)
said = {}


def note(name, ask):
    """An answer, or the words of a refusal."""
    try:
        said[name] = ask()
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"


def triton():
    import tritonclient.grpc as over_grpc
    import tritonclient.http as over_rest

    def scores(kind, **more):
        image = kind.InferInput("image", list(rows.shape), "FP32")
        image.set_data_from_numpy(rows, **more.pop("data", {}))
        answer = make[kind].infer(model, [image], request_id="42", **more)
        return answer.as_numpy("scores").tolist()

    make = {
        over_rest: over_rest.InferenceServerClient(rest),
        over_grpc: over_grpc.InferenceServerClient(grpc),
    }
    for kind, one in make.items():
        name = kind.__name__
        note(f"{name} live", one.is_server_live)
        note(f"{name} ready", one.is_server_ready)
        note(f"{name} model", lambda one=one: one.is_model_ready(model))
        note(f"{name} no model", lambda one=one: one.is_model_ready("absent"))
        note(f"{name} server", lambda one=one: str(one.get_server_metadata()))
        note(f"{name} metadata", lambda one=one: str(one.get_model_metadata(model)))
        note(f"{name} infer", lambda kind=kind: scores(kind))
        note(f"{name} headers", lambda kind=kind: scores(kind, headers={"x-of-mine": "1"}))
        note(f"{name} outputs", lambda kind=kind: scores(kind, outputs=[kind.InferRequestedOutput("scores")]))
    note("json", lambda: scores(over_rest, data={"binary_data": False}))
    for packed in ("gzip", "deflate"):
        note(packed, lambda packed=packed: scores(over_rest, request_compression_algorithm=packed))
        note(f"{packed} over gRPC", lambda packed=packed: scores(over_grpc, compression_algorithm=packed))
        note(f"{packed} back", lambda packed=packed: scores(over_rest, response_compression_algorithm=packed))


async def kserve():
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

    async def noted(name, ask):
        try:
            said[name] = await ask
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}".replace(rest, "REST").replace(grpc, "gRPC")

    async def infer(one, *where, binary=False, **more):
        image = InferInput("image", list(rows.shape), "FP32")
        image.set_data_from_numpy(rows, binary_data=binary)
        answer = await one.infer(*where, InferRequest(model, [image], request_id="42"), **more)
        return [np.asarray(output.as_numpy()).tolist() for output in answer.outputs]

    url = f"http://{rest}"
    for protocol in ("v1", "v2"):
        one = InferenceRESTClient(RESTConfig(protocol=protocol, timeout=30))
        await noted(f"{protocol} live", one.is_server_live(url))
        await noted(f"{protocol} model", one.is_model_ready(url, model))
        await noted(f"{protocol} no model", one.is_model_ready(url, "absent"))
    await noted("v2 ready", one.is_server_ready(url))
    await noted("v2 infer", infer(one, url, model_name=model))
    await noted("v2 binary", infer(one, url, model_name=model, binary=True))
    one = InferenceRESTClient(RESTConfig(protocol="v1", timeout=30))
    body = {"instances": rows.tolist()}
    await noted("v1 predict", one.infer(url, body, model_name=model))
    await noted("v1 refused", one.infer(url, {"instances": "no"}, model_name=model))
    async with InferenceGRPCClient(grpc, use_ssl=False) as over_grpc:
        await noted("gRPC live", over_grpc.is_server_live())
        await noted("gRPC ready", over_grpc.is_server_ready())
        await noted("gRPC model", over_grpc.is_model_ready(model))
        await noted("gRPC infer", infer(over_grpc))


if client == "triton":
    triton()
else:
    asyncio.run(kserve())
print(json.dumps(said))
