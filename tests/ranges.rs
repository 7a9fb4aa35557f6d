//! StreamKeys and GetKeyRange: what is in a range, of one moment, whatever goes on meanwhile, within bounded memory.

mod common;

use common::*;
use pairdb_node::rpc::pb;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tonic::{Code, Request, Status};

fn stream_request(start: &str, end: &str) -> pb::StreamKeysRequest {
    pb::StreamKeysRequest {
        tenant_id: "tenant".into(),
        key_range_start: start.into(),
        key_range_end: end.into(),
        batch_size: 0,
    }
}

fn page_request(start: &str, end: &str, max_keys: i32) -> pb::KeyRangeRequest {
    pb::KeyRangeRequest {
        tenant_id: "tenant".into(),
        key_range_start: start.into(),
        key_range_end: end.into(),
        max_keys,
    }
}

async fn stream(client: &mut Client, request: pb::StreamKeysRequest) -> Result<Vec<pb::KeyValueEntry>, Status> {
    let mut stream = client.stream_keys(request).await?.into_inner();
    let mut entries = Vec::new();
    while let Some(entry) = stream.message().await? {
        entries.push(entry);
    }
    Ok(entries)
}

/// All keys of a range, and how many pages they took.
async fn all_pages(client: &mut Client, end: &str, max_keys: i32) -> (Vec<String>, usize) {
    let (mut keys, mut start, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = client.get_key_range(page_request(&start, end, max_keys)).await.unwrap();
        let page = page.into_inner();
        keys.extend(page.keys);
        pages += 1;
        if !page.has_more {
            assert_eq!(page.next_key, "");
            return (keys, pages);
        }
        start = page.next_key;
    }
}

