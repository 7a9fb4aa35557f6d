//! Quotas: each limit for each kind of request, and what the others notice of it: nothing. And the overload of the whole.

mod common;
#[path = "common/site.rs"]
mod site;

use bytesize::ByteSize;
use common::*;
use pairdb_node::actors::overload::{Kind, UnderWay};
use pairdb_node::config::{Config, Quota};
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use pairdb_node::rpc::pb::operation::Operation;
use pairdb_node::rpc::pb::operation_result::Result as Outcome;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const KINDS: [&str; 9] = [
    "write",
    "read",
    "delete",
    "repair",
    "batch-write",
    "batch-read",
    "batch-delete",
    "stream",
    "list",
];

fn config_with(dir: &Path, tenants: &[&str], quota: Quota) -> Config {
    let mut config = config(dir);
    let own = tenants.iter().map(|tenant| ((*tenant).to_owned(), quota));
    config.tenants.quota = own.collect();
    config
}

fn operations(operations_per_s: u64) -> Quota {
    Quota {
        operations_per_s,
        ..Quota::default()
    }
}

fn bytes(bytes_per_s: u64) -> Quota {
    Quota {
        bytes_per_s: ByteSize::b(bytes_per_s),
        ..Quota::default()
    }
}

fn stored(stored_bytes: ByteSize) -> Quota {
    Quota {
        stored_bytes,
        ..Quota::default()
    }
}

fn put(tenant: &str, key: &str, value: &[u8]) -> pb::WriteRequest {
    pb::WriteRequest {
        tenant_id: tenant.to_owned(),
        ..write(key, value, &[("c", 1)])
    }
}

fn get(tenant: &str, key: &str) -> pb::ReadRequest {
    pb::ReadRequest {
        tenant_id: tenant.to_owned(),
        ..read(key)
    }
}

fn remove(tenant: &str, key: &str) -> pb::DeleteRequest {
    pb::DeleteRequest {
        tenant_id: tenant.to_owned(),
        ..delete(key, &[("c", 2)])
    }
}

fn scan_of(tenant: &str) -> pb::ScanRequest {
    pb::ScanRequest {
        tenant_id: tenant.to_owned(),
        ..pb::ScanRequest::default()
    }
}

/// The first failure of a batch or a stream, as a status without details.
fn failure(results: Vec<pb::OperationResult>) -> Result<(), Status> {
    let failures = results.into_iter().filter_map(|result| match result.result {
        Some(Outcome::Failure(failure)) => Some(failure),
        _ => None,
    });
    let mut failures = failures.map(|failure| Status::new(failure.code.into(), failure.message));
    match failures.find(|status| status.code() != Code::NotFound) {
        Some(status) => Err(status),
        None => Ok(()),
    }
}

async fn stream(client: &mut Client, operation: Operation) -> Result<(), Status> {
    let operation = pb::Operation {
        id: 1,
        operation: Some(operation),
    };
    let results = client.operations(tokio_stream::once(operation)).await?.into_inner();
    failure(results.collect::<Result<Vec<_>, _>>().await?)
}

/// One request of a kind, of the tenant of this name; of a batch two operations.
async fn request(client: &mut Client, kind: &str, tenant: &str, value: &[u8]) -> Result<(), Status> {
    let done = match kind {
        "write" => client.write(put(tenant, "k", value)).await.map(|_| ()),
        "read" => client.read(get(tenant, "k")).await.map(|_| ()),
        "delete" => client.delete(remove(tenant, "none")).await.map(|_| ()),
        "repair" => {
            let repair = pb::RepairRequest {
                tenant_id: tenant.to_owned(),
                key: "k".to_owned(),
                value: value.to_vec(),
                vector_clock: wire_clock(&[("c", 1)]),
            };
            client.repair(repair).await.map(|_| ())
        }
        "batch-write" => {
            let operations = vec![put(tenant, "k", value), put(tenant, "l", value)];
            let batch = client.batch_write(pb::BatchWriteRequest { operations }).await?;
            failure(batch.into_inner().results)
        }
        "batch-read" => {
            let operations = vec![get(tenant, "k"), get(tenant, "k")];
            let batch = client.batch_read(pb::BatchReadRequest { operations }).await?;
            failure(batch.into_inner().results)
        }
        "batch-delete" => {
            let operations = vec![remove(tenant, "none"), remove(tenant, "none")];
            let batch = client.batch_delete(pb::BatchDeleteRequest { operations }).await?;
            failure(batch.into_inner().results)
        }
        "stream" => stream(client, Operation::Read(get(tenant, "k"))).await,
        "list" => {
            let range = pb::KeyRangeRequest {
                tenant_id: tenant.to_owned(),
                ..pb::KeyRangeRequest::default()
            };
            client.get_key_range(range).await.map(|_| ())
        }
        other => panic!("{other}"),
    };
    match done {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        done => done,
    }
}

