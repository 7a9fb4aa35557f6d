//! Bearer tokens: who may do what, for every RPC, and that tokens change on a running node.

mod common;
#[path = "common/secure.rs"]
mod secure;
#[path = "common/site.rs"]
mod site;

use common::*;
use pairdb_node::config::Config;
use pairdb_node::node::Node;
use pairdb_node::rpc::admin_pb::admin_service_client::AdminServiceClient;
use pairdb_node::rpc::admin_pb::fault_service_client::FaultServiceClient;
use pairdb_node::rpc::security::Way;
use pairdb_node::rpc::{admin_pb, pb};
use prost::Message;
use secure::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

const OURS: &str = "token-of-the-tenant";
const THEIRS: &str = "token-of-another-tenant";
const ALL: &str = "token-for-all-tenants";
const ADMIN: &str = "token-of-who-administers";

fn guarded(dir: &Path) -> Config {
    let mut config = site::shown(dir);
    let tokens = line("tenant", OURS) + &line("other", THEIRS) + &line("*", ALL);
    config.security.tokens_file = Some(put(&dir.join("tokens"), &tokens));
    config.security.admin_tokens_file = Some(put(&dir.join("admins"), &line("anna", ADMIN)));
    config.security.check_interval = Duration::from_millis(20);
    config
}

fn applied(node: &Node) -> u64 {
    node.requests().handles.published.applied()
}

/// A request of each RPC that concerns the tenant, or all of them.
fn requests() -> BTreeMap<&'static str, Vec<u8>> {
    let tenant = "tenant".to_owned();
    let repair = pb::RepairRequest {
        tenant_id: tenant.clone(),
        key: "k".into(),
        value: b"v".to_vec(),
        vector_clock: wire_clock(&[("c", 1)]),
    };
    let digest = pb::KeyDigest {
        tenant_id: tenant.clone(),
        key: "k".into(),
        digest: 1,
    };
    let scan = pb::ScanRequest {
        tenant_id: tenant.clone(),
        ..pb::ScanRequest::default()
    };
    let keys = pb::StreamKeysRequest {
        tenant_id: tenant.clone(),
        ..pb::StreamKeysRequest::default()
    };
    let page = pb::KeyRangeRequest {
        tenant_id: tenant.clone(),
        ..pb::KeyRangeRequest::default()
    };
    let replicate = pb::ReplicateRequest {
        tenant_id: tenant.clone(),
        target_node_id: "to".into(),
        ..pb::ReplicateRequest::default()
    };
    let status = pb::StreamStatusRequest {
        source_node_id: String::new(),
        target_node_id: "to".into(),
    };
    [
        ("Write", write("k", b"v", &[("c", 1)]).encode_to_vec()),
        ("Read", read("k").encode_to_vec()),
        ("Delete", delete("k", &[("c", 1)]).encode_to_vec()),
        ("Repair", repair.encode_to_vec()),
        ("Scan", scan.encode_to_vec()),
        ("StreamKeys", keys.encode_to_vec()),
        ("GetKeyRange", page.encode_to_vec()),
        ("ReplicateData", replicate.encode_to_vec()),
        ("DrainNode", pb::DrainRequest::default().encode_to_vec()),
        ("StartStreaming", pb::StartStreamingRequest::default().encode_to_vec()),
        ("StopStreaming", pb::StopStreamingRequest::default().encode_to_vec()),
        ("GetStreamStatus", status.encode_to_vec()),
        (
            "NotifyStreamingComplete",
            pb::StreamingCompleteRequest::default().encode_to_vec(),
        ),
        (
            "CompareKeys",
            pb::CompareKeysRequest { keys: vec![digest] }.encode_to_vec(),
        ),
        ("HealthCheck", Vec::new()),
        ("BatchWrite", Vec::new()),
        ("BatchRead", Vec::new()),
        ("BatchDelete", Vec::new()),
        ("Operations", Vec::new()),
    ]
    .into()
}

/// RPCs whose operations are refused one by one.
const MANY: [&str; 4] = ["BatchWrite", "BatchRead", "BatchDelete", "Operations"];

/// Calls an RPC by hand; returns its status, if it is in the headers of the answer.
async fn call(node: SocketAddr, path: &str, authorization: Option<&str>, body: &[u8]) -> Option<Status> {
    let stream = tokio::net::TcpStream::connect(node).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://node{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let mut client = client.ready().await.unwrap();
    let (response, mut sender) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let framed = [&[0], &(body.len() as u32).to_be_bytes()[..], body].concat();
    // It may have been refused by its headers alone.
    let _ = sender.send_data(framed.into(), true);
    Status::from_header_map(response.await.unwrap().headers())
}