async fn fill(client: &mut Client, keys: impl Iterator<Item = String>) {
    for key in keys {
        client.write(write(&key, key.as_bytes(), &[("c", 1)])).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_all_entries_of_its_range_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    fill(&mut client, (0..700).map(|n| format!("k{n:03}"))).await;
    for tenant in ["tenan", "tenant2", "tenant;"] {
        let other = pb::WriteRequest {
            tenant_id: tenant.into(),
            ..write("k150x", b"of another", &[("c", 1)])
        };
        client.write(other).await.unwrap();
    }
    client.delete(delete("k150x", &[("c", 2)])).await.unwrap();
    client.delete(delete("k200", &[("c", 2)])).await.unwrap();
    client.write(write("k300", b"beside", &[("d", 5)])).await.unwrap();

    let entries = stream(&mut client, stream_request("k150", "k600")).await.unwrap();
    let mut expected: Vec<String> = (150..600).map(|n| format!("k{n:03}")).collect();
    expected.insert(1, "k150x".into());
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, expected, "in order, the end left out");
    for entry in &entries {
        assert_eq!(entry.tenant_id, "tenant");
        assert!(entry.timestamp > 1_600_000_000_000, "milliseconds: {}", entry.timestamp);
        match entry.key.as_str() {
            "k150x" | "k200" => {
                assert!(entry.is_tombstone && entry.value.is_empty());
                assert_eq!(entry.vector_clock, wire_clock(&[("c", 2)]));
            }
            "k300" => {
                let clocks: Vec<_> = entry.siblings.iter().map(|s| s.vector_clock.clone()).collect();
                assert_eq!(clocks, [wire_clock(&[("d", 5)]), wire_clock(&[("c", 1)])]);
                assert_eq!(
                    (&entry.value[..], &entry.siblings[1].value[..]),
                    (&b"beside"[..], &b"k300"[..])
                );
                assert_eq!(entry.vector_clock, wire_clock(&[("d", 5)]), "the winner's own");
            }
            key => {
                assert!(!entry.is_tombstone && entry.siblings.is_empty());
                assert_eq!(entry.value, key.as_bytes());
                assert_eq!(entry.vector_clock, wire_clock(&[("c", 1)]));
            }
        }
    }
    // An empty end is the end of the tenant; a range that ends before it starts is empty; any batch size does.
    let tail = stream(&mut client, stream_request("k698", "")).await.unwrap();
    assert_eq!(tail.len(), 2);
    assert!(
        stream(&mut client, stream_request("k5", "k4"))
            .await
            .unwrap()
            .is_empty()
    );
    for batch_size in [i32::MIN, -1, 1, 3, i32::MAX] {
        let request = pb::StreamKeysRequest {
            batch_size,
            ..stream_request("", "")
        };
        assert_eq!(stream(&mut client, request).await.unwrap().len(), 701);
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_join_without_gap_or_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    fill(&mut client, (0..1500).map(|n| format!("k{n:04}"))).await;
    for n in (0..1500).step_by(3) {
        client.delete(delete(&format!("k{n:04}"), &[("c", 2)])).await.unwrap();
    }
    let live = |end: u32| -> Vec<String> { (0..end).filter(|n| n % 3 != 0).map(|n| format!("k{n:04}")).collect() };
    for (max_keys, pages) in [(0, 1), (-7, 1), (1000, 1), (999, 2), (500, 2), (333, 4), (i32::MAX, 1)] {
        assert_eq!(
            all_pages(&mut client, "", max_keys).await,
            (live(1500), pages),
            "{max_keys}"
        );
    }
    assert_eq!(all_pages(&mut client, "k1000", 100).await.0, live(1000));
    assert_eq!(
        all_pages(&mut client, "k0002", 1).await,
        (live(2), 1),
        "nothing but deleted keys is not more"
    );
    // The longest keys: more than a coordinator receives at a time.
    fill(&mut client, (0..6000).map(|n| format!("l{n:04}{}", "x".repeat(1000)))).await;
    let mut plain =
        pb::storage_node_service_client::StorageNodeServiceClient::connect(format!("http://{}", node.address()))
            .await
            .unwrap();
    let page = plain
        .get_key_range(page_request("l", "", 10_000))
        .await
        .unwrap()
        .into_inner();
    let bytes: usize = page.keys.iter().map(String::len).sum();
    assert!(page.has_more && (500_000..2 << 20).contains(&bytes), "{bytes}");
    assert_eq!(all_pages(&mut plain, "", 10_000).await.0.len(), 7000);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_needs_a_tenant_and_a_client_that_keeps_coming() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let no_stream = client.stream_keys(pb::StreamKeysRequest::default()).await.unwrap_err();
    let no_page = client.get_key_range(pb::KeyRangeRequest::default()).await.unwrap_err();
    assert_eq!(
        (no_stream.code(), no_page.code()),
        (Code::InvalidArgument, Code::InvalidArgument)
    );
    // More than fits between node and client, so that a stream which nobody takes stands still.
    for n in 0..40 {
        client
            .write(write(&format!("k{n}"), &vec![n; 1 << 20], &[("c", 1)]))
            .await
            .unwrap();
    }
    let scans = &node.requests().scans;
    let places = scans.available_permits();
    let mut open = Vec::new();
    for _ in 0..places {
        open.push(client.stream_keys(stream_request("", "")).await.unwrap());
    }
    let refused = client.stream_keys(stream_request("", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    drop(open);
    eventually("those who left free their places", async || {
        scans.available_permits() == places
    })
    .await;
    // One who stays, and whose deadline passes, does so as well.
    let mut request = Request::new(stream_request("", ""));
    request.set_timeout(Duration::from_millis(300));
    let mut stalled = client.stream_keys(request).await.unwrap().into_inner();
    assert_eq!(scans.available_permits(), places - 1);
    eventually("the deadline ends the walk", async || {
        scans.available_permits() == places
    })
    .await;
    let mut taken = 0;
    let ended = loop {
        match stalled.message().await {
            Ok(Some(_)) => taken += 1,
            other => break other,
        }
    };
    assert!(taken < 40, "all was there already");
    assert!(ended.is_err(), "an early end does not pass for the end of the range");
    node.shutdown().await;
}

/// Writes ascending numbers to the first key of the range and then to the last, until told to stop.
async fn write_both_ends(address: SocketAddr, stop: Arc<AtomicBool>, written: Arc<AtomicI64>) {
    let mut client = client(address);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        for key in ["a", "z"] {
            let request = write(key, number.to_string().as_bytes(), &[("w", number)]);
            while let Err(status) = client.write(request.clone()).await {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
            }
        }
        written.store(number, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_of_one_moment_while_writes_go_on_and_actors_die() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    // Sealed and flushed again and again meanwhile.
    config.mem_table.flush_threshold = bytesize::ByteSize::kib(200);
    let node = start(&config).await;
    let mut client = client(node.address());
    fill(&mut client, ["a", "z"].map(str::to_owned).into_iter()).await;
    for key in ["a", "z"] {
        client.write(write(key, b"0", &[("c", 2)])).await.unwrap();
    }
    fill(&mut client, (0..3000).map(|n| format!("k{n:04}"))).await;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicI64::new(0));
    let writer = tokio::spawn(write_both_ends(node.address(), Arc::clone(&stop), Arc::clone(&written)));
    let number = |entry: &pb::KeyValueEntry| -> i64 {
        let values = std::iter::once(&entry.value).chain(entry.siblings.iter().map(|s| &s.value));
        let numbers = values.filter_map(|value| std::str::from_utf8(value).ok()?.parse().ok());
        numbers.max().expect("a number")
    };
    let mut seen = 0;
    let mut victims = ["memtable", "flush", "compaction", "wal", "cache-0"].iter().cycle();
    let mut streams = 0;
    // So many that there was load meanwhile, however slow the machine is.
    while streams < 40 || written.load(Ordering::Relaxed) <= 100 {
        let victim = victims.next().unwrap();
        streams += 1;
        let request = pb::StreamKeysRequest {
            batch_size: 50,
            ..stream_request("", "")
        };
        let mut stream = client.stream_keys(request).await.unwrap().into_inner();
        let mut entries = Vec::new();
        while let Some(entry) = stream.message().await.unwrap() {
            entries.push(entry);
            if entries.len() == 1000 {
                node.tree().kill(victim);
            }
        }
        assert_eq!(entries.len(), 3002);
        assert!(entries.is_sorted_by(|a, b| a.key < b.key));
        let (first, last) = (number(&entries[0]), number(&entries[3001]));
        assert!(
            (last..=last + 1).contains(&first),
            "of two moments: {first}, then {last}"
        );
        assert!(last >= seen, "older than the one before");
        seen = last;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    assert!(seen > 10, "the streams saw {seen}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_when_the_walk_comes_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let node = start(&config).await;
    let mut client = client(node.address());
    // Values that do not compress, so that the middle of the file is one of their blocks.
    let value: Vec<u8> = (0..200_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for n in 0..2000 {
        let request = write(
            &format!("k{n:04}"),
            &[value.as_slice(), &[n as u8]].concat(),
            &[("c", 1)],
        );
        client.write(request).await.unwrap();
    }
    node.shutdown().await;
    let tables = std::fs::read_dir(dir.path().join("data/sstables")).unwrap();
    let mut tables = tables.map(|entry| entry.unwrap().path());
    let table = tables
        .find(|path| path.extension().is_some_and(|e| e == "sst"))
        .unwrap();
    let mut content = std::fs::read(&table).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x40;
    std::fs::write(&table, content).unwrap();

    let node = start(&config).await;
    let mut client = common::client(node.address());
    let mut whole = client.stream_keys(stream_request("", "")).await.unwrap().into_inner();
    let mut streamed = 0;
    let status = loop {
        match whole.message().await {
            Ok(Some(entry)) => assert_eq!(entry.key, format!("k{streamed:04}")),
            Ok(None) => panic!("it ended as if it were whole"),
            Err(status) => break status,
        }
        streamed += 1;
    };
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    assert!((500..1500).contains(&streamed), "{streamed} before the damage");
    // The pages before it are answered, down to the last key.
    let (mut paged, mut from) = (0, String::new());
    let status = loop {
        match client.get_key_range(page_request(&from, "", 300)).await {
            Ok(page) => {
                let page = page.into_inner();
                assert!(page.has_more && !page.keys.is_empty());
                paged += page.keys.len();
                from = page.next_key;
            }
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), paged), (Code::DataLoss, streamed), "{status}");
    // Behind it all is well.
    assert_eq!(
        stream(&mut client, stream_request("k1800", "")).await.unwrap().len(),
        200
    );
    node.shutdown().await;
}

#[test]
fn a_slow_client_of_a_large_range_costs_little_memory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let environment = [
        ("PAIRDB__COMMIT_LOG__SYNC_WRITES", "false"),
        ("PAIRDB__MEM_TABLE__MAX_SIZE", "16MiB"),
        ("PAIRDB__MEM_TABLE__FLUSH_THRESHOLD", "4MiB"),
        ("PAIRDB__CACHE__MAX_SIZE", "1MiB"),
        ("PAIRDB__COMPACTION__WORKERS", "0"),
    ];
    const VALUES: usize = 200;
    let mut process = Process::start(dir.path(), free_port(), &environment);
    runtime.block_on(async {
        let mut client = client(&process.addr);
        for n in 0..VALUES {
            // Overload is answered when the disk is slow.
            let request = write(&format!("k{n:04}"), &vec![n as u8; 1 << 20], &[("c", 1)]);
            while let Err(status) = client.write(request.clone()).await {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            }
        }
    });
    assert_eq!(process.terminate(), Some(0));
    // Anew, so that the peak is the stream's alone.
    let process = Process::start(dir.path(), free_port(), &environment);
    runtime.block_on(async {
        let mut client = client(&process.addr);
        let mut stream = client.stream_keys(stream_request("", "")).await.unwrap().into_inner();
        let mut entries = 0;
        while let Some(entry) = stream.message().await.unwrap() {
            assert_eq!(entry.value.len(), 1 << 20);
            entries += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(entries, VALUES);
    });
    let peak = process.peak_memory() >> 20;
    assert!(peak < 80, "{peak} MiB for a stream of {VALUES} MiB");
}