/// Repeats a request until it is refused. Returns how many were not, and the refusal.
async fn until_refused(client: &mut Client, kind: &str, tenant: &str, value: &[u8]) -> (u64, Status) {
    for passed in 0..10_000 {
        if let Err(status) = request(client, kind, tenant, value).await {
            return (passed, status);
        }
    }
    panic!("{kind}: never refused");
}

fn retry_after(status: &Status) -> Duration {
    let info = status.get_details_retry_info().expect("a RetryInfo");
    info.retry_delay.expect("a delay")
}

fn reason(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .expect("an ErrorInfo")
        .reason
        .clone()
}

fn metric(node: &Node, name: &str) -> u64 {
    node.health().metrics()[name].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_of_every_kind_count_and_nobody_else_notices() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config_with(dir.path(), &KINDS, operations(4))).await;
    let mut client = client(node.address());
    for kind in KINDS {
        let begun = Instant::now();
        let (passed, refused) = until_refused(&mut client, kind, kind, b"v").await;
        let each = if kind.starts_with("batch") { 2 } else { 1 };
        let most = 4.0 * (begun.elapsed().as_secs_f64() + 1.0) + 1.0;
        assert!(
            (passed * each) as f64 <= most,
            "{kind}: {passed} in {:?}",
            begun.elapsed()
        );
        assert!(
            passed * each >= 3,
            "{kind}: {passed}: a second's worth is there at once"
        );
        assert_eq!(refused.code(), Code::ResourceExhausted, "{kind}: {refused}");
        let named = format!("tenant {kind:?} is over its own quota operations_per_s = 4");
        assert!(refused.message().contains(&named), "{kind}: {refused}");
        assert!(refused.message().contains("try again in"), "{kind}: {refused}");
        request(&mut client, kind, "somebody-else", b"v").await.expect(kind);
    }
    assert!(metric(&node, "requests_over_quota") >= KINDS.len() as u64);
    assert!(metric(&node, "tenant_over_quota.write") >= 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_others_were_refused_is_counted_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with(dir.path(), &["own"], operations(1));
    config.tenants.default = operations(1);
    let node = start(&config).await;
    let quotas = &node.requests().quotas;
    let until_refused = |tenant| while quotas.admit_look(tenant).is_ok() {};
    until_refused("somebody-else");
    let own = quotas.usage();
    // Between the two looks: a number of others that is what is left of all would go up now, and down the next time.
    until_refused("own");
    assert_eq!(quotas.usage_of_others(&own).refused, 1);
    assert_eq!(quotas.usage_of_others(&quotas.usage()).refused, 1);
    assert_eq!((quotas.usage()[0].refused, quotas.refused()), (1, 2));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_as_long_as_he_is_told_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config_with(dir.path(), &["t"], operations(3))).await;
    let mut client = client(node.address());
    for _ in 0..5 {
        let (_, refused) = until_refused(&mut client, "write", "t", b"v").await;
        assert_eq!(reason(&refused), "MEMORY_PRESSURE");
        let wait = retry_after(&refused);
        assert!(
            (Duration::from_millis(1)..=Duration::from_millis(334)).contains(&wait),
            "{wait:?}"
        );
        tokio::time::sleep(wait).await;
        request(&mut client, "write", "t", b"v").await.expect("it waited");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_every_kind_count_and_what_was_too_much_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let value = vec![7; 100_000];
    let node = start(&config(dir.path())).await;
    let mut writer = client(node.address());
    for kind in KINDS {
        writer.write(put(kind, "k", &value)).await.unwrap();
    }
    node.shutdown().await;
    let node = start(&config_with(dir.path(), &KINDS, bytes(100))).await;
    let mut client = client(node.address());
    for kind in KINDS.into_iter().filter(|kind| !kind.contains("delete")) {
        let first = request(&mut client, kind, kind, &value).await;
        if kind == "batch-write" {
            // The first of its two writes took what both might have.
            assert_eq!(first.expect_err(kind).code(), Code::ResourceExhausted);
        } else {
            first.expect(kind);
        }
        let refused = request(&mut client, kind, kind, b"v").await.expect_err(kind);
        assert_eq!(refused.code(), Code::ResourceExhausted, "{kind}: {refused}");
        assert!(refused.message().contains("bytes_per_s = 100"), "{kind}: {refused}");
        if !kind.starts_with("batch") && kind != "stream" {
            // 100,000 bytes at 100 a second.
            let wait = retry_after(&refused).as_secs();
            assert!((900..=1001).contains(&wait), "{kind}: {wait}");
        }
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_is_slowed_down_to_the_quota_and_complete() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with(dir.path(), &["t"], bytes(2 << 20));
    config.mem_table.flush_threshold = ByteSize::mib(1);
    let node = start(&config).await;
    let mut client = client(node.address());
    // Four MiB, written with patience.
    for n in 0..40 {
        while let Err(status) = client.write(put("t", &format!("k{n:02}"), &vec![n; 100 << 10])).await {
            tokio::time::sleep(retry_after(&status)).await;
        }
    }
    let mut begun = Instant::now();
    let mut entries = loop {
        match client.scan(scan_of("t")).await {
            Ok(entries) => break entries.into_inner(),
            Err(status) => tokio::time::sleep(retry_after(&status)).await,
        }
        begun = Instant::now();
    };
    let first = entries.next().await.unwrap().unwrap();
    assert_eq!(first.key, "k00");
    let refused = client.scan(scan_of("t")).await.expect_err("one at a time");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("a scan is under way"), "{refused}");
    client.scan(scan_of("u")).await.expect("another tenant's");
    let mut count = 1;
    while let Some(entry) = entries.next().await {
        assert_eq!(entry.unwrap().value.len(), 100 << 10);
        count += 1;
    }
    assert_eq!(count, 40);
    // Of four MiB two may have been saved up, and some are read ahead.
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    let again = async || client.clone().scan(scan_of("t")).await.is_ok();
    eventually("its place is free again", again).await;
    node.shutdown().await;
}

