"""Every limit of the contract, at it and one past it, on every RPC that carries what it limits."""

import storage_pb2 as pb

MIB = 1 << 20
MAX_I64, MIN_I64 = (1 << 63) - 1, -(1 << 63)


def clock(*entries):
    made = [pb.VectorClockEntry(coordinator_node_id=i, logical_timestamp=t) for i, t in entries]
    return pb.VectorClock(entries=made)


def many(count):
    return clock(*((f"c{i}", 1) for i in range(count)))


ID, TIME = "vector_clock.coordinator_node_id", "vector_clock.logical_timestamp"

# What is limited, its value, and the field that is named when it is refused; None: it is accepted.
LIMITS = [
    ("tenant of 1 byte", {"tenant_id": "t"}, None),
    ("tenant of 256 bytes", {"tenant_id": "t" * 256}, None),
    ("tenant of 256 bytes in 128 characters", {"tenant_id": "é" * 128}, None),
    ("tenant of 257 bytes", {"tenant_id": "t" * 257}, "tenant_id"),
    ("tenant of 257 bytes in 129 characters", {"tenant_id": "é" * 128 + "t"}, "tenant_id"),
    ("no tenant", {"tenant_id": ""}, "tenant_id"),
    ("tenant with ':'", {"tenant_id": "a:b"}, "tenant_id"),
    ("tenant with a newline", {"tenant_id": "a\n"}, "tenant_id"),
    ("tenant with DEL", {"tenant_id": "a\x7f"}, "tenant_id"),
    ("key of 1 byte", {"key": "1"}, None),
    ("key of 1024 bytes", {"key": "k" * 1024}, None),
    ("key with tab, newline and ':'", {"key": "a\tb\nc:d"}, None),
    ("key of 1025 bytes", {"key": "k" * 1025}, "key"),
    ("no key", {"key": ""}, "key"),
    ("key with NUL", {"key": "a\0"}, "key"),
    ("key with a carriage return", {"key": "a\r"}, "key"),
    ("key with a control character above ASCII", {"key": "a\u0085"}, "key"),
    ("value of 1 byte", {"key": "small", "value": b"v"}, None),
    ("value of 10 MiB", {"key": "large", "value": bytes(range(256)) * (10 * MIB // 256)}, None),
    ("no value", {"value": b""}, "value"),
    ("value of 10 MiB and 1 byte", {"value": b"v" * (10 * MIB + 1)}, "value"),
    ("value of 20 MiB", {"value": b"v" * (20 * MIB)}, "value"),
    ("no clock entries", {"key": "c0", "vector_clock": clock()}, None),
    ("1000 clock entries", {"key": "c1", "vector_clock": many(1000)}, None),
    ("1001 clock entries", {"vector_clock": many(1001)}, "vector_clock"),
    ("id of 128 bytes", {"key": "c2", "vector_clock": clock(("i" * 128, 1))}, None),
    ("id with a newline", {"key": "c3", "vector_clock": clock(("a\n", 1))}, None),
    ("id of 129 bytes", {"vector_clock": clock(("i" * 129, 1))}, ID),
    ("no id", {"vector_clock": clock(("", 1))}, ID),
    ("id with NUL", {"vector_clock": clock(("a\0b", 1))}, ID),
    ("timestamp 0", {"key": "c4", "vector_clock": clock(("a", 0))}, None),
    ("largest timestamp", {"key": "c5", "vector_clock": clock(("a", MAX_I64))}, None),
    ("timestamp -1", {"vector_clock": clock(("a", -1))}, TIME),
    ("smallest timestamp", {"vector_clock": clock(("a", MIN_I64))}, TIME),
    ("a bad entry behind good ones", {"vector_clock": clock(("a", 1), ("b", 2), ("c", -1))}, TIME),
]

VALID = {"tenant_id": "limits", "key": "k", "value": b"v", "vector_clock": clock(("a", 1))}
REQUESTS = {
    "Write": pb.WriteRequest,
    "Repair": pb.RepairRequest,
    "Delete": pb.DeleteRequest,
    "Read": pb.ReadRequest,
}


def cases():
    """RPC, what, request, and the field at fault, if any; writes before the reads of what they wrote."""
    for what, fields, fault in LIMITS:
        for rpc, kind in REQUESTS.items():
            known = kind.DESCRIPTOR.fields_by_name
            if all(name in known for name in fields):
                yield rpc, what, kind(**{n: v for n, v in {**VALID, **fields}.items() if n in known}), fault
    for rpc, kind in (("StreamKeys", pb.StreamKeysRequest), ("GetKeyRange", pb.KeyRangeRequest)):
        for what, fields, fault in LIMITS:
            if set(fields) == {"tenant_id"}:
                yield rpc, what, kind(**fields), fault
    yield "ReplicateData", "no tenant", pb.ReplicateRequest(target_node_id="n"), "tenant_id"
    yield "GetStreamStatus", "no target", pb.StreamStatusRequest(source_node_id="n"), "target_node_id"
