"""What lies below the RPCs: deadlines, compression, reflection, health for balancers, limits of the transport."""

import os

import grpc
import storage_pb2 as pb
import storage_pb2_grpc
from answers import case, read, write
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from limits import MIB
from node import Counting, Node, call, connect, eventually, expect_refusal, refusal, refused
from raw import raw_call

SERVICE = "storage.StorageNodeService"


@case()
def a_deadline_is_honoured(node):
    # By hand, because gRPC's own client would not wait for the answer.
    request = write("late", b"v", ("a", 1)).SerializeToString()
    late = raw_call(node.port, f"/{SERVICE}/Write", request, {"grpc-timeout": "1n"})
    expect_refusal(late, "DEADLINE_EXCEEDED", "UNKNOWN")
    expect_refusal(refusal(node.stub, "Read", read("late")), "NOT_FOUND", "KEY_NOT_FOUND")


@case()
def gzip_works_both_ways(node):
    value = b"compressible " * 100_000
    counting = Counting(node.port)
    with connect(counting.port, compression=grpc.Compression.Gzip) as channel:
        stub = storage_pb2_grpc.StorageNodeServiceStub(channel)
        call(stub, "Write", write("gzip", value, ("a", 1)))
        assert call(stub, "Read", read("gzip")).value == value
        for way, count in (("requests", counting.sent), ("answers", counting.received)):
            assert count < len(value) / 10, f"{way} are not compressed: {count} bytes for {len(value)}"
        # Small enough on the wire, and too large when unpacked: first for a value, then for a message.
        for size, field in ((10 * MIB + 1, "value"), (40 * MIB, "")):
            answer = refusal(stub, "Write", write("gzip", b"\0" * size, ("a", 2)))
            expect_refusal(answer, "INVALID_ARGUMENT", "INVALID_REQUEST", field)
    assert call(node.stub, "Read", read("gzip")).value == value


@case()
def a_message_too_large_to_be_read_is_an_invalid_request(node):
    huge = refusal(node.stub, "Write", write("huge", b"v" * (30 * MIB), ("a", 1)))
    expect_refusal(huge, "INVALID_ARGUMENT", "INVALID_REQUEST")


@case()
def too_much_at_once_is_to_be_tried_later(node):
    # Streams of which nobody takes anything stay open, as what they carry cannot be compressed; few may be.
    for n in range(12):
        call(node.stub, "Write", write(f"s{n:02}", os.urandom(MIB), ("a", 1), tenant="scan"))
    reflected = DescriptorPool(ProtoReflectionDescriptorDatabase(node.channel))
    scan, entry = (message(reflected, name) for name in ("storage.ScanRequest", "storage.ScanEntry"))
    rpc = node.channel.unary_stream(f"/{SERVICE}/Scan", scan.SerializeToString, entry.FromString)
    whole = [e.key for e in rpc(scan(tenant_id="scan"), timeout=30)]
    assert whole == [f"s{n:02}" for n in range(12)], whole
    open_streams = []
    try:
        for _ in range(64):
            stream = rpc(scan(tenant_id="scan"), timeout=30)
            open_streams.append(stream)
            next(stream)
        raise AssertionError("64 scans are open at once")
    except grpc.RpcError as error:
        expect_refusal(refused(error), "RESOURCE_EXHAUSTED", "MEMORY_PRESSURE")
    finally:
        for stream in open_streams:
            stream.cancel()


def message(reflected, name):
    return message_factory.GetMessageClass(reflected.FindMessageTypeByName(name))


@case()
def what_the_node_does_not_have_is_unimplemented(node):
    raw = {"request_serializer": None, "response_deserializer": None}
    for method in (f"/{SERVICE}/Nothing", "/storage.Nobody/Write"):
        try:
            node.channel.unary_unary(method, **raw)(b"", timeout=30)
            raise AssertionError(f"{method} is answered")
        except grpc.RpcError as error:
            expect_refusal(refused(error), "UNIMPLEMENTED", "UNKNOWN")


@case()
def reflection_lists_the_services_in_both_versions(node):
    for version in ("v1", "v1alpha"):
        rpc = node.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = rpc(iter([question]), timeout=30)
        names = {service.name for service in answer.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names, f"{version}: {names}"


@case()
def reflection_describes_what_the_contract_says(node):
    reflected = DescriptorPool(ProtoReflectionDescriptorDatabase(node.channel))
    ours = pb.DESCRIPTOR
    theirs = reflected.FindServiceByName(SERVICE)
    for method in ours.services_by_name["StorageNodeService"].methods:
        assert shape(theirs.methods_by_name[method.name]) == shape(method), method.full_name
    for name, kind in ours.message_types_by_name.items():
        fields = reflected.FindMessageTypeByName(kind.full_name).fields_by_name
        for field in kind.fields:
            assert field.name in fields, f"{name} has no {field.name}"
            assert field_shape(fields[field.name]) == field_shape(field), field.full_name
        # What the node added has numbers from 100 up.
        added = [f.full_name for f in fields.values() if f.name not in kind.fields_by_name and f.number < 100]
        assert not added, added
    codes = reflected.FindEnumTypeByName("storage.ErrorCode").values_by_name
    assert {n: v.number for n, v in codes.items()} == dict(pb.ErrorCode.items())


def shape(method):
    types = (method.input_type.full_name, method.output_type.full_name)
    return (*types, method.client_streaming, method.server_streaming)


def field_shape(field):
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
    kind = field.message_type or field.enum_type
    return (field.number, field.type, repeated, kind and kind.full_name)


@case()
def the_health_service_answers_and_tells_of_the_end(_):
    with Node() as node:
        stub = health_pb2_grpc.HealthStub(node.channel)
        serving = health_pb2.HealthCheckResponse
        for service in ("", SERVICE):
            status = call(stub, "Check", health_pb2.HealthCheckRequest(service=service)).status
            assert status == serving.SERVING, f"{service!r}: {status}"
        unknown = health_pb2.HealthCheckRequest(service="storage.Nobody")
        expect_refusal(refusal(stub, "Check", unknown), "NOT_FOUND", "UNKNOWN")
        assert next(stub.Watch(unknown, timeout=30)).status == serving.SERVICE_UNKNOWN
        watched = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=30)
        assert next(watched).status == serving.SERVING
        node.ask_to_stop()
        assert [answer.status for answer in watched] == [serving.NOT_SERVING]
        assert node.process.wait(timeout=30) == 0


@case("DrainNode")
def a_drained_node_is_not_serving(_):
    with Node() as node:
        stub = health_pb2_grpc.HealthStub(node.channel)
        call(node.stub, "DrainNode", pb.DrainRequest(graceful=True, timeout_seconds=20))

        def is_out():
            status = call(stub, "Check", health_pb2.HealthCheckRequest()).status
            return status == health_pb2.HealthCheckResponse.NOT_SERVING

        eventually("health says so", is_out)


@case()
def connections_beyond_the_limit_are_closed(_):
    with Node(PAIRDB__SERVER__MAX_CONNECTIONS="1") as node:
        with connect(node.port) as one_more:
            stub = storage_pb2_grpc.StorageNodeServiceStub(one_more)
            closed = refusal(stub, "Read", read("k"))
            assert closed.code == "UNAVAILABLE" and closed.info is None, closed
        expect_refusal(refusal(node.stub, "Read", read("k")), "NOT_FOUND", "KEY_NOT_FOUND")
