//! What one node sends to another is let pass there, whatever its clock and its tenant: it was let pass where it comes from. And
//! what cannot be read there keeps nothing else from being sent.

mod common;
#[path = "common/streaming.rs"]
mod streaming;

use bytesize::ByteSize;
use common::*;
use pairdb_node::actors::streaming::skipped::Skipped;
use pairdb_node::config::{Config, Quota};
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use pairdb_node::storage::lost::Lost;
use pairdb_node::storage::stream_records::{Pass, Progress};
use std::path::{Path, PathBuf};
use std::time::Duration;
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
    config.cluster.nodes.insert("third".into(), third.address().to_string());
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

fn quota_config(dir: &Path, id: &str, quota: Quota) -> Config {
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
    assert!(
        there.read(read("k001")).await.is_ok(),
        "the copies used up what the tenant may ask for"
    );
    from.shutdown().await;
    to.shutdown().await;
}

const KEYS: u32 = 2000;

/// A source whose tables are only looked at when somebody reads them.
fn source(dir: &Path) -> Config {
    let mut config = config(&dir.join("from"));
    config.server.node_id = "from".into();
    config.disk.scrub_interval = Duration::ZERO;
    config
}

/// The tables of the source, which does not run, the oldest first.
fn tables(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("from/data/sstables")).unwrap();
    let mut tables: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    tables.retain(|path| path.extension().is_some_and(|e| e == "sst"));
    tables.sort();
    tables
}

/// Makes a table of every `step`th of the keys, in a node that starts and stops for it.
async fn table_of(config: &Config, step: usize, counter: i64) {
    let node = start(config).await;
    let mut client = client(node.address());
    for n in (0..KEYS).step_by(step) {
        let value: Vec<u8> = (0..100_u32).map(|i| (n * 31 + i * i * 7) as u8).collect();
        let clock = [("c", counter)];
        client
            .write(write(&format!("key{n:05}"), &value, &clock))
            .await
            .unwrap();
    }
    node.shutdown().await;
}

/// The keys that a node answers, and those that it answers with DATA_LOSS.
async fn readable(node: &Node) -> (Vec<String>, Vec<String>) {
    let mut client = client(node.address());
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    for n in 0..KEYS {
        let key = format!("key{n:05}");
        match client.read(read(&key)).await {
            Ok(_) => found.push(key),
            Err(status) if status.code() == Code::DataLoss => lost.push(key),
            Err(status) => assert_eq!(status.code(), Code::NotFound, "{status}"),
        }
    }
    (found, lost)
}

