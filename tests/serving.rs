//! How the protocol is served: deadlines and timeouts, compression, health for balancers, reflection, dead connections.

mod common;
#[path = "common/site.rs"]
mod site;

use common::*;
use pairdb_node::actors::answers::Port;
use pairdb_node::actors::deadline;
use pairdb_node::actors::ranges::KeyRange;
use pairdb_node::actors::refusal::Refusal;
use pairdb_node::actors::reply::reply_port;
use pairdb_node::actors::wal::WalMessage;
use pairdb_node::actors::write::{NewWrite, PendingWrite, WriteClock};
use pairdb_node::node::Node;
use pairdb_node::rpc::pb;
use pairdb_node::storage::fs::SimFs;
use pairdb_node::storage::key::Key;
use pairdb_node::storage::log::record::Operation;
use pairdb_node::storage::version::Value;
use prost::Message;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt;

const SERVICE: &str = "storage.StorageNodeService";

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("an ErrorInfo").reason
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// A connection by hand.
async fn connect(node: impl tokio::net::ToSocketAddrs) -> h2::client::SendRequest<bytes::Bytes> {
    let stream = tokio::net::TcpStream::connect(node).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn request(rpc: &str, headers: &[(&str, &str)]) -> http::Request<()> {
    let mut request = http::Request::post(format!("http://node/{SERVICE}/{rpc}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// Calls an RPC by hand, with these headers; returns the headers of the answer and its body.
async fn call(node: SocketAddr, rpc: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (http::HeaderMap, Vec<u8>) {
    let (response, mut sender) = connect(node).await.send_request(request(rpc, headers), false).unwrap();
    // The node may have refused the call by its headers alone; what it answered is what counts.
    let _ = sender.send_data(body.into(), true);
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        content.extend_from_slice(&data);
    }
    (head.headers, content)
}

fn refusal(headers: &http::HeaderMap) -> Status {
    Status::from_header_map(headers).expect("a refusal")
}

fn applied(node: &Node) -> u64 {
    node.requests().handles.published.applied()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_behind_its_deadline_is_not_carried_out() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let body = framed(0, &write("k", b"v", &[("a", 1)]).encode_to_vec());
    for passed in ["0S", "1n", "0m"] {
        let (headers, _) = call(node.address(), "Write", &[("grpc-timeout", passed)], body.clone()).await;
        let status = refusal(&headers);
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::DeadlineExceeded, "UNKNOWN")
        );
    }
    assert_eq!(applied(&node), 0, "a write was carried out behind its deadline");
    // What leaves enough time is carried out, and so is what says nothing that can be understood.
    for (timeout, seq) in [("1H", 1), ("100000000m", 2), ("soon", 3), ("5", 4), ("", 5)] {
        let (headers, content) = call(node.address(), "Write", &[("grpc-timeout", timeout)], body.clone()).await;
        assert!(!content.is_empty(), "{timeout}: {headers:?}");
        assert_eq!(applied(&node), seq, "{timeout}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_asks_whether_the_deadline_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let requests = node.requests().clone();
    let key = Key::new("tenant", "k").unwrap();
    let value = || Value::Live(b"v".to_vec().into());
    let clock = || [("a", 1)].into_iter().collect();
    let put = |key: &Key| NewWrite {
        operation: Operation::Write,
        key: key.clone(),
        value: value(),
        clock: Some(clock()),
        id: None,
        is_copy: false,
    };
    let passed = Instant::now();
    // At admission.
    let admitted = deadline::until(passed, async {
        let write = requests.write(put(&key));
        let (write, read) = (write.await.map(|_| ()), requests.read(key.clone()).await.map(|_| ()));
        let range = KeyRange {
            tenant: "tenant".to_owned(),
            start: String::new(),
            end: String::new(),
        };
        [write, read, requests.scan(range).map(|_| ())]
    });
    assert_eq!(admitted.await, [const { Err(Refusal::DeadlineExceeded) }; 3]);
    // And before it is encoded: by then the deadline has passed, or the caller has gone away.
    let append = |reply| {
        let (permit, _) = requests.admission.admit_writes(1, 100, false).unwrap();
        let write = PendingWrite {
            operation: Operation::Write,
            key: key.clone(),
            value: value(),
            clock: WriteClock::Given(clock()),
            timestamp_ms: 0,
            id: None,
            caller: Port::new(reply, permit),
        };
        assert!(requests.handles.wal.send(WalMessage::Append(vec![write]), 100).is_ok());
    };
    let (reply, answer) = deadline::until(passed, async { reply_port() }).await;
    append(reply);
    assert_eq!(answer.wait_for("the log").await, Err(Refusal::DeadlineExceeded));
    let (reply, answer) = reply_port();
    drop(answer);
    append(reply);
    // Behind both of them in the mailbox, so the first to get a number.
    let other = Key::new("tenant", "other").unwrap();
    let written = requests.write(put(&other)).await;
    assert!(written.unwrap().applied);
    assert_eq!(applied(&node), 1);
    assert!(requests.read(key).await.unwrap().winner().is_none());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_and_timeouts_end_a_wait_and_nothing_is_done_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.server.read_timeout = Duration::from_millis(1500);
    config.server.write_timeout = Duration::from_millis(500);
    let node = start_on(&config, Arc::new(SimFs::default())).await;
    // As if the disk answered no read: whatever is not in the cache waits, also a write without a clock.
    let loads = Arc::clone(&node.requests().loads);
    let all = loads.available_permits() as u32;
    let stuck = loads.acquire_many(all).await.unwrap();
    let body = framed(0, &read("k").encode_to_vec());
    let (headers, _) = call(node.address(), "Read", &[("grpc-timeout", "50m")], body).await;
    assert_eq!(refusal(&headers).code(), Code::DeadlineExceeded);
    let body = framed(0, &write("k", b"v", &[]).encode_to_vec());
    let (headers, _) = call(node.address(), "Write", &[("grpc-timeout", "50m")], body).await;
    assert_eq!(refusal(&headers).code(), Code::DeadlineExceeded);
    let mut client = client(node.address());
    let late = client.read(read("k")).await.unwrap_err();
    assert!(late.message().contains("1.5s"), "server.read_timeout: {late}");
    let later = client.write(write("k", b"v", &[])).await.unwrap_err();
    // Not 1.5 s: the time for a write is for all of it, the read in it included.
    assert!(later.message().contains("500ms"), "server.write_timeout: {later}");
    for status in [&late, &later] {
        assert_eq!((status.code(), reason(status).as_str()), (Code::Unavailable, "UNKNOWN"));
        let retry = status.get_details_retry_info().expect("a RetryInfo").retry_delay;
        assert!(retry.is_some_and(|delay| !delay.is_zero()), "{retry:?}");
    }
    drop(stuck);
    client.write(write("other", b"v", &[])).await.unwrap();
    assert_eq!(applied(&node), 1, "a write was carried out that had been given up");
    assert_eq!(client.read(read("k")).await.unwrap_err().code(), Code::NotFound);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_gets_wrong_is_named_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    let tenant = pb::WriteRequest {
        tenant_id: "a:b".into(),
        ..write("k", b"v", &[])
    };
    for (request, field) in [
        (tenant, "tenant_id"),
        (write("", b"v", &[]), "key"),
        (write("k", b"", &[]), "value"),
        (write("k", b"v", &[("a", -1)]), "vector_clock.logical_timestamp"),
        (write("k", b"v", &[("", 1)]), "vector_clock.coordinator_node_id"),
    ] {
        let status = client.write(request).await.unwrap_err();
        let violations = status.get_details_bad_request().expect("a BadRequest").field_violations;
        assert_eq!(violations.len(), 1, "{status}");
        assert_eq!(violations[0].field, field);
        assert!(!violations[0].description.is_empty());
    }
    // Not a method of the service: tonic answers, and the reason is there all the same.
    let (headers, _) = call(node.address(), "Nothing", &[], framed(0, &[])).await;
    let status = refusal(&headers);
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unimplemented, "UNKNOWN")
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_taken_and_given() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address())
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let value = b"compressible ".repeat(100_000);
    client.write(write("large", &value, &[])).await.unwrap();
    client.write(write("small", b"v", &[])).await.unwrap();
    let large = client.read(read("large")).await.unwrap();
    assert_eq!(large.into_inner().value, value);
    // A few kilobytes that become more than is read at all.
    let bomb = client.write(write("bomb", &vec![0; 30 << 20], &[])).await.unwrap_err();
    assert_eq!(
        (bomb.code(), reason(&bomb).as_str()),
        (Code::InvalidArgument, "INVALID_REQUEST")
    );
    let offer = [("grpc-accept-encoding", "identity,deflate,gzip")];
    for (key, offer, flag) in [("large", &offer[..], 1), ("small", &offer, 0), ("large", &[], 0)] {
        let body = framed(0, &read(key).encode_to_vec());
        let (headers, content) = call(node.address(), "Read", offer, body).await;
        assert_eq!(content[0], flag, "{key}");
        assert_eq!(headers.contains_key("grpc-encoding"), !offer.is_empty());
        assert_eq!(content.len() < value.len() / 10, key == "small" || flag == 1, "{key}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compressed_requests_become_is_not_held_for_a_slow_client() {
    let dir = tempfile::tempdir().unwrap();
    let node = Process::start(dir.path(), free_port(), &[]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed
        .write_all(&write("k", &vec![0; 20 << 20], &[]).encode_to_vec())
        .unwrap();
    let bomb = bytes::Bytes::from(framed(1, &packed.finish().unwrap()));
    let mut client = connect(&node.addr).await;
    let mut begun = Vec::new();
    for _ in 0..40 {
        let (response, mut sender) = client
            .send_request(request("Write", &[("grpc-encoding", "gzip")]), false)
            .unwrap();
        sender.send_data(bomb.clone(), false).unwrap();
        begun.push((response, sender));
    }
    for (response, mut sender) in begun.split_off(38) {
        sender.send_data(bytes::Bytes::new(), true).unwrap();
        let refused = refusal(response.await.unwrap().headers());
        assert!(refused.message().contains("20971520 bytes"), "{refused}");
    }
    // What is whole was unpacked, and each of the others would have been by now.
    let peak = node.peak_memory();
    assert!(
        peak < 300 << 20,
        "{peak} bytes for 40 requests of 20 MiB that have not ended"
    );
}

fn health(node: SocketAddr) -> HealthClient<tonic::transport::Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{node}")).unwrap();
    HealthClient::new(endpoint.connect_lazy())
}

/// What a watch tells next; [`None`] at its end.
async fn next(watched: &mut tonic::Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    let told = tokio::time::timeout(Duration::from_secs(10), watched.next());
    let told = told.await.expect("nothing is told")?;
    Some(told.unwrap().status())
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_and_those_who_watch_learn_of_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = health(node.address());
    let mut watched = Vec::new();
    for service in ["", SERVICE] {
        let status = client.check(about(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
        watched.push(client.watch(about(service)).await.unwrap().into_inner());
    }
    let unknown = client.check(about("storage.Nobody")).await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "UNKNOWN"));
    let mut nobody = client.watch(about("storage.Nobody")).await.unwrap().into_inner();
    assert_eq!(next(&mut nobody).await, Some(ServingStatus::ServiceUnknown));
    for stream in &mut watched {
        assert_eq!(next(stream).await, Some(ServingStatus::Serving));
    }
    // Were the streams not ended, the stop would wait for them.
    node.shutdown().await;
    for mut stream in watched {
        assert_eq!(next(&mut stream).await, Some(ServingStatus::NotServing));
        assert_eq!(next(&mut stream).await, None);
    }
    assert_eq!(next(&mut nobody).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_latched_log_is_not_serving() {
    let disk = SimFs::default();
    let dir = tempfile::tempdir().unwrap();
    let node = start_on(&config(dir.path()), Arc::new(disk.clone())).await;
    let mut client = client(node.address());
    client.write(write("k", b"v", &[("a", 1)])).await.unwrap();
    let mut watched = health(node.address()).watch(about(SERVICE)).await.unwrap().into_inner();
    assert_eq!(next(&mut watched).await, Some(ServingStatus::Serving));
    disk.fail_syncs(1);
    client.write(write("k", b"w", &[("a", 2)])).await.unwrap_err();
    assert_eq!(next(&mut watched).await, Some(ServingStatus::NotServing));
    let checked = health(node.address()).check(about("")).await.unwrap().into_inner();
    assert_eq!(checked.status(), ServingStatus::NotServing);
    node.shutdown().await;
}

macro_rules! reflect {
    ($version:ident, $node:expr) => {{
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", $node)).unwrap();
        let mut client =
            $version::server_reflection_client::ServerReflectionClient::new(endpoint.connect().await.unwrap());
        let questions = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol(SERVICE.to_owned()),
            MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned()),
        ];
        let questions = questions.map(|question| $version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        });
        let mut answers = client
            .server_reflection_info(tokio_stream::iter(questions))
            .await
            .unwrap()
            .into_inner();
        let mut services = Vec::new();
        let mut methods = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            match answer.message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    services.extend(list.service.into_iter().map(|service| service.name));
                }
                MessageResponse::FileDescriptorResponse(files) => {
                    let file = files.file_descriptor_proto[0].as_slice();
                    let file = prost_types::FileDescriptorProto::decode(file).unwrap();
                    let described = file.service.into_iter().flat_map(|service| service.method);
                    methods.extend(described.map(|method| method.name.unwrap()));
                }
                other => panic!("{other:?}"),
            }
        }
        (services, methods)
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_describes_the_service_in_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    for (services, methods) in [reflect!(v1, node.address()), reflect!(v1alpha, node.address())] {
        for service in [SERVICE, "grpc.health.v1.Health"] {
            assert!(services.iter().any(|name| name == service), "{service}: {services:?}");
        }
        assert!(!services.iter().any(|name| name.contains("Admin")), "{services:?}");
        for method in ["Write", "Read", "Repair", "Delete", "GetStreamStatus", "HealthCheck"] {
            assert!(methods.iter().any(|name| name == method), "{method}: {methods:?}");
        }
    }
    node.shutdown().await;
}

/// Frames of HTTP/2 until the connection ends: type, flags, payload.
async fn frames(stream: &mut tokio::net::TcpStream) -> Vec<(u8, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
        frames.push((head[3], head[4], payload));
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_is_noticed_and_a_silent_one_lives() {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.server.keepalive_interval = Duration::from_millis(100);
    config.server.keepalive_timeout = Duration::from_millis(100);
    config.server.max_concurrent_streams = 7;
    config.server.max_connections = 2;
    let node = start(&config).await;
    // One that answers its pings, but asks nothing.
    let mut lives = client(node.address());
    lives.write(write("k", b"v", &[])).await.unwrap();
    // And one that greets, and is never heard of again.
    let mut dead = tokio::net::TcpStream::connect(node.address()).await.unwrap();
    dead.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(10), frames(&mut dead));
    let heard = heard.await.expect("the node keeps a dead connection open");
    let is_ping = |(kind, flags, _): &&(u8, u8, Vec<u8>)| (*kind, *flags) == (PING, 0);
    assert!(heard.iter().any(|frame| is_ping(&frame)), "{heard:?}");
    let settings = &heard.iter().find(|(kind, _, _)| *kind == SETTINGS).unwrap().2;
    // SETTINGS_MAX_CONCURRENT_STREAMS has the number 3.
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
    assert_eq!(streams[2..], [0, 0, 0, 7]);
    assert!(lives.read(read("k")).await.is_ok());
    node.shutdown().await;
}

#[test]
fn a_node_that_still_reads_its_files_back_stops_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    // Whoever opens a pipe for reading waits until somebody writes to it: nobody does.
    let pipe = dir.path().join("DRAINING");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    let (data, metrics) = (dir.path().to_str().unwrap(), free_port());
    let log = std::fs::File::create(dir.path().join("node.log")).unwrap();
    let mut node = binary(&["serve", "--data-dir", data, "--listen", "127.0.0.1:0"])
        .env("PAIRDB__METRICS__PORT", metrics.to_string())
        .stderr(log)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", metrics)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "it does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Meanwhile probes learn that it lives, and that it is not there yet.
    let probe = |path| site::ask(([127, 0, 0, 1], metrics).into(), path);
    let asked = ["/health/live", "/health/ready", "/health/serving", "/metrics"].map(probe);
    let pid = rustix::process::Pid::from_child(&node);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let told = Instant::now();
    let ended = loop {
        if let Some(ended) = node.try_wait().unwrap() {
            break ended;
        }
        if told.elapsed() > PATIENCE {
            node.kill().unwrap();
            panic!("it does not stop");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = std::fs::read_to_string(dir.path().join("node.log")).unwrap();
    assert_eq!(ended.code(), Some(0), "{said}");
    assert!(said.contains("stopping before the node serves"), "{said}");
    let [live, ready, serving, numbers] = asked;
    assert_eq!(live, (200, "alive\n".to_owned()));
    for (status, text) in [ready, serving] {
        assert!(status == 503 && text.contains("\"starting\""), "{status} {text}");
    }
    assert_eq!(numbers.0, 503, "{}", numbers.1);
}
