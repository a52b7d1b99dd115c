"""The messages of the Open Inference Protocol for gRPC, in a descriptor pool of their own.

MLServer, KServe and Triton each ship generated code that registers the protobuf package `inference` in
the process-wide default pool, and any two of them in one process collide (kserve#2744). We are loaded into
such processes, so there is no generated code here: the messages are built from the text below, in a
private pool that nobody else sees. What goes over the wire is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# One line a field, as in a .proto: `type name = number`. A dot nests a message in the one before the dot;
# `map` is the protocol's only map, from string to InferParameter; `oneof` marks the arms of its only choice.
_PROTO = """
ServerLiveRequest:
ServerLiveResponse:
  bool live = 1
ServerReadyRequest:
ServerReadyResponse:
  bool ready = 1
ModelReadyRequest:
  string name = 1
  string version = 2
ModelReadyResponse:
  bool ready = 1
ServerMetadataRequest:
ServerMetadataResponse:
  string name = 1
  string version = 2
  repeated string extensions = 3
ModelMetadataRequest:
  string name = 1
  string version = 2
ModelMetadataResponse:
  string name = 1
  repeated string versions = 2
  string platform = 3
  repeated ModelMetadataResponse.TensorMetadata inputs = 4
  repeated ModelMetadataResponse.TensorMetadata outputs = 5
  map parameters = 6
ModelMetadataResponse.TensorMetadata:
  string name = 1
  string datatype = 2
  repeated int64 shape = 3
  map parameters = 4
ModelInferRequest:
  string model_name = 1
  string model_version = 2
  string id = 3
  map parameters = 4
  repeated ModelInferRequest.InferInputTensor inputs = 5
  repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6
  repeated bytes raw_input_contents = 7
ModelInferRequest.InferInputTensor:
  string name = 1
  string datatype = 2
  repeated int64 shape = 3
  map parameters = 4
  InferTensorContents contents = 5
ModelInferRequest.InferRequestedOutputTensor:
  string name = 1
  map parameters = 2
ModelInferResponse:
  string model_name = 1
  string model_version = 2
  string id = 3
  map parameters = 4
  repeated ModelInferResponse.InferOutputTensor outputs = 5
  repeated bytes raw_output_contents = 6
ModelInferResponse.InferOutputTensor:
  string name = 1
  string datatype = 2
  repeated int64 shape = 3
  map parameters = 4
  InferTensorContents contents = 5
InferParameter:
  oneof bool bool_param = 1
  oneof int64 int64_param = 2
  oneof string string_param = 3
InferTensorContents:
  repeated bool bool_contents = 1
  repeated int32 int_contents = 2
  repeated int64 int64_contents = 3
  repeated uint32 uint_contents = 4
  repeated uint64 uint64_contents = 5
  repeated float fp32_contents = 6
  repeated double fp64_contents = 7
  repeated bytes bytes_contents = 8
"""

_Field = descriptor_pb2.FieldDescriptorProto
_Message = descriptor_pb2.DescriptorProto


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="explainer_runtime/oip.proto", package="inference", syntax="proto3"
    )
    messages: dict[str, _Message] = {}
    path = ""
    for line in _PROTO.strip().splitlines():
        if line.startswith(" "):
            _add_field(messages[path], path, line.split())
        else:
            path = line.rstrip(":")
            parent, _, name = path.rpartition(".")
            siblings = messages[parent].nested_type if parent else file.message_type
            messages[path] = siblings.add(name=name)
    return file


def _add_field(message: _Message, path: str, words: list[str]) -> None:
    *label, kind, name, _, number = words
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if label == ["repeated"] or kind == "map":
        field.label = _Field.LABEL_REPEATED
    if label == ["oneof"]:
        field.oneof_index = 0
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
    if kind == "map":
        # protobuf writes a map as a repeated message of two fields.
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        _add_field(entry, "", ["string", "key", "=", "1"])
        _add_field(entry, "", ["InferParameter", "value", "=", "2"])
        kind = f"{path}.ParametersEntry"
    if kind[0].isupper():
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".inference.{kind}"
    else:
        field.type = _Field.Type.Value(f"TYPE_{kind.upper()}")


def _classes() -> dict[str, Any]:
    file = _file()
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = {one.name: pool.FindMessageTypeByName(f"inference.{one.name}") for one in file.message_type}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


MESSAGES: dict[str, Any] = _classes()
"""Message name -> class, for every top-level message of the protocol."""

ModelInferRequest = MESSAGES["ModelInferRequest"]
ModelInferResponse = MESSAGES["ModelInferResponse"]
ModelMetadataRequest = MESSAGES["ModelMetadataRequest"]
ModelMetadataResponse = MESSAGES["ModelMetadataResponse"]

SERVICE = "inference.GRPCInferenceService"
"""A method's path is `/<SERVICE>/<method>`; its messages are `<method>Request` and `<method>Response`."""


def method(channel: Any, name: str) -> Callable[..., Any]:
    """The unary method `name` of the service on a gRPC channel: message in, message out."""
    call: Callable[..., Any] = channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=MESSAGES[f"{name}Request"].SerializeToString,
        response_deserializer=MESSAGES[f"{name}Response"].FromString,
    )
    return call