fn explained(status: &Status) {
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(
        (info.domain.as_str(), info.reason.as_str()),
        ("storage.pairdb", "UNKNOWN")
    );
}

#[test]
fn every_rpc_of_the_service_is_tried_here() {
    let proto = include_str!("../proto/storage.proto");
    let methods = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    let methods: BTreeSet<&str> = methods.filter_map(|line| line.split('(').next()).collect();
    assert_eq!(methods, requests().into_keys().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rpc_is_answered_without_a_token_and_none_for_another_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&guarded(dir.path())).await;
    let address = node.address();
    let theirs = format!("bearer {THEIRS}");
    for (method, body) in requests() {
        let path = format!("/storage.StorageNodeService/{method}");
        for wrong in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer nobody-has-this-token"),
            Some("Basic dG9rZW4tb2YtdGhlLXRlbmFudA=="),
            Some(OURS),
        ] {
            let status = call(address, &path, wrong, &body).await.expect(method);
            assert_eq!(status.code(), Code::Unauthenticated, "{method} {wrong:?}: {status}");
            assert!(status.message().contains("authorization: Bearer"), "{status}");
            explained(&status);
        }
        if MANY.contains(&method) {
            continue;
        }
        let status = call(address, &path, Some(&theirs), &body).await.expect(method);
        assert_eq!(status.code(), Code::PermissionDenied, "{method}: {status}");
        explained(&status);
    }
    let none = call(address, "/storage.StorageNodeService/Unknown", None, &[]).await;
    assert_eq!(none.expect("a refusal").code(), Code::Unauthenticated);
    assert_eq!(applied(&node), 0, "something was carried out");
    let access = &node.health().access;
    assert!(access.unauthenticated.load(std::sync::atomic::Ordering::Relaxed) >= 133);
    assert!(access.denied.load(std::sync::atomic::Ordering::Relaxed) >= 15);
    let seen = site::metrics(&node).await;
    for (reason, count) in [("unauthenticated", &access.unauthenticated), ("denied", &access.denied)] {
        let count = count.load(std::sync::atomic::Ordering::Relaxed) as f64;
        assert_eq!(
            seen[&format!("access_refused_total{{reason=\"{reason}\"}}")],
            count,
            "{reason}"
        );
    }
    assert_eq!(seen["access_refused_total{reason=\"handshake\"}"], 0.0);
    // What tells nothing of anybody's data is open.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut health = HealthClient::new(endpoint.connect_lazy());
    health.check(HealthCheckRequest::default()).await.unwrap();
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let open = call(address, path, None, &[]).await;
    assert!(open.is_none_or(|status| status.code() != Code::Unauthenticated));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_token_is_for_what_the_tenant_has_and_that_of_all_for_everything() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&guarded(dir.path())).await;
    let mut ours = plain_client(node.address(), Some(OURS));
    let mut all = plain_client(node.address(), Some(ALL));
    for client in [&mut ours, &mut all] {
        client.write(write("k", b"v", &[("c", 1)])).await.unwrap();
        assert_eq!(client.read(read("k")).await.unwrap().into_inner().value, b"v");
        let scan = pb::ScanRequest {
            tenant_id: "tenant".into(),
            ..pb::ScanRequest::default()
        };
        let entries: Vec<_> = client.scan(scan).await.unwrap().into_inner().collect().await;
        assert_eq!(entries.len(), 1);
    }
    all.health_check(pb::HealthCheckRequest {}).await.unwrap();
    // A copy is held up by no quota: it is not for a tenant to say that a write is one.
    let mut copy = write("k", b"copy", &[("c", 2)]);
    copy.is_copy = true;
    let mut copied_delete = delete("k", &[("c", 3)]);
    copied_delete.is_copy = true;
    let before = applied(&node);
    for (client, expected) in [(&mut ours, Some(Code::PermissionDenied)), (&mut all, None)] {
        let mut codes = vec![
            (
                "write",
                client.write(copy.clone()).await.err().map(|status| status.code()),
            ),
            (
                "delete",
                client
                    .delete(copied_delete.clone())
                    .await
                    .err()
                    .map(|status| status.code()),
            ),
        ];
        let batch = pb::BatchWriteRequest {
            operations: vec![copy.clone()],
        };
        codes.push((
            "batch of writes",
            code(&client.batch_write(batch).await.unwrap().into_inner().results[0]),
        ));
        let batch = pb::BatchDeleteRequest {
            operations: vec![copied_delete.clone()],
        };
        codes.push((
            "batch of deletes",
            code(&client.batch_delete(batch).await.unwrap().into_inner().results[0]),
        ));
        for (name, operation) in [
            ("write of a stream", pb::operation::Operation::Write(copy.clone())),
            (
                "delete of a stream",
                pb::operation::Operation::Delete(copied_delete.clone()),
            ),
        ] {
            let one = pb::Operation {
                id: 7,
                operation: Some(operation),
            };
            let mut results = client.operations(tokio_stream::once(one)).await.unwrap().into_inner();
            codes.push((name, code(&results.next().await.unwrap().unwrap())));
        }
        for (name, code) in codes {
            assert_eq!(code, expected, "{name}");
        }
        if expected.is_some() {
            assert_eq!(applied(&node), before, "something of it was carried out");
        }
    }
    node.shutdown().await;
}

