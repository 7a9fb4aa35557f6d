"""What the RPCs answer beyond limits: clocks, statuses, and the calls that belong together. Each function is one case; the
RPCs that it needs beside those of every node stand above it."""

import threading
import time

import storage_pb2 as pb
from limits import MIB, clock
from node import Node, call, eventually, expect_refusal, refusal

CASES = []


def case(*needs):
    def add(function):
        CASES.append((function.__name__.replace("_", " "), needs, function))
        return function

    return add


def write(key, value, *entries, tenant="t"):
    return pb.WriteRequest(tenant_id=tenant, key=key, value=value, vector_clock=clock(*entries))


def read(key, tenant="t"):
    return pb.ReadRequest(tenant_id=tenant, key=key)


def as_map(vector_clock):
    return {e.coordinator_node_id: e.logical_timestamp for e in vector_clock.entries}


@case()
def a_write_is_read_back(node):
    written = call(node.stub, "Write", write("k1", b"v", ("c", 7)))
    assert written.success and written.error_code == pb.UNKNOWN and not written.error_message, written
    assert as_map(written.updated_vector_clock) == {"c": 7}, written
    found = call(node.stub, "Read", read("k1"))
    assert found.success and found.value == b"v" and as_map(found.vector_clock) == {"c": 7}, found
    assert found.error_code == pb.UNKNOWN and not found.error_message, found


@case()
def stale_and_concurrent_writes_succeed(node):
    call(node.stub, "Write", write("k2", b"new", ("a", 2)))
    stale = call(node.stub, "Write", write("k2", b"old", ("a", 1)))
    assert stale.success and as_map(stale.updated_vector_clock) == {"a": 2}, stale
    assert call(node.stub, "Read", read("k2")).value == b"new"
    assert call(node.stub, "Write", write("k2", b"beside", ("b", 1))).success
    assert as_map(call(node.stub, "Read", read("k2")).vector_clock) == {"a": 2, "b": 1}
    call(node.stub, "Write", write("k2", b"both", ("b", 1), ("a", 3)))
    assert call(node.stub, "Read", read("k2")).value == b"both"
    repair = pb.RepairRequest(tenant_id="t", key="k2", value=b"repaired", vector_clock=clock(("a", 4), ("b", 4)))
    assert call(node.stub, "Repair", repair).success
    assert call(node.stub, "Read", read("k2")).value == b"repaired"


@case()
def missing_and_deleted_keys_are_not_found(node):
    missing = refusal(node.stub, "Read", read("never"))
    expect_refusal(missing, "NOT_FOUND", "KEY_NOT_FOUND")
    assert missing.clock is None, missing.clock
    call(node.stub, "Write", write("k3", b"v", ("a", 1)))
    deleted = call(node.stub, "Delete", pb.DeleteRequest(tenant_id="t", key="k3", vector_clock=clock(("a", 2))))
    assert deleted.success and as_map(deleted.updated_vector_clock) == {"a": 2}, deleted
    gone = refusal(node.stub, "Read", read("k3"))
    expect_refusal(gone, "NOT_FOUND", "KEY_NOT_FOUND")
    assert as_map(gone.clock) == {"a": 2}, gone.clock
    other = refusal(node.stub, "Read", read("k1", tenant="another"))
    expect_refusal(other, "NOT_FOUND", "KEY_NOT_FOUND")


