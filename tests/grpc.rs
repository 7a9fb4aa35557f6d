//! The wire contract: what a coordinator sends, every limit, and what is not gRPC at all.

mod common;

use common::*;
use pairdb_node::rpc::admin_pb::StatusRequest;
use pairdb_node::rpc::admin_pb::admin_service_client::AdminServiceClient;
use pairdb_node::rpc::pb;
use prost::Message;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt;

fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().expect("an ErrorInfo").reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_read_back_with_its_clock() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let written = client.write(write("k", b"v", &[("c1", 1)])).await.unwrap().into_inner();
    assert!(written.success && written.applied && written.error_code == 0);
    assert_eq!(written.updated_vector_clock, wire_clock(&[("c1", 1)]));
    let read = client.read(read("k")).await.unwrap().into_inner();
    assert!(read.success && read.siblings.is_empty());
    assert_eq!(
        (read.value, read.vector_clock),
        (b"v".to_vec(), wire_clock(&[("c1", 1)]))
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_decide_as_the_contract_says() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("k", b"two", &[("a", 2)])).await.unwrap();
    // An older write is kept out, and still a success: otherwise the coordinator's quorum fails.
    let stale = client
        .write(write("k", b"one", &[("a", 1)]))
        .await
        .unwrap()
        .into_inner();
    assert!(stale.success && !stale.applied);
    assert_eq!(stale.updated_vector_clock, wire_clock(&[("a", 2)]));
    assert_eq!(client.read(read("k")).await.unwrap().into_inner().value, b"two");
    // The same again changes nothing.
    let again = client
        .write(write("k", b"two", &[("a", 2)]))
        .await
        .unwrap()
        .into_inner();
    assert!(again.success && again.applied);
    // A concurrent one is a sibling; the answer carries the join of both clocks.
    let concurrent = client
        .write(write("k", b"other", &[("b", 1)]))
        .await
        .unwrap()
        .into_inner();
    assert!(concurrent.success && concurrent.applied);
    let both = client.read(read("k")).await.unwrap().into_inner();
    assert_eq!(both.siblings.len(), 2);
    assert!(
        both.siblings[0].value_omitted,
        "the winner's value is in the answer already"
    );
    assert!(!both.siblings[1].value.is_empty());
    assert_eq!(both.vector_clock, wire_clock(&[("a", 2), ("b", 1)]));
    // A write that knows both supersedes both. Entry order does not matter.
    client.write(write("k", b"new", &[("b", 1), ("a", 3)])).await.unwrap();
    let one = client.read(read("k")).await.unwrap().into_inner();
    assert_eq!((one.value, one.siblings.len()), (b"new".to_vec(), 0));
    // Read repair is a write.
    let repair = pb::RepairRequest {
        tenant_id: "tenant".into(),
        key: "k".into(),
        value: b"repaired".to_vec(),
        vector_clock: wire_clock(&[("a", 9), ("b", 9)]),
    };
    assert!(client.repair(repair).await.unwrap().into_inner().success);
    assert_eq!(client.read(read("k")).await.unwrap().into_inner().value, b"repaired");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_a_clock_supersedes_all_that_it_could_see() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("k", b"a", &[("a", 5)])).await.unwrap();
    client.write(write("k", b"b", &[("b", 5)])).await.unwrap();
    client.write(write("k", b"mine", &[])).await.unwrap();
    let after = client.read(read("k")).await.unwrap().into_inner();
    assert_eq!((after.value, after.siblings.len()), (b"mine".to_vec(), 0));
    // Many at once for one key leave one winner.
    let writes = (0..200).map(|n| {
        let mut client = client.clone();
        tokio::spawn(async move { client.write(write("k", format!("{n}").as_bytes(), &[])).await })
    });
    for done in writes.collect::<Vec<_>>() {
        done.await.unwrap().unwrap();
    }
    assert!(client.read(read("k")).await.unwrap().into_inner().siblings.is_empty());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_is_not_found_and_tells_its_clock() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let missing = client.read(read("k")).await.unwrap_err();
    assert_eq!(
        (missing.code(), reason(&missing).as_str()),
        (Code::NotFound, "KEY_NOT_FOUND")
    );
    client.write(write("k", b"v", &[("a", 1)])).await.unwrap();
    let deleted = client.delete(delete("k", &[("a", 2)])).await.unwrap().into_inner();
    assert!(deleted.success && deleted.applied);
    let gone = client.read(read("k")).await.unwrap_err();
    assert_eq!((gone.code(), reason(&gone).as_str()), (Code::NotFound, "KEY_NOT_FOUND"));
    let details = tonic_types::pb::Status::decode(gone.details()).unwrap().details;
    let clock = details
        .iter()
        .find(|any| any.type_url.ends_with("storage.VectorClock"))
        .unwrap();
    assert_eq!(
        pb::VectorClock::decode(clock.value.as_slice()).ok(),
        wire_clock(&[("a", 2)])
    );
    // Beside a concurrent live sibling the live one wins.
    client.write(write("k", b"alive", &[("b", 1)])).await.unwrap();
    let read = client.read(read("k")).await.unwrap().into_inner();
    assert_eq!((read.value, read.siblings.len()), (b"alive".to_vec(), 2));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_is_checked_before_anything_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let long = |n: usize| "x".repeat(n);
    let valid = || write("k", b"v", &[("a", 1)]);
    let tenant = |t: &str| pb::WriteRequest {
        tenant_id: t.to_owned(),
        ..valid()
    };
    let entries = |n: usize| pb::WriteRequest {
        vector_clock: Some(pb::VectorClock {
            entries: (0..n)
                .map(|i| pb::VectorClockEntry {
                    coordinator_node_id: format!("c{i}"),
                    logical_timestamp: 1,
                })
                .collect(),
        }),
        ..valid()
    };
    let refused = [
        ("no tenant", tenant("")),
        ("a long tenant", tenant(&long(257))),
        ("a colon in the tenant", tenant("a:b")),
        ("a control character in the tenant", tenant("a\n")),
        ("no key", write("", b"v", &[])),
        ("a long key", write(&long(1025), b"v", &[])),
        ("a control character in the key", write("a\u{1}b", b"v", &[])),
        ("a NUL in the key", write("a\0b", b"v", &[])),
        ("no value", write("k", b"", &[])),
        ("a large value", write("k", &vec![0; 10 * 1024 * 1024 + 1], &[])),
        ("a far too large value", write("k", &vec![0; 20 * 1024 * 1024], &[])),
        ("many clock entries", entries(1001)),
        ("no coordinator id", write("k", b"v", &[("", 1)])),
        ("a long coordinator id", write("k", b"v", &[(&long(129), 1)])),
        ("a NUL in a coordinator id", write("k", b"v", &[("a\0", 1)])),
        ("a negative timestamp", write("k", b"v", &[("a", -1)])),
    ];
    for (what, request) in refused {
        let status = client.write(request.clone()).await.expect_err(what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        assert_eq!(reason(&status), "INVALID_REQUEST", "{what}");
        let repair = pb::RepairRequest {
            tenant_id: request.tenant_id.clone(),
            key: request.key.clone(),
            value: request.value.clone(),
            vector_clock: request.vector_clock.clone(),
        };
        assert_eq!(
            client.repair(repair).await.expect_err(what).code(),
            Code::InvalidArgument,
            "{what}"
        );
        if !what.contains("value") {
            let delete = pb::DeleteRequest {
                tenant_id: request.tenant_id.clone(),
                key: request.key.clone(),
                vector_clock: request.vector_clock.clone(),
                ..pb::DeleteRequest::default()
            };
            assert_eq!(
                client.delete(delete).await.expect_err(what).code(),
                Code::InvalidArgument,
                "{what}"
            );
        }
        if what.contains("tenant") || what.contains("key") {
            let read = pb::ReadRequest {
                tenant_id: request.tenant_id,
                key: request.key,
            };
            assert_eq!(
                client.read(read).await.expect_err(what).code(),
                Code::InvalidArgument,
                "{what}"
            );
        }
    }
    assert_eq!(node.requests().handles.published.applied(), 0, "something was stored");
    let accepted = [
        tenant(&long(256)),
        write(&long(1024), b"v", &[]),
        write("tab\tand\nnewline", b"v", &[]),
        write("k", &vec![7; 10 * 1024 * 1024], &[]),
        entries(1000),
        write("k2", b"v", &[(&long(128), 0)]),
    ];
    for request in accepted {
        let read = pb::ReadRequest {
            tenant_id: request.tenant_id.clone(),
            key: request.key.clone(),
        };
        let value = request.value.clone();
        client.write(request).await.unwrap();
        let stored = client.read(read).await.unwrap().into_inner();
        assert!(stored.value == value || stored.siblings.iter().any(|s| s.value == value || s.value_omitted));
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_just_started_is_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let health = client
        .health_check(pb::HealthCheckRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(health.healthy && health.status == "healthy" && health.metrics.contains_key("applied_seq"));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_the_port_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    client.write(write("k", b"v", &[])).await.unwrap();
    let address = node.address();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut state = 1_u64;
    for round in 0..60 {
        let mut garbage = if round % 2 == 0 { preface.to_vec() } else { Vec::new() };
        for _ in 0..500 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            garbage.push((state >> 56) as u8);
        }
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            // The node may close the connection at any point of this.
            let _ = stream.write_all(&garbage);
            let _ = stream.read(&mut [0; 1024]);
        })
        .await
        .unwrap();
    }
    assert_eq!(client.read(read("k")).await.unwrap().into_inner().value, b"v");
    assert_eq!(node.requests().handles.published.applied(), 1);
    assert!(
        node.tree().ends().is_empty(),
        "an actor ended: {:?}",
        node.tree().ends()
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.server.max_connections = 2;
    let node = start(&config).await;
    let (mut first, mut second) = (client(node.address()), client(node.address()));
    first.write(write("k", b"v", &[])).await.unwrap();
    second.read(read("k")).await.unwrap();
    let refused = client(node.address()).read(read("k")).await.unwrap_err();
    assert_ne!(refused.code(), Code::DeadlineExceeded, "{refused}");
    drop(first);
    let address = node.address();
    eventually("a place is free again", async || {
        client(address).read(read("k")).await.is_ok()
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_streams_a_tenants_live_keys_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    for n in 0..500 {
        client
            .write(write(&format!("k{n:03}"), format!("{n}").as_bytes(), &[]))
            .await
            .unwrap();
    }
    client.delete(delete("k100", &[])).await.unwrap();
    let other = pb::WriteRequest {
        tenant_id: "tenant2".into(),
        ..write("k101", b"not mine", &[])
    };
    client.write(other).await.unwrap();
    let request = pb::ScanRequest {
        tenant_id: "tenant".into(),
        key_range_start: "k090".into(),
        key_range_end: "k400".into(),
    };
    let mut stream = client.scan(request).await.unwrap().into_inner();
    let mut keys = Vec::new();
    while let Some(entry) = stream.message().await.unwrap() {
        assert_eq!(
            entry.key,
            format!(
                "k{:03}",
                String::from_utf8(entry.value).unwrap().parse::<u32>().unwrap()
            )
        );
        keys.push(entry.key);
    }
    let expected: Vec<_> = (90..400).filter(|n| *n != 100).map(|n| format!("k{n:03}")).collect();
    assert_eq!(keys, expected);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_races_a_write_never_pins_the_old_value() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let (mut writer, reader) = (client(node.address()), client(node.address()));
    for n in 0..1500_u32 {
        let key = format!("k{n}");
        // Not in the cache yet: the reads fill it while the write passes by.
        let reads: Vec<_> = (0..3)
            .map(|_| {
                let (mut reader, key) = (reader.clone(), key.clone());
                tokio::spawn(async move { reader.read(read(&key)).await.is_ok() })
            })
            .collect();
        writer.write(write(&key, b"new", &[("c", 1)])).await.unwrap();
        let after = writer
            .read(read(&key))
            .await
            .expect("acknowledged, so a read that starts now sees it");
        assert_eq!(after.into_inner().value, b"new");
        for read in reads {
            read.await.unwrap();
        }
        assert_eq!(writer.read(read(&key)).await.unwrap().into_inner().value, b"new");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_begun_and_not_ended_hold_a_bounded_memory() {
    use http_body_util::StreamBody;
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", node.address()))
        .unwrap()
        .connect()
        .await
        .unwrap();
    // Each announces 11 MB, sends 9 MB of it, and stops.
    let mut refused = 0;
    let mut open = Vec::new();
    for _ in 0..30 {
        let mut channel = channel.clone();
        let head = [&[0][..], &11_000_000_u32.to_be_bytes()].concat();
        let parts = std::iter::once(head).chain((0..9).map(|_| vec![0; 1_000_000]));
        let frames: Vec<_> = parts
            .map(|part| Ok::<_, tonic::Status>(http_body::Frame::data(part.into())))
            .collect();
        let stalling = tokio_stream::StreamExt::chain(tokio_stream::iter(frames), tokio_stream::pending());
        let request = http::Request::post(format!("http://{}/storage.StorageNodeService/Write", node.address()))
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::new(StreamBody::new(stalling)))
            .unwrap();
        open.push(tokio::spawn(async move {
            let call = async {
                use tower::Service;
                std::future::poll_fn(|context| channel.poll_ready(context)).await?;
                channel.call(request).await
            };
            tokio::time::timeout(Duration::from_secs(4), call).await
        }));
    }
    for call in open {
        if let Ok(Ok(response)) = call.await.unwrap() {
            assert_eq!(response.headers()["grpc-status"], "8", "RESOURCE_EXHAUSTED");
            refused += 1;
        }
    }
    // 128 MiB take 14 of them.
    assert!((10..=25).contains(&refused), "{refused} of 30 were refused");
    let mut client = client(node.address());
    client.write(write("k", b"v", &[])).await.unwrap();
    node.shutdown().await;
}

/// Sends a body as it is to the Write RPC, and returns the status that comes back.
async fn send_raw(node: std::net::SocketAddr, body: Vec<u8>) -> tonic::Status {
    use tower::Service;
    let mut channel = tonic::transport::Endpoint::from_shared(format!("http://{node}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let request = http::Request::post(format!("http://{node}/storage.StorageNodeService/Write"))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from(
            body,
        ))))
        .unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context))
        .await
        .unwrap();
    let response = channel.call(request).await.unwrap();
    tonic::Status::from_header_map(response.headers()).expect("a refusal")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_an_invalid_request() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let framed = |length: u32, message: &[u8]| [&[0][..], &length.to_be_bytes(), message].concat();
    let whole = write("k", b"v", &[]).encode_to_vec();
    let bodies = [
        ("a field that is longer than the message", framed(2, &[0x0a, 0x7f])),
        ("a tenant that is not UTF-8", framed(4, &[0x0a, 0x02, 0xff, 0xfe])),
        ("a wire type that does not exist", framed(1, &[0x0f])),
        ("a clock of another type", framed(2, &[0x20, 0x01])),
        ("a message that ends early", framed(whole.len() as u32 + 1, &whole)),
        ("no message", Vec::new()),
        ("a compression that was not announced", {
            let mut frame = framed(whole.len() as u32, &whole);
            frame[0] = 1;
            frame
        }),
        ("a flag that does not exist", vec![9, 0, 0, 0, 0]),
        ("a message that announces 100 MB", framed(100_000_000, &whole)),
    ];
    for (what, body) in bodies {
        let status = send_raw(node.address(), body).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        assert_eq!(reason(&status), "INVALID_REQUEST", "{what}");
        assert!(status.message().contains("cannot be decoded"), "{what}: {status}");
    }
    assert_eq!(node.requests().handles.published.applied(), 0, "something was stored");
    let mut client = client(node.address());
    client.write(write("k", b"v", &[])).await.unwrap();
    // What is not a request of this service at all keeps the status that gRPC has for it.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", node.address())).unwrap();
    let mut elsewhere = AdminServiceClient::new(channel.connect_lazy());
    let unknown = elsewhere.status(StatusRequest {}).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_whose_clocks_join_to_more_than_a_clock_may_have_are_superseded_by_one_write() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let entry = |id: String, counter| pb::VectorClockEntry {
        coordinator_node_id: id,
        logical_timestamp: counter,
    };
    let with = |value: &[u8], entries| pb::WriteRequest {
        vector_clock: Some(pb::VectorClock { entries }),
        ..write("k", value, &[])
    };
    for round in 0..3 {
        for sibling in 0..4 {
            let entries = (0..600).map(|n| entry(format!("c{round}-{sibling}-{n}"), 1)).collect();
            client.write(with(b"sibling", entries)).await.unwrap();
        }
        let read_back = client.read(read("k")).await.unwrap().into_inner();
        let before = usize::from(round > 0);
        assert_eq!(read_back.siblings.len(), 4 + before);
        let known = read_back.vector_clock.unwrap().entries;
        assert_eq!(known.len(), (round + 1) * 2400 + before);
        // What does not come from here is refused as ever.
        let mut strange = known.clone();
        strange.extend([entry("x".into(), 1), entry("y".into(), 1)]);
        let refused = client.write(with(b"strange", strange.clone())).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, "INVALID_REQUEST")
        );
        let batch = pb::BatchWriteRequest {
            operations: vec![with(b"strange", strange), with(b"batch", known.clone())],
        };
        let results = client.batch_write(batch).await.unwrap().into_inner().results;
        let failed =
            |result: &pb::OperationResult| matches!(result.result, Some(pb::operation_result::Result::Failure(_)));
        assert_eq!(results.iter().map(failed).collect::<Vec<_>>(), [true, false]);
        // The coordinator adds its own entry, or raises it.
        let mut next = known;
        next.retain(|entry| entry.coordinator_node_id != "me");
        next.push(entry("me".into(), round as i64 + 2));
        client.write(with(b"one", next)).await.unwrap();
        let one = client.read(read("k")).await.unwrap().into_inner();
        assert_eq!((one.value, one.siblings.len()), (b"one".to_vec(), 0));
    }
    // And so by one without a clock.
    client.write(write("k", b"other", &[("z", 1)])).await.unwrap();
    client.write(write("k", b"last", &[])).await.unwrap();
    let last = client.read(read("k")).await.unwrap().into_inner();
    assert_eq!((last.value, last.siblings.len()), (b"last".to_vec(), 0));
    node.shutdown().await;
}