/// Bytes that do not compress.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; size];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

async fn fill(client: &mut Client, tenant: &str) -> (u64, Status) {
    for n in 0..10_000 {
        let write = put(tenant, &format!("k{n}"), &noise(n, 10_000));
        if let Err(status) = client.write(write).await {
            return (n, status);
        }
    }
    panic!("never refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_bytes_are_bounded_also_by_restarts_and_deletes_pass() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with(dir.path(), &["t", "idle"], stored(ByteSize::mib(2)));
    config.mem_table.flush_threshold = ByteSize::kib(512);
    let node = start(&config).await;
    let mut client_ = client(node.address());
    let (stored, refused) = fill(&mut client_, "t").await;
    // Two MiB in values of 10 KB, each with its overhead in memory.
    assert!((180..=209).contains(&stored), "{stored}");
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::ResourceExhausted, "DISK_FULL".to_owned())
    );
    assert!(refused.message().contains("stored_bytes = 2097152"), "{refused}");
    assert!(refused.message().contains("only deletes"), "{refused}");
    assert_eq!(retry_after(&refused), Duration::from_secs(10));
    for (n, kind) in (stored..).zip(["repair", "batch-write"]) {
        let refused = request(&mut client_, kind, "t", &noise(n, 100_000)).await;
        assert_eq!(refused.expect_err(kind).code(), Code::ResourceExhausted);
    }
    client_.read(get("t", "k0")).await.expect("reads go on");
    client_.delete(remove("t", "k0")).await.expect("deletes pass");
    request(&mut client_, "batch-delete", "t", b"")
        .await
        .expect("deletes pass");
    request(&mut client_, "write", "other", &noise(0, 100_000))
        .await
        .expect("others go on");
    assert!(metric(&node, "memtable_flushes") >= 1, "a part of it is in tables");
    let has = metric(&node, "tenant_stored_bytes.t");
    assert!((stored * 10_000..2_100_000).contains(&has), "{has}");
    assert_eq!(metric(&node, "tenant_stored_bytes.idle"), 0);
    node.shutdown().await;
    let node = start(&config).await;
    let has = metric(&node, "tenant_stored_bytes.t");
    assert!(
        (stored * 9_800..2_100_000).contains(&has),
        "{has}: all of it is in tables now"
    );
    let mut client_ = client(node.address());
    let (more, _) = fill(&mut client_, "t").await;
    assert!(more <= 10, "{more}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_does_not_reach_beyond_what_may_be_stored() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config_with(dir.path(), &["t"], stored(ByteSize::kib(512)))).await;
    let mut client = client(node.address());
    let operations = (0..100)
        .map(|n| put("t", &format!("k{n}"), &noise(n, 10_000)))
        .chain([put("u", "k", b"v")])
        .collect();
    let batch = client.batch_write(pb::BatchWriteRequest { operations }).await.unwrap();
    let results = batch.into_inner().results;
    let written: Vec<bool> = results
        .iter()
        .map(|result| matches!(result.result, Some(Outcome::Write(_))))
        .collect();
    let count = written.iter().filter(|written| **written).count();
    assert!((45..=53).contains(&count), "{count} of 100");
    assert_eq!(
        written.iter().take_while(|written| **written).count(),
        count - 1,
        "the first ones"
    );
    assert!(written[100], "the other tenant's, at its place");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_in_a_table_are_told_apart_but_for_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_with(dir.path(), &["a", "b", "c"], stored(ByteSize::gib(1)));
    let node = start(&config).await;
    let mut client = client(node.address());
    for (tenant, keys) in [("a", 10), ("b", 300), ("c", 1)] {
        for n in 0..keys {
            client
                .write(put(tenant, &format!("k{n}"), &noise(n, 1000)))
                .await
                .unwrap();
        }
    }
    node.shutdown().await;
    let node = start(&config).await;
    assert_eq!(metric(&node, "memtable_bytes"), 0);
    for (tenant, expected) in [("a", 10_300_u64), ("b", 309_000), ("c", 1030)] {
        let has = metric(&node, &format!("tenant_stored_bytes.{tenant}"));
        // A block of 4 KiB at either end.
        assert!(has.abs_diff(expected) <= 2 * 5200, "{tenant}: {has}, not {expected}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_quota_of_his_own_has_the_default_and_who_has_one_has_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with(dir.path(), &["free"], Quota::default());
    config.tenants.default = operations(5);
    let node = start(&config).await;
    let mut client = client(node.address());
    for tenant in ["x", "y"] {
        let (passed, refused) = until_refused(&mut client, "write", tenant, b"v").await;
        assert!(passed >= 5, "{passed}: each has its own");
        assert!(
            refused.message().contains("default quota operations_per_s = 5"),
            "{refused}"
        );
    }
    for _ in 0..100 {
        request(&mut client, "write", "free", b"v").await.expect("no limit");
    }
    assert_eq!(node.requests().quotas.tenants().others(), 2);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_only_wait_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.server.max_queue_delay = Duration::from_millis(1);
    (config.metrics.enabled, config.metrics.port) = (true, 0);
    let node = start(&config).await;
    let overload = &node.requests().overload;
    // Writes that all take 60 ms.
    eventually("fewer writes are let in", async || {
        let late: Vec<_> = (0..200).filter_map(|_| overload.enter(Kind::Write).ok()).collect();
        tokio::time::sleep(Duration::from_millis(60)).await;
        late.into_iter().for_each(UnderWay::answered);
        overload.limit(Kind::Write).is_some()
    })
    .await;
    let limit = overload.limit(Kind::Write).expect("a limit");
    let held: Vec<_> = (0..limit)
        .map(|_| overload.enter(Kind::Write).expect("let in"))
        .collect();
    let mut client = client(node.address());
    for kind in ["write", "delete", "repair", "batch-write", "batch-delete"] {
        let refused = request(&mut client, kind, "t", b"v").await.expect_err(kind);
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::ResourceExhausted, "MEMORY_PRESSURE".to_owned())
        );
        assert!(
            refused.message().contains("server.max_queue_delay"),
            "{kind}: {refused}"
        );
        assert!(retry_after(&refused) > Duration::ZERO);
    }
    let in_stream = stream(&mut client, Operation::Write(put("t", "k", b"v"))).await;
    assert_eq!(in_stream.expect_err("refused").code(), Code::ResourceExhausted);
    let shed = metric(&node, "requests_shed");
    assert!(shed >= 6);
    assert_eq!(site::metrics(&node).await["storage_requests_shed_total"], shed as f64);
    assert_eq!(node.requests().handles.published.applied(), 0, "nothing was written");
    for kind in ["read", "batch-read", "list"] {
        request(&mut client, kind, "t", b"v").await.expect("reads are in time");
    }
    drop(held);
    eventually("writes are let in again", async || {
        request(&mut client, "write", "t", b"v").await.is_ok()
    })
    .await;
    node.shutdown().await;
}
