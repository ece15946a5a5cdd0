"""A plain gRPC client: grpcio and the messages, nothing of ours. Methods by the names of the service's descriptor."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass


class Stub:
    """One attribute for each method of a service, as grpcio's own generated stubs have them."""

    def __init__(self, channel: grpc.Channel, service: ServiceDescriptor) -> None:
        for method in service.methods:
            kinds = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
            make = getattr(channel, "_".join(kinds))
            made = make(
                f"/{service.full_name}/{method.name}",
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            setattr(self, method.name, made)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the service has no method {name}")