fn code(result: &pb::OperationResult) -> Option<Code> {
    match result.result.as_ref().unwrap() {
        pb::operation_result::Result::Failure(failure) => Some(Code::from(failure.code)),
        _ => None,
    }
}

fn of(tenant: &str, mut request: pb::WriteRequest) -> pb::WriteRequest {
    request.tenant_id = tenant.to_owned();
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_of_a_batch_and_of_a_stream_is_judged_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&guarded(dir.path())).await;
    let mut ours = plain_client(node.address(), Some(OURS));
    let writes = ["tenant", "other", "tenant"].map(|tenant| of(tenant, write(tenant, b"v", &[("c", 1)])));
    let batch = pb::BatchWriteRequest {
        operations: writes.to_vec(),
    };
    let results = ours.batch_write(batch).await.unwrap().into_inner().results;
    let denied = Some(Code::PermissionDenied);
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), [None, denied, None]);
    let reads = ["other", "tenant"].map(|tenant| pb::ReadRequest {
        tenant_id: tenant.to_owned(),
        key: "tenant".to_owned(),
    });
    let batch = pb::BatchReadRequest {
        operations: reads.to_vec(),
    };
    let results = ours.batch_read(batch).await.unwrap().into_inner().results;
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), [denied, None]);
    let deletes = ["other", "tenant"].map(|tenant| pb::DeleteRequest {
        tenant_id: tenant.to_owned(),
        ..delete("tenant", &[("c", 2)])
    });
    let batch = pb::BatchDeleteRequest {
        operations: deletes.to_vec(),
    };
    let results = ours.batch_delete(batch).await.unwrap().into_inner().results;
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), [denied, None]);
    // All kinds of operations, of the other tenant and then of ours.
    use pb::operation::Operation;
    let kinds = |tenant: &str| {
        let tenant_id = tenant.to_owned();
        [
            Operation::Write(of(tenant, write("s", b"v", &[("c", 1)]))),
            Operation::Read(pb::ReadRequest {
                tenant_id: tenant_id.clone(),
                key: "s".into(),
            }),
            Operation::Repair(pb::RepairRequest {
                tenant_id: tenant_id.clone(),
                key: "s".into(),
                value: b"v".to_vec(),
                vector_clock: wire_clock(&[("c", 1)]),
            }),
            Operation::Delete(pb::DeleteRequest {
                tenant_id,
                ..delete("s", &[("c", 2)])
            }),
        ]
    };
    let before = applied(&node);
    for (tenant, expected) in [("other", denied), ("tenant", None)] {
        for operation in kinds(tenant) {
            let name = format!("{operation:?}");
            let one = pb::Operation {
                id: 7,
                operation: Some(operation),
            };
            let mut results = ours.operations(tokio_stream::once(one)).await.unwrap().into_inner();
            let result = results.next().await.unwrap().unwrap();
            assert_eq!(code(&result), expected, "{name}");
        }
        if expected.is_some() {
            assert_eq!(applied(&node), before, "something of theirs was carried out");
        }
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_taken_back_counts_no_more_also_on_an_open_stream() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&guarded(dir.path())).await;
    let mut ours = plain_client(node.address(), Some(OURS));
    let mut theirs = plain_client(node.address(), Some(THEIRS));
    ours.write(write("k", b"v", &[])).await.unwrap();
    let (operations, stream) = tokio::sync::mpsc::channel(1);
    let mut results = ours.operations(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let mut ask = async || {
        let one = pb::Operation {
            id: 1,
            operation: Some(pb::operation::Operation::Read(read("k"))),
        };
        operations.send(one).await.unwrap();
        code(&results.next().await.unwrap().unwrap())
    };
    assert_eq!(ask().await, None);
    // The other one gets a second, as one does who is about to change it.
    let second = "the-next-token-of-another";
    put(
        &dir.path().join("tokens"),
        &(line("other", THEIRS) + &line("other", second)),
    );
    eventually("it counts no more", async || {
        ours.read(read("k"))
            .await
            .is_err_and(|status| status.code() == Code::Unauthenticated)
    })
    .await;
    assert_eq!(ask().await, Some(Code::Unauthenticated), "the open stream");
    let missing = pb::ReadRequest {
        tenant_id: "other".into(),
        key: "k".into(),
    };
    for client in [&mut theirs, &mut plain_client(node.address(), Some(second))] {
        assert_eq!(client.read(missing.clone()).await.unwrap_err().code(), Code::NotFound);
    }
    // A file that is bad, empty or gone changes nothing.
    for bad in ["other token", "", "# nobody\n"] {
        put(&dir.path().join("tokens"), bad);
        let failed = node.health().reloads.counts().1;
        eventually("it is refused", async || node.health().reloads.counts().1 > failed + 1).await;
        assert_eq!(theirs.read(missing.clone()).await.unwrap_err().code(), Code::NotFound);
    }
    std::fs::remove_file(dir.path().join("tokens")).unwrap();
    let failed = node.health().reloads.counts().1;
    eventually("it is refused", async || node.health().reloads.counts().1 > failed + 1).await;
    assert_eq!(ours.read(read("k")).await.unwrap_err().code(), Code::Unauthenticated);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_interval_does_not_wait_for_the_end_of_the_longer_one() {
    let dir = tempfile::tempdir().unwrap();
    let shorter = guarded(dir.path());
    let mut longer = shorter.clone();
    longer.security.check_interval = Duration::from_secs(3600);
    let node = start(&longer).await;
    node.reloader().reload(&shorter);
    put(
        &dir.path().join("tokens"),
        &line("tenant", "the-next-token-of-the-tenant"),
    );
    let mut client = plain_client(node.address(), Some("the-next-token-of-the-tenant"));
    eventually("the next token counts", async || {
        let read = client.read(read("k")).await;
        read.is_err_and(|status| status.code() == Code::NotFound)
    })
    .await;
    node.shutdown().await;
}

async fn admin(dir: &Path, token: Option<&str>) -> Result<(), Status> {
    let socket = dir.join("data/admin.sock");
    let connect = move |_uri| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    };
    let endpoint = Endpoint::from_static("http://admin.socket");
    let channel = endpoint.connect_with_connector_lazy(tower::service_fn(connect));
    let mut admin = AdminServiceClient::new(Way::new(channel, shown(token))).max_decoding_message_size(usize::MAX);
    admin.status(admin_pb::StatusRequest {}).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_administers_the_node_needs_a_token_of_his_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = guarded(dir.path());
    breakable(&mut config);
    let node = start(&config).await;
    let address = node.fault_address().unwrap();
    let faults = async |token: Option<&str>| {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut faults = FaultServiceClient::new(Way::new(endpoint.connect_lazy(), shown(token)));
        let kill = admin_pb::InjectRequest {
            actor: "scrub".into(),
            fault: "kill".into(),
            ..admin_pb::InjectRequest::default()
        };
        faults.inject(kill).await.map(drop)
    };
    // A tenant's token is none here, not even that of all tenants.
    for token in [None, Some(OURS), Some(ALL)] {
        for refused in [admin(dir.path(), token).await, faults(token).await] {
            let status = refused.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{token:?}: {status}");
            explained(&status);
        }
    }
    assert!(node.tree().ends().is_empty(), "an actor was killed");
    admin(dir.path(), Some(ADMIN)).await.unwrap();
    faults(Some(ADMIN)).await.unwrap();
    let ours = plain_client(node.address(), Some(ADMIN)).read(read("k")).await;
    assert_eq!(ours.unwrap_err().code(), Code::Unauthenticated, "nor is his one there");
    put(&dir.path().join("admins"), &line("bert", "token-of-who-comes-next"));
    eventually("his counts no more", async || {
        admin(dir.path(), Some(ADMIN)).await.is_err()
    })
    .await;
    admin(dir.path(), Some("token-of-who-comes-next")).await.unwrap();
    node.shutdown().await;
}

