"""Nodes as processes, connections to them, and what their refusals say."""

import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time

import grpc
import storage_pb2 as pb
import storage_pb2_grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

BINARY = ""
DOMAIN = "storage.pairdb"
# However full the disk is on which this runs.
ROOMY = {
    "PAIRDB__DISK__WARN_USAGE": "0.98",
    "PAIRDB__STORAGE__MAX_DISK_USAGE": "0.99",
    "PAIRDB__DISK__STOP_USAGE": "1.0",
}
# No limits of the client's own, and a connection for each channel.
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


def connect(port, **options):
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS, **options)


class Node:
    """A node that ends with the block in which it was started, and its data with it."""

    def __init__(self, **environment):
        self.environment = {**os.environ, **ROOMY, **environment}
        self.dir = tempfile.TemporaryDirectory()
        self.data = pathlib.Path(self.dir.name, "data")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.channel.close()
        self.process.kill()
        self.process.wait()
        self.dir.cleanup()

    def start(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        log = pathlib.Path(self.dir.name, "node.log")
        arguments = ["serve", "--data-dir", str(self.data), "--listen", f"127.0.0.1:{self.port}"]
        with log.open("a") as out:
            self.process = subprocess.Popen([BINARY, *arguments], env=self.environment, stderr=out)
        self.channel = connect(self.port)
        self.stub = storage_pb2_grpc.StorageNodeServiceStub(self.channel)
        try:
            grpc.channel_ready_future(self.channel).result(timeout=30)
        except grpc.FutureTimeoutError:
            raise SystemExit(f"the node does not serve:\n{log.read_text()}") from None

    def ask_to_stop(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        self.ask_to_stop()
        self.process.wait(timeout=60)
        self.channel.close()


class Refused(Exception):
    """A status, with its details unpacked: what the contract says of it."""

    def __init__(self, code, message, packed):
        super().__init__(f"{code}: {message}")
        self.code = code
        packed = status_pb2.Status.FromString(packed)
        self.info = unpack(packed, error_details_pb2.ErrorInfo)
        self.retry = unpack(packed, error_details_pb2.RetryInfo)
        self.clock = unpack(packed, pb.VectorClock)
        bad = unpack(packed, error_details_pb2.BadRequest)
        self.fields = [violation.field for violation in bad.field_violations] if bad else []
        self.reason = self.info.reason if self.info else None


def refused(error):
    trailers = dict(error.trailing_metadata() or ())
    return Refused(error.code().name, error.details(), trailers.get("grpc-status-details-bin", b""))


def unpack(packed, kind):
    for detail in packed.details:
        if detail.Is(kind.DESCRIPTOR):
            message = kind()
            any_pb2.Any.Unpack(detail, message)
            return message
    return None


def call(stub, rpc, request, timeout=30):
    """The answer; a list of them from a stream."""
    try:
        answer = getattr(stub, rpc)(request, timeout=timeout)
        return answer if hasattr(answer, "DESCRIPTOR") else list(answer)
    except grpc.RpcError as error:
        raise refused(error) from None


def refusal(stub, rpc, request, timeout=30):
    try:
        answer = call(stub, rpc, request, timeout)
    except Refused as error:
        return error
    raise AssertionError(f"is accepted: {str(answer)[:200]!r}")


def expect_refusal(refusal, code, reason, field=None):
    """Code, reason and all details that belong to them."""
    assert refusal.code == code, f"{refusal}, not {code}"
    assert refusal.info is not None, f"{refusal}: no ErrorInfo"
    assert refusal.info.domain == DOMAIN, refusal.info.domain
    assert refusal.reason == reason, f"{refusal}: reason {refusal.reason}, not {reason}"
    retryable = code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
    assert (refusal.retry is not None) == retryable, f"{refusal}: RetryInfo {refusal.retry}"
    if field is not None:
        assert refusal.fields == [field], f"{refusal}: names {refusal.fields}, not {field}"


def eventually(what, check, seconds=30):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Counting:
    """Passes connections on to a node, and counts the bytes of both directions."""

    def __init__(self, port):
        self.node, self.sent, self.received = port, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        client, _ = self.listener.accept()
        node = socket.create_connection(("127.0.0.1", self.node))
        for source, to, counter in ((client, node, "sent"), (node, client, "received")):
            threading.Thread(target=self.pump, args=(source, to, counter), daemon=True).start()

    def pump(self, source, to, counter):
        try:
            while data := source.recv(1 << 16):
                setattr(self, counter, getattr(self, counter) + len(data))
                to.sendall(data)
        except OSError:
            pass
