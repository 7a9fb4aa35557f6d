//! What one node sends to another is let pass there, whatever its clock and its tenant: it was let pass where it comes from.

mod common;
#[path = "common/streaming.rs"]
mod streaming;

use bytesize::ByteSize;
use common::*;
use pairdb_node::config::Quota;
use pairdb_node::rpc::pb;
use std::path::Path;
use streaming::*;
use tonic::Code;

/// A clock of `entries` coordinators, of which no other `first` has one.
fn long_clock(first: usize, entries: usize) -> pb::VectorClock {
    let entry = |n| pb::VectorClockEntry {
        coordinator_node_id: format!("c{n:05}"),
        logical_timestamp: 1,
    };
    pb::VectorClock {
        entries: (first..first + entries).map(entry).collect(),
    }
}

/// Gives `k` and `deleted` a clock of 1801 entries each: two that do not know of each other, and one that knows both.
async fn lengthen(client: &Client) {
    let mut client = client.clone();
    for key in ["k", "deleted"] {
        for first in [0, 900] {
            let sibling = pb::WriteRequest {
                vector_clock: Some(long_clock(first, 900)),
                ..write(key, b"sibling", &[])
            };
            client.write(sibling).await.unwrap();
        }
    }
    let written = client.write(write("k", b"joined", &[])).await.unwrap().into_inner();
    assert_eq!(written.updated_vector_clock.unwrap().entries.len(), 1801);
    let deleted = client.delete(delete("deleted", &[])).await.unwrap().into_inner();
    assert_eq!(deleted.updated_vector_clock.unwrap().entries.len(), 1801);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_longer_clock_than_a_client_may_send_is_streamed_and_replicated() {
    let dir = tempfile::tempdir().unwrap();
    let (to, third) = (node(dir.path(), "to", 0).await, node(dir.path(), "third", 0).await);
    let mut config = node_config(dir.path(), "from", 0);
    config
        .cluster
        .nodes
        .insert("third".into(), third.address().to_string());
    let from = start(&config).await;
    let here = client(from.address());
    lengthen(&here).await;
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    // Forwarded, and not copied: one more entry.
    here.clone().write(write("k", b"live", &[])).await.unwrap();
    completed(&here, "to").await;
    stop_stream(&here, "to").await;
    assert_same(&held(&to), &held(&from));
    assert_eq!(held(&to).len(), 2);
    let replicate = pb::ReplicateRequest {
        tenant_id: "tenant".into(),
        target_node_id: "third".into(),
        ..pb::ReplicateRequest::default()
    };
    let replicated = here.clone().replicate_data(replicate).await.unwrap().into_inner();
    assert_eq!(replicated.keys_replicated, 2);
    assert_same(&held(&third), &held(&from));
    for node in [from, to, third] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_says_that_it_is_a_copy_may_have_a_long_clock_and_only_so_long_a_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "to", 0).await;
    let mut client = client(node.address());
    let of = |entries, is_copy| pb::WriteRequest {
        vector_clock: Some(long_clock(0, entries)),
        is_copy,
        ..write("k", b"v", &[])
    };
    for (entries, is_copy) in [(1001, false), (8001, true), (8001, false)] {
        let refused = client.write(of(entries, is_copy)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        let operations = vec![of(entries, is_copy)];
        let answer = client.batch_write(pb::BatchWriteRequest { operations }).await.unwrap();
        let results = format!("{:?}", answer.into_inner().results);
        assert!(results.contains("vector_clock: has"), "{results}");
    }
    client.write(of(8000, true)).await.unwrap();
    let operations = vec![pb::WriteRequest {
        key: "another".into(),
        ..of(8000, true)
    }];
    let answer = client.batch_write(pb::BatchWriteRequest { operations }).await.unwrap();
    let results = format!("{:?}", answer.into_inner().results);
    assert!(!results.contains("Failure"), "{results}");
    node.shutdown().await;
}

fn quota_config(dir: &Path, id: &str, quota: Quota) -> pairdb_node::config::Config {
    let mut config = node_config(dir, id, 0);
    config.tenants.quota.insert("tenant".into(), quota);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn no_quota_of_a_tenant_holds_up_a_stream_and_what_it_stores_counts() {
    const KEYS: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let tight = Quota {
        operations_per_s: 1,
        bytes_per_s: ByteSize::b(100),
        stored_bytes: ByteSize::kib(100),
    };
    let to = start(&quota_config(dir.path(), "to", tight)).await;
    let from = node(dir.path(), "from", 0).await;
    let here = client(from.address());
    for n in 0..KEYS {
        let key = format!("k{n:03}");
        here.clone().write(write(&key, &[7; 1000], &[("c", 1)])).await.unwrap();
    }
    here.clone().delete(delete("k000", &[("c", 2)])).await.unwrap();
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    completed(&here, "to").await;
    assert_same(&held(&to), &held(&from));
    let usage = to.requests().quotas.usage();
    assert_eq!(usage[0].refused, 0, "{usage:?}");
    assert!(usage[0].stored_bytes > KEYS as u64 * 1000 / 2, "{usage:?}");
    // The tenant's own write is refused for what the copies store, and not for how fast they came.
    let mut there = client(to.address());
    let refused = there.write(write("own", b"v", &[("c", 1)])).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("stored_bytes"), "{refused}");
    assert!(there.read(read("k001")).await.is_ok(), "the copies used up what the tenant may ask for");
    from.shutdown().await;
    to.shutdown().await;
}