#[test]
fn the_command_line_makes_tokens_and_shows_them_and_no_log_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| binary(args).output().unwrap();
    let made = run(&["token", "new", "acme"]);
    assert!(made.status.success(), "{made:?}");
    let made = String::from_utf8(made.stdout).unwrap();
    let [token, known] = made.lines().collect::<Vec<_>>()[..] else {
        panic!("{made}");
    };
    assert!(token.len() >= 40 && known.starts_with("acme "), "{made}");
    assert!(!known.contains(token));
    let again = String::from_utf8(run(&["token", "new", "acme"]).stdout).unwrap();
    assert!(!again.contains(token), "each is another");
    let token_file = put(&dir.path().join("token"), &format!("{token}\n"));
    let hash = |tenant: &str, file: &Path| {
        let mut command = binary(&["token", "hash", tenant]);
        command.stdin(std::fs::File::open(file).unwrap()).output().unwrap()
    };
    assert_eq!(
        String::from_utf8(hash("acme", &token_file).stdout).unwrap().trim(),
        known
    );
    let short = put(&dir.path().join("short"), "secret");
    for (refused, said) in [
        (hash("acme", &short), "at least 16"),
        (hash("a:b", &token_file), "tenant"),
        (hash("#acme", &token_file), "must not begin"),
    ] {
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && told.contains(said), "{told}");
        assert!(!told.contains("secret") && !told.contains(token), "{told}");
    }
    let tokens = put(&dir.path().join("tokens"), &format!("# of tenants\n{known}\n"));
    let admins = put(&dir.path().join("admins"), &line("anna", ADMIN));
    let admin_file = put(&dir.path().join("admin"), ADMIN);
    let mut node = Process::start(
        dir.path(),
        free_port(),
        &[
            ("PAIRDB__METRICS__ENABLED", "false"),
            ("PAIRDB__LOGGING__LEVEL", "trace"),
            ("PAIRDB__TRACING__SLOW_REQUEST", "1us"),
            ("PAIRDB__SECURITY__TOKENS_FILE", tokens.to_str().unwrap()),
            ("PAIRDB__SECURITY__ADMIN_TOKENS_FILE", admins.to_str().unwrap()),
        ],
    );
    let (addr, token_file) = (node.addr.clone(), token_file.to_str().unwrap());
    let target = ["--addr", &addr, "--tenant", "acme", "--token-file", token_file];
    let put_it = run(&[&["put", "k", "v"], &target[..]].concat());
    assert!(put_it.status.success(), "{put_it:?}");
    let mut by_environment = binary(&["get", "k", "--addr", &addr, "--tenant", "acme"]);
    let got = by_environment.env("PAIRDB_TOKEN_FILE", token_file).output().unwrap();
    assert_eq!(got.stdout, b"v", "{got:?}");
    let without = run(&["get", "k", "--addr", &addr, "--tenant", "acme"]);
    let told = String::from_utf8_lossy(&without.stderr);
    assert!(!without.status.success() && told.contains("--token-file"), "{told}");
    let other = run(&["get", "k", "--addr", &addr, "--tenant", "b", "--token-file", token_file]);
    assert!(
        String::from_utf8_lossy(&other.stderr).contains("not one of tenant"),
        "{other:?}"
    );
    let bench = [
        "bench",
        "--workload",
        "mixed",
        "--keys",
        "10",
        "--duration",
        "200ms",
        "--json",
    ];
    let benched = run(&[&bench[..], &target[..]].concat());
    let report: serde_json::Value = serde_json::from_slice(&benched.stdout).expect("a report");
    assert_eq!(report["errors"], 0, "{report}");
    let data = dir.path().join("data");
    let status = ["status", "--data-dir", data.to_str().unwrap()];
    let refused = run(&status);
    assert!(!refused.status.success(), "{refused:?}");
    let shown = run(&[&status[..], &["--admin-token-file", admin_file.to_str().unwrap()]].concat());
    assert!(shown.status.success(), "{shown:?}");
    let mut by_environment = binary(&["log-level", "trace", "--data-dir", data.to_str().unwrap()]);
    by_environment.env("PAIRDB_ADMIN_TOKEN_FILE", &admin_file);
    assert!(by_environment.output().unwrap().status.success());
    assert_eq!(node.terminate(), Some(0));
    let log = std::fs::read_to_string(dir.path().join("node.log")).unwrap();
    assert!(log.contains("a slow request"), "the log has what it should");
    assert!(!log.contains(token) && !log.contains(ADMIN), "a token was logged");
    let told = String::from_utf8(shown.stdout).unwrap();
    assert!(!told.contains(token) && !told.contains(ADMIN));
}