async fn failed(source: &Client) -> pb::StreamStatusResponse {
    eventually("it says that it is not complete", async || {
        let state = stream_status(source, "to").await.state;
        assert_ne!(state, "completed");
        state == "failed"
    })
    .await;
    stream_status(source, "to").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_past_a_damaged_block_and_says_so_and_is_completed_when_the_table_is_well_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = source(dir.path());
    table_of(&config, 1, 1).await;
    let table = tables(dir.path()).pop().unwrap();
    let whole = std::fs::read(&table).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0x40;
    std::fs::write(&table, damaged).unwrap();

    let (from, to) = (start(&config).await, node(dir.path(), "to", 0).await);
    let mut here = client(from.address());
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    let status = failed(&here).await;
    let name = table.file_name().unwrap().to_str().unwrap();
    assert!(!status.active && status.places_skipped == 1, "{status:?}");
    assert!(
        status.first_skipped.contains(name) && status.first_skipped.contains("key0"),
        "{status:?}"
    );
    assert!(
        status.problem.contains(name) && !status.problem.contains("key0"),
        "{status:?}"
    );
    let (found, lost) = readable(&from).await;
    assert!((1..100).contains(&lost.len()), "{lost:?}");
    assert_eq!(readable(&to).await, (found, Vec::new()));
    // Of a key in the damaged block the target gets what is written from now on.
    here.write(write(&lost[0], b"live", &[("c", 2)])).await.unwrap();
    eventually("a live write arrives", async || {
        client(to.address()).read(read(&lost[0])).await.is_ok()
    })
    .await;
    // Nothing has changed since.
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    assert_eq!(failed(&here).await.places_skipped, 1);
    from.shutdown().await;

    // Nor has it for the next process.
    let from = start(&config).await;
    let here = client(from.address());
    assert_eq!(failed(&here).await.places_skipped, 1);
    from.shutdown().await;

    std::fs::write(&table, whole).unwrap();
    let from = start(&config).await;
    let here = client(from.address());
    completed(&here, "to").await;
    let status = stream_status(&here, "to").await;
    assert!(status.places_skipped == 0 && status.problem.is_empty(), "{status:?}");
    assert_same(&held(&to), &held(&from));
    assert_eq!(held(&to).len(), KEYS as usize);
    from.shutdown().await;
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_lost_table_the_keys_that_are_elsewhere_too_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let config = source(dir.path());
    table_of(&config, 1, 1).await;
    table_of(&config, 2, 2).await;
    let tables = tables(dir.path());
    assert_eq!(tables.len(), 2);
    std::fs::remove_file(&tables[0]).unwrap();
    let (from, to) = (start(&config).await, node(dir.path(), "to", 0).await);
    let mut here = client(from.address());
    here.write(write("key00001", b"in memory", &[("c", 3)])).await.unwrap();
    start_stream(&here, "to", to.address(), &WHOLE_RING).await;
    let status = failed(&here).await;
    assert_eq!(status.places_skipped, 1, "{status:?}");
    assert!(status.first_skipped.contains("missing"), "{status:?}");
    // Nothing of any other source is left out.
    assert_eq!(held(&to).len(), KEYS as usize / 2 + 1);
    let stop = pb::StopStreamingRequest {
        source_node_id: String::new(),
        target_node_id: "to".into(),
    };
    let stopped = here.stop_streaming(stop).await.unwrap().into_inner();
    assert!(!stopped.success && stopped.message.contains("missing"), "{stopped:?}");
    from.shutdown().await;
    to.shutdown().await;
}

#[test]
fn who_takes_up_a_stream_looks_again_at_what_it_went_past() {
    let lost = |offset, key: &str| Lost {
        file: "table".into(),
        offset,
        first_key: key.into(),
        last_key: "t:z".into(),
        cause: "a cause".into(),
    };
    let pass = |seq, from: &str| {
        let from = from.to_owned();
        Some(Pass { seq, from })
    };
    let progress = |done_seq, pass| Progress {
        done_seq,
        pass,
        compared: true,
        compare_from: String::new(),
    };
    let mut copied = Skipped::in_copy(10);
    assert!(copied.add(&lost(2, "t:m")) && copied.add(&lost(1, "t:k")));
    assert!(!copied.add(&lost(2, "t:m")), "met again");
    assert_eq!(copied.count(), 2);
    assert!(copied.first().contains("t:m"), "{copied:?}");
    // Before the first of them everything up to where the last pass came is there.
    for (before, expected) in [
        (progress(90, None), pass(90, "t:k")),
        (progress(90, pass(95, "t:x")), pass(95, "t:k")),
        (progress(90, pass(95, "t:a")), pass(95, "t:a")),
    ] {
        let mut taken_back = before;
        copied.take_back(&mut taken_back);
        assert_eq!((taken_back.done_seq, taken_back.pass), (10, expected));
        assert_eq!((taken_back.compared, taken_back.compare_from.as_str()), (false, "t:k"));
    }
    // What a comparison went past is only to be compared again.
    let mut compared = Skipped::default();
    compared.add(&lost(2, "t:m"));
    let mut taken_back = progress(90, None);
    compared.take_back(&mut taken_back);
    assert_eq!((taken_back.done_seq, taken_back.pass.as_ref()), (90, None));
    assert_eq!((taken_back.compared, taken_back.compare_from.as_str()), (false, "t:m"));
    compared.join(copied);
    compared.take_back(&mut taken_back);
    assert_eq!((taken_back.done_seq, compared.count()), (10, 2));
    let untouched = progress(5, None);
    let mut same = untouched.clone();
    Skipped::in_copy(1).take_back(&mut same);
    assert_eq!(same, untouched);
}
