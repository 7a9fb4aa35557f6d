//! The wire format, byte by byte, against encodings written down from the contract and not made by the generated code.

use pairdb_node::rpc::pb;
use prost::Message;

/// Length-delimited field.
fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2, content.len() as u8], content].concat()
}

/// Varint field with a small value.
fn varint(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

fn clock() -> Vec<u8> {
    bytes(1, &[bytes(1, b"c1"), varint(2, 7)].concat())
}

fn wire_clock() -> Option<pb::VectorClock> {
    Some(pb::VectorClock {
        entries: vec![pb::VectorClockEntry {
            coordinator_node_id: "c1".into(),
            logical_timestamp: 7,
        }],
    })
}

#[test]
fn requests_have_the_contracts_field_numbers() {
    let write = [
        bytes(1, b"t"),
        bytes(2, b"k"),
        bytes(3, b"v"),
        bytes(4, &clock()),
        bytes(5, b"id"),
    ]
    .concat();
    let expected = pb::WriteRequest {
        tenant_id: "t".into(),
        key: "k".into(),
        value: b"v".to_vec(),
        vector_clock: wire_clock(),
        idempotency_key: "id".into(),
        is_copy: false,
    };
    assert_eq!(expected.encode_to_vec(), write);
    assert_eq!(pb::WriteRequest::decode(write.as_slice()).unwrap(), expected);
    let delete = pb::DeleteRequest {
        tenant_id: "t".into(),
        key: "k".into(),
        vector_clock: wire_clock(),
        idempotency_key: "id".into(),
        is_copy: false,
    };
    let encoded = [bytes(1, b"t"), bytes(2, b"k"), bytes(3, &clock()), bytes(4, b"id")].concat();
    assert_eq!(delete.encode_to_vec(), encoded);
    // Ours, so from 100 up: the two bytes are (100 << 3 | 0) as a varint.
    let of_a_copy = [encoded, vec![0xa0, 0x06, 1]].concat();
    let delete = pb::DeleteRequest {
        is_copy: true,
        ..delete
    };
    assert_eq!(delete.encode_to_vec(), of_a_copy);
    let of_a_copy = [write, vec![0xa0, 0x06, 1]].concat();
    let copy = pb::WriteRequest {
        is_copy: true,
        ..expected
    };
    assert_eq!(copy.encode_to_vec(), of_a_copy);
    let range = pb::StreamKeyRange {
        start_hash: 1,
        end_hash: 2,
    };
    let start = pb::StartStreamingRequest {
        source_node_id: "s".into(),
        target_node_id: "t".into(),
        target_host: "h".into(),
        target_port: 9,
        key_ranges: vec![range],
    };
    let encoded = [
        bytes(1, b"s"),
        bytes(2, b"t"),
        bytes(3, b"h"),
        varint(4, 9),
        bytes(5, &[varint(1, 1), varint(2, 2)].concat()),
    ]
    .concat();
    assert_eq!(start.encode_to_vec(), encoded);
}

#[test]
fn responses_have_the_contracts_field_numbers() {
    let write = pb::WriteResponse {
        success: true,
        updated_vector_clock: wire_clock(),
        error_message: "e".into(),
        error_code: pb::ErrorCode::CorruptedData.into(),
        applied: false,
    };
    let encoded = [varint(1, 1), bytes(2, &clock()), bytes(3, b"e"), varint(4, 8)].concat();
    assert_eq!(write.encode_to_vec(), encoded);
    let read = pb::ReadResponse {
        success: true,
        value: b"v".to_vec(),
        vector_clock: wire_clock(),
        error_message: "e".into(),
        error_code: pb::ErrorCode::KeyNotFound.into(),
        siblings: Vec::new(),
    };
    let encoded = [
        varint(1, 1),
        bytes(2, b"v"),
        bytes(3, &clock()),
        bytes(4, b"e"),
        varint(5, 3),
    ]
    .concat();
    assert_eq!(read.encode_to_vec(), encoded);
    let status = pb::StreamStatusResponse {
        active: true,
        state: "s".into(),
        keys_copied: 3,
        keys_streamed: 4,
        bytes_copied: 5,
        bytes_streamed: 6,
        ..pb::StreamStatusResponse::default()
    };
    let encoded = [
        varint(1, 1),
        bytes(2, b"s"),
        varint(3, 3),
        varint(4, 4),
        varint(5, 5),
        varint(6, 6),
    ]
    .concat();
    assert_eq!(status.encode_to_vec(), encoded);
    let entry = pb::KeyValueEntry {
        tenant_id: "t".into(),
        key: "k".into(),
        value: b"v".to_vec(),
        vector_clock: wire_clock(),
        timestamp: 5,
        is_tombstone: true,
        siblings: Vec::new(),
    };
    let encoded = [
        bytes(1, b"t"),
        bytes(2, b"k"),
        bytes(3, b"v"),
        bytes(4, &clock()),
        varint(5, 5),
        varint(6, 1),
    ]
    .concat();
    assert_eq!(entry.encode_to_vec(), encoded);
    let codes = [
        "UNKNOWN",
        "INVALID_REQUEST",
        "TENANT_NOT_FOUND",
        "KEY_NOT_FOUND",
        "INTERNAL_ERROR",
        "DISK_FULL",
        "MEMORY_PRESSURE",
        "NODE_DRAINING",
        "CORRUPTED_DATA",
    ];
    for (number, name) in (0..).zip(codes) {
        assert_eq!(pb::ErrorCode::try_from(number).unwrap().as_str_name(), name);
    }
}