@case()
def ten_mebibytes_pass_both_ways(node):
    value = bytes(range(256)) * (10 * MIB // 256)
    call(node.stub, "Write", write("ten", value, ("a", 1)))
    assert call(node.stub, "Read", read("ten")).value == value


@case()
def the_node_tells_its_health(node):
    health = call(node.stub, "HealthCheck", pb.HealthCheckRequest())
    assert health.healthy and health.status == "healthy" and health.metrics["applied_seq"] != "0", health


@case()
def a_full_disk_refuses_writes(_):
    full = {"WARN_USAGE": "1e-9", "STOP_USAGE": "3e-9"}
    full = {f"PAIRDB__DISK__{name}": value for name, value in full.items()}
    with Node(**full, PAIRDB__STORAGE__MAX_DISK_USAGE="2e-9") as node:
        eventually("the disk is measured", lambda: not is_healthy(node))
        expect_refusal(refusal(node.stub, "Write", write("k", b"v", ("a", 1))), "RESOURCE_EXHAUSTED", "DISK_FULL")
        assert call(node.stub, "Delete", pb.DeleteRequest(tenant_id="t", key="k")).success
        expect_refusal(refusal(node.stub, "Read", read("k")), "NOT_FOUND", "KEY_NOT_FOUND")


def is_healthy(node):
    return call(node.stub, "HealthCheck", pb.HealthCheckRequest()).status == "healthy"


@case()
def a_write_without_an_answer_in_time_is_to_be_tried_again(_):
    # Nobody encodes, writes and syncs 10 MiB in a millisecond.
    with Node(PAIRDB__SERVER__WRITE_TIMEOUT="1ms") as node:
        late = refusal(node.stub, "Write", write("k", b"v" * (10 * MIB), ("a", 1)))
        expect_refusal(late, "UNAVAILABLE", "UNKNOWN")


@case()
def damage_is_data_loss_and_stays_where_it_is(_):
    with Node() as node:
        call(node.stub, "Write", write("k", b"v" * 1000, ("a", 1)))
        node.stop()
        tables = list((node.data / "sstables").glob("*.sst"))
        assert len(tables) == 1, tables
        with tables[0].open("r+b") as table:
            table.seek(40)
            table.write(b"\xff" * 8)
        node.start()
        expect_refusal(refusal(node.stub, "Read", read("k")), "DATA_LOSS", "CORRUPTED_DATA")
        call(node.stub, "Write", write("other", b"v", ("a", 1)))
        assert call(node.stub, "Read", read("other")).value == b"v"


@case("StreamKeys", "GetKeyRange")
def ranges_are_streamed_and_listed_by_pages(node):
    for n in range(5):
        call(node.stub, "Write", write(f"r{n}", f"{n}".encode(), ("a", n + 1), tenant="range"))
    streamed = call(node.stub, "StreamKeys", pb.StreamKeysRequest(tenant_id="range", batch_size=2))
    told = [(e.tenant_id, e.key, e.value, as_map(e.vector_clock), e.is_tombstone) for e in streamed]
    assert told == [("range", f"r{n}", f"{n}".encode(), {"a": n + 1}, False) for n in range(5)], told
    assert all(abs(e.timestamp / 1000 - time.time()) < 60 for e in streamed), streamed
    keys, page = [], pb.KeyRangeResponse(has_more=True)
    while page.has_more:
        request = pb.KeyRangeRequest(tenant_id="range", key_range_start=page.next_key, max_keys=2)
        page = call(node.stub, "GetKeyRange", request)
        assert 0 < len(page.keys) <= 2, page
        keys.extend(page.keys)
    assert keys == [f"r{n}" for n in range(5)], keys


@case("DrainNode")
def a_drained_node_takes_no_writes(_):
    with Node() as node:
        call(node.stub, "Write", write("k", b"v", ("a", 1)))
        drained = call(node.stub, "DrainNode", pb.DrainRequest(graceful=True, timeout_seconds=20))
        assert drained.success and drained.status in ("draining", "drained"), drained
        expect_refusal(refusal(node.stub, "Write", write("k", b"w", ("a", 2))), "UNAVAILABLE", "NODE_DRAINING")
        assert call(node.stub, "Read", read("k")).value == b"v"


STREAMING = ("StartStreaming", "StopStreaming", "GetStreamStatus", "NotifyStreamingComplete")


@case(*STREAMING)
def a_range_is_handed_over_with_its_live_writes(_):
    with Node(NODE_ID="from") as source, Node(NODE_ID="to") as target:
        pair = {"source_node_id": "from", "target_node_id": "to"}

        def state():
            return call(source.stub, "GetStreamStatus", pb.StreamStatusRequest(**pair))

        assert state().state == "not_found" and not state().active
        for n in range(100):
            call(source.stub, "Write", write(f"k{n}", b"copied", ("a", 1)))
        call(target.stub, "Write", write("k0", b"newer", ("a", 2)))
        whole_ring = [pb.StreamKeyRange(start_hash=0, end_hash=0)]
        start = pb.StartStreamingRequest(**pair, target_host="127.0.0.1", target_port=target.port, key_ranges=whole_ring)
        assert call(source.stub, "StartStreaming", start).success
        eventually("the copy is completed", lambda: state().state == "completed")
        assert call(target.stub, "Read", read("k99")).value == b"copied"
        assert call(target.stub, "Read", read("k0")).value == b"newer", "a copy overwrote newer data"
        call(source.stub, "Write", write("live", b"forwarded", ("a", 1)))
        eventually("a live write is forwarded", lambda: has(target, "live"))
        assert call(target.stub, "NotifyStreamingComplete", pb.StreamingCompleteRequest(**pair)).success
        assert call(source.stub, "StopStreaming", pb.StopStreamingRequest(**pair)).success
        assert not state().active


def has(node, key):
    try:
        return bool(call(node.stub, "Read", read(key)).value)
    except Exception:
        return False


@case()
def many_clients_at_once_are_all_answered(node):
    wrong = []

    def run(client):
        for n in range(50):
            key, value = f"m{client}-{n}", f"{client}-{n}".encode()
            call(node.stub, "Write", write(key, value, ("c", n + 1)))
            if call(node.stub, "Read", read(key)).value != value:
                wrong.append(key)

    threads = [threading.Thread(target=run, args=(client,)) for client in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    assert call(node.stub, "Read", read("m15-49")).value == b"15-49"
