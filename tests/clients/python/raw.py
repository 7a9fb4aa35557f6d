"""A call on a bare HTTP/2 connection, for what gRPC's own client would not send."""

import base64
import socket

import grpc
import h2.connection
import h2.events
from node import Refused

CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def raw_call(port, path, message, headers):
    """Calls an RPC that is expected to be refused; returns the refusal."""
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    head = {":method": "POST", ":scheme": "http", ":authority": "node", ":path": path}
    head |= {"content-type": "application/grpc", "te": "trailers", **headers}
    connection.send_headers(1, list(head.items()))
    connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    answer = {}
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stream:
        while True:
            stream.sendall(connection.data_to_send())
            for event in connection.receive_data(stream.recv(1 << 16)):
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    answer |= {name.decode(): value.decode() for name, value in event.headers}
                if isinstance(event, h2.events.StreamEnded):
                    details = answer.get("grpc-status-details-bin", "")
                    packed = base64.b64decode(details + "=" * (-len(details) % 4))
                    return Refused(CODES[int(answer["grpc-status"])], answer.get("grpc-message"), packed)
