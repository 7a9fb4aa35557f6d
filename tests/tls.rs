//! TLS: who is refused, who is not, and that certificates are renewed on a running node.

mod common;
#[path = "common/secure.rs"]
mod secure;
#[path = "common/site.rs"]
mod site;
#[path = "common/streaming.rs"]
mod streaming;

use common::*;
use pairdb_node::config::{Config, Security as SecuritySettings};
use pairdb_node::node::Node;
use pairdb_node::rpc::security::{Security, tls_client};
use pairdb_node::rpc::{admin_pb, pb};
use secure::*;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use streaming::{WHOLE_RING, order};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// A node that asks for certificates signed by `clients`.
fn mutual(dir: &Path, servers: &Authority, clients: &Authority) -> Config {
    let mut config = secure(dir, &servers.issue("node"));
    config.security.client_ca = Some(put(&dir.join("clients.crt"), &clients.pem));
    config
}

fn applied(node: &Node) -> u64 {
    node.requests().handles.published.applied()
}

fn handshakes_refused(node: &Node) -> u64 {
    node.health().access.handshakes.load(Ordering::Relaxed)
}

/// Whether a call failed on its way: the node has not answered it. Which code that has follows from what comes first, the node's
/// alert or the end of the connection.
fn is_unanswered(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some_and(|cause| cause.is::<tonic::transport::Error>())
}

async fn greet(address: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The certificate that the node shows now.
async fn shown_by(address: SocketAddr, ca: &str) -> Option<Vec<u8>> {
    let stream = greet(address, tls_client(ca.as_bytes(), None).unwrap()).await.ok()?;
    let certificates = stream.get_ref().1.peer_certificates()?;
    certificates.first().map(|first| first.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_trusted_is_refused_and_who_is_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let (servers, clients, strangers) = (Authority::new("s"), Authority::new("c"), Authority::new("x"));
    let node = start(&mutual(dir.path(), &servers, &clients)).await;
    let address = node.address();
    let good = clients.issue("client");
    let write = || write("k", b"v", &[("c", 1)]);
    for (who, refused) in [
        ("no certificate", tls(address, &servers.pem, None, None)),
        (
            "a stranger's certificate",
            tls(address, &servers.pem, Some(&strangers.issue("x")), None),
        ),
        (
            "an expired certificate",
            tls(address, &servers.pem, Some(&clients.expired("client")), None),
        ),
    ] {
        let before = handshakes_refused(&node);
        let mut refused = refused;
        let status = refused.write(write()).await.expect_err(who);
        assert!(is_unanswered(&status), "{who}: {status:?}");
        eventually(who, async || handshakes_refused(&node) > before).await;
    }
    // The client's own refusal: the node is not who it should be.
    let status = tls(address, &strangers.pem, Some(&good), None)
        .write(write())
        .await
        .expect_err("the node is signed by another");
    assert!(format!("{status:?}").contains("UnknownIssuer"), "{status:?}");
    let before = handshakes_refused(&node);
    let status = client(address).write(write()).await.expect_err("plain text");
    assert!(is_unanswered(&status), "{status:?}");
    eventually("plain text is refused", async || handshakes_refused(&node) > before).await;
    assert_eq!(applied(&node), 0, "something of theirs was carried out");
    let mut trusted = tls(address, &servers.pem, Some(&good), None);
    trusted.write(write()).await.unwrap();
    assert_eq!(trusted.read(read("k")).await.unwrap().into_inner().value, b"v");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_refuses_a_node_that_is_another_or_speaks_no_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let elsewhere = dir.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    let node = start(&secure(&elsewhere, &authority.issue_for("elsewhere.test"))).await;
    let status = tls(node.address(), &authority.pem, None, None).read(read("k")).await;
    let status = status.expect_err("the name is another");
    assert!(format!("{status:?}").contains("NotValidForName"), "{status:?}");
    node.shutdown().await;
    let node = start(&config(&dir.path().join("plain"))).await;
    let status = tls(node.address(), &authority.pem, None, None).read(read("k")).await;
    assert_eq!(status.expect_err("no TLS").code(), tonic::Code::Unavailable);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_how_long_it_is_good_and_an_expired_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let expired = secure(dir.path(), &authority.expired("node"));
    let refused = Node::start(&expired, Arc::new(pairdb_node::storage::fs::RealFs)).await;
    let refused = refused.err().expect("it has expired").to_string();
    assert!(
        refused.contains("security.tls_cert") && refused.contains("expired on"),
        "{refused}"
    );
    let mut config = secure(dir.path(), &authority.issue_until("node", 2090));
    (config.metrics.enabled, config.metrics.port) = (true, 0);
    let node = start(&config).await;
    let shown = async || site::metrics(&node).await["security_certificate_expiry_timestamp_seconds"];
    // `date -ud 2090-01-01 +%s`
    assert_eq!(shown().await, 3_786_912_000.0);
    put_identity(dir.path(), &authority.issue_until("renewed", 2091));
    eventually("the new one is shown", async || {
        shown().await == 3_786_912_000.0 + 365.0 * 86400.0
    })
    .await;
    // Nor does an expired one take the place of a good one.
    put_identity(dir.path(), &authority.expired("old"));
    eventually("it is refused", async || {
        let look = node.health().reloads.last_look().unwrap();
        format!("{:?}", look.outcomes).contains("expired on")
    })
    .await;
    assert_eq!(shown().await, 3_786_912_000.0 + 365.0 * 86400.0);
    tls(node.address(), &authority.pem, None, None)
        .write(write("k", b"v", &[]))
        .await
        .unwrap();
    node.shutdown().await;
}

/// Sends a part of what a client begins with, and waits until the node has had enough.
async fn stops_halfway(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let closed = async { while stream.read(&mut [0; 64]).await.unwrap_or(0) > 0 {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("it is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_in_the_middle_of_the_greeting_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let (plain, secret) = (dir.path().join("plain"), dir.path().join("secret"));
    std::fs::create_dir_all(&secret).unwrap();
    let node = start(&config(&plain)).await;
    stops_halfway(TcpStream::connect(node.address()).await.unwrap()).await;
    node.shutdown().await;
    let node = start(&secure(&secret, &authority.issue("node"))).await;
    let config = tls_client(authority.pem.as_bytes(), None).unwrap();
    stops_halfway(greet(node.address(), config).await.unwrap()).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_connections_hold_with_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let mut config = secure(dir.path(), &authority.issue("node"));
    config.server.max_connections = 2;
    let node = start(&config).await;
    let address = node.address();
    // HTTP/1.1 alone is nothing that the node speaks.
    let mut old = tls_client(authority.pem.as_bytes(), None).unwrap();
    old.alpn_protocols = vec![b"http/1.1".to_vec()];
    let refused = greet(address, old).await.map(drop).expect_err("HTTP/1.1");
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    // Two that say nothing keep their places for a while, and no longer.
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut other = TcpStream::connect(address).await.unwrap();
    let mut late = tls(address, &authority.pem, None, None);
    late.write(write("k", b"v", &[])).await.expect_err("no place is left");
    assert_eq!(silent.read(&mut [0; 64]).await.unwrap_or(0), 0, "it is closed");
    assert_eq!(other.read(&mut [0; 64]).await.unwrap_or(0), 0, "it is closed");
    assert!(handshakes_refused(&node) >= 2);
    eventually("there is room", async || {
        late.write(write("k", b"v", &[])).await.is_ok()
    })
    .await;
    // Large values, in both directions, and many calls at once on one connection.
    let large: Vec<u8> = (0..9_000_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    late.write(write("large", &large, &[])).await.unwrap();
    assert_eq!(late.read(read("large")).await.unwrap().into_inner().value, large);
    let calls = (0..300).map(|n| {
        let mut client = late.clone();
        tokio::spawn(async move { client.write(write(&format!("k{n}"), &[7; 100], &[])).await.map(drop) })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_under_load_and_no_call_fails() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let node = start(&secure(dir.path(), &authority.issue("first"))).await;
    let address = node.address();
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = (0..6).map(|number| {
        let (stop, calls, ca) = (Arc::clone(&stop), Arc::clone(&calls), authority.pem.clone());
        tokio::spawn(async move {
            let mut kept = tls(address, &ca, None, None);
            while !stop.load(Ordering::Relaxed) {
                if number % 2 == 0 {
                    // A connection for each call.
                    kept = tls(address, &ca, None, None);
                }
                kept.write(write(&format!("k{number}"), b"v", &[])).await.unwrap();
                calls.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let load: Vec<_> = load.collect();
    for round in 0..5 {
        let next = authority.issue(&format!("renewed {round}"));
        put_identity(dir.path(), &next);
        let is_shown = async || shown_by(address, &authority.pem).await.as_ref() == Some(&next.der);
        eventually("the node shows the new certificate", is_shown).await;
        let before = calls.load(Ordering::Relaxed);
        eventually("calls go on", async || calls.load(Ordering::Relaxed) > before + 30).await;
    }
    stop.store(true, Ordering::Relaxed);
    for load in load {
        load.await.expect("no call failed");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_leaves_the_old_one_in_service_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let first = authority.issue("first");
    let mut config = secure(dir.path(), &first);
    (config.metrics.enabled, config.metrics.port) = (true, 0);
    let node = start(&config).await;
    let failed = async || site::metrics(&node).await["reloads_total{outcome=\"failed\"}"] as u64;
    assert_eq!(failed().await, 0);
    let other = authority.issue("other");
    for (what, cert) in [
        ("no PEM", "garbage"),
        ("a certificate of another key", &other.cert),
        ("nothing", ""),
        ("half of it", &first.cert[..first.cert.len() / 2]),
    ] {
        put(&dir.path().join("node.crt"), cert);
        let before = failed().await;
        // Two more: the second look began after the file was there.
        eventually(what, async || failed().await > before + 1).await;
        let shown = shown_by(node.address(), &authority.pem).await;
        assert_eq!(shown.as_ref(), Some(&first.der), "{what}");
        let last = node.health().reloads.last_look().unwrap();
        assert_eq!(last.outcomes[0].key, "security.tls_cert", "{what}: {last:?}");
        tls(node.address(), &authority.pem, None, None)
            .write(write("k", b"v", &[]))
            .await
            .unwrap();
    }
    std::fs::remove_file(dir.path().join("node.crt")).unwrap();
    let before = failed().await;
    eventually("no file", async || failed().await > before + 1).await;
    assert_eq!(shown_by(node.address(), &authority.pem).await, Some(first.der));
    put_identity(dir.path(), &other);
    let is_shown = async || shown_by(node.address(), &authority.pem).await.as_ref() == Some(&other.der);
    eventually("what is whole is shown", is_shown).await;
    eventually("it counts as a success", async || {
        site::metrics(&node).await["reloads_total{outcome=\"succeeded\"}"] >= 1.0
    })
    .await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_an_authority_leaves_those_trusted_that_were_and_lets_nobody_else_in() {
    let dir = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new("s"), Authority::new("c"));
    let node = start(&mutual(dir.path(), &servers, &clients)).await;
    let good = clients.issue("client");
    for nothing in ["", "# to come\n", &good.key] {
        let failed = || node.health().reloads.counts().1;
        put(&dir.path().join("clients.crt"), nothing);
        let before = failed();
        // Two more: the second look began after the file was there.
        eventually("the file is refused", async || failed() > before + 1).await;
        let last = node.health().reloads.last_look().unwrap();
        assert_eq!(last.outcomes[0].key, "security.tls_cert", "{last:?}");
        let mut trusted = tls(node.address(), &servers.pem, Some(&good), None);
        trusted.write(write("k", b"v", &[])).await.unwrap();
        let mut nobody = tls(node.address(), &servers.pem, None, None);
        let status = nobody.write(write("k", b"v", &[])).await.expect_err("no certificate");
        assert!(is_unanswered(&status), "{status:?}");
    }
    node.shutdown().await;
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_is_wrong_and_not_with_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let good = secure(dir.path(), &authority.issue("node")).security;
    let most = 16 << 20;
    let large = |size: usize| {
        format!(
            "{}{}",
            line("acme", "a-token-of-acme!"),
            "#".repeat(size - line("acme", "a-token-of-acme!").len())
        )
    };
    let file = |name: &str, content: &str| Some(put(&dir.path().join(name), content));
    let (full, larger) = (file("full", &large(most)), file("larger", &large(most + 1)));
    let (key, garbage) = (
        file("key", &authority.issue("k").key),
        file("garbage", "secret garbage"),
    );
    let (short, words, lines) = (
        file("short", "secret"),
        file("words", "secret words and more words"),
        file("lines", "secret-of-the-first-line\nsecret-of-the-second"),
    );
    let (empty, missing) = (file("empty", ""), Some(dir.path().join("missing")));
    let directory = Some(dir.path().to_owned());
    Security::open(
        SecuritySettings {
            tokens_file: full,
            ..good.clone()
        }
        .files(),
    )
    .unwrap();
    type Change = fn(&mut SecuritySettings, Option<PathBuf>);
    let tokens: Change = |security, file| security.tokens_file = file;
    let admins: Change = |security, file| security.admin_tokens_file = file;
    let certificate: Change = |security, file| security.tls_cert = file;
    let own_key: Change = |security, file| security.tls_key = file;
    let clients: Change = |security, file| security.client_ca = file;
    let peers: Change = |security, file| security.peer_ca = file;
    let to_peers: Change = |security, file| security.peer_token_file = file;
    let coordinator: Change = |security, file| security.coordinator_ca = file;
    let to_coordinator: Change = |security, file| security.coordinator_token_file = file;
    for (named, change, file, expected) in [
        ("security.tokens_file", tokens, &larger, "too large"),
        ("security.admin_tokens_file", admins, &larger, "too large"),
        ("security.tls_cert", certificate, &larger, "too large"),
        ("security.tls_cert", own_key, &larger, "too large"),
        ("security.tls_cert", clients, &larger, "too large"),
        ("security.peer_ca", peers, &larger, "too large"),
        ("security.peer_token_file", to_peers, &larger, "too large"),
        ("security.peer_token_file", to_peers, &empty, "is no token"),
        ("security.peer_token_file", to_peers, &short, "is no token"),
        ("security.peer_token_file", to_peers, &words, "is no token"),
        ("security.coordinator_token_file", to_coordinator, &lines, "is no token"),
        ("security.tls_cert", clients, &key, "no certificate"),
        ("security.peer_ca", peers, &garbage, "no certificate"),
        ("security.coordinator_ca", coordinator, &empty, "no certificate"),
        ("security.tls_cert", own_key, &garbage, "no private key"),
        ("security.tokens_file", tokens, &garbage, "line 1"),
        ("security.tokens_file", tokens, &missing, "cannot be read"),
        ("security.peer_ca", peers, &directory, "no regular file"),
    ] {
        let mut security = good.clone();
        change(&mut security, file.clone());
        let problems = Security::open(security.files()).expect_err(expected).join("\n");
        let what = format!("{file:?}: {problems}");
        assert!(
            problems.starts_with(&format!("{named}: ")) && problems.contains(expected),
            "{what}"
        );
        assert!(!problems.contains("secret") && !problems.contains("of-acme"), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_node_trusts_no_more_gets_no_new_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (servers, before, after) = (Authority::new("s"), Authority::new("b"), Authority::new("a"));
    let node = start(&mutual(dir.path(), &servers, &before)).await;
    let (old, new) = (before.issue("old"), after.issue("new"));
    let new_gets_in = async || {
        let mut client = tls(node.address(), &servers.pem, Some(&new), None);
        client.write(write("k", b"v", &[])).await.is_ok()
    };
    // The same configuration each time, so that the client would take up the session of its last connection.
    let config = {
        let own = Some((old.cert.as_bytes(), old.key.as_bytes()));
        Arc::new(tls_client(servers.pem.as_bytes(), own).unwrap())
    };
    let call = async |config: &Arc<ClientConfig>| {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{}", node.address())).unwrap();
        let config = Arc::clone(config);
        let connector = pairdb_node::rpc::security::by_tls(move || Some(Arc::clone(&config)));
        let channel = endpoint.connect_with_connector_lazy(connector);
        let mut client = pb::storage_node_service_client::StorageNodeServiceClient::new(channel);
        client.write(write("k", b"v", &[])).await
    };
    call(&config).await.unwrap();
    call(&config).await.unwrap();
    assert!(!new_gets_in().await, "nobody knows the new authority yet");
    // As an authority is replaced: for a while both count.
    put(&dir.path().join("clients.crt"), &[&*before.pem, &after.pem].concat());
    eventually("the new authority counts", new_gets_in).await;
    call(&config).await.unwrap();
    let mut anew = tls(node.address(), &servers.pem, Some(&old), None);
    anew.write(write("k", b"v", &[])).await.unwrap();
    put(&dir.path().join("clients.crt"), &after.pem);
    eventually("the old authority counts no more", async || {
        let mut anew = tls(node.address(), &servers.pem, Some(&old), None);
        anew.write(write("k", b"v", &[])).await.is_err()
    })
    .await;
    let status = call(&config).await.expect_err("not by its session either");
    assert!(is_unanswered(&status), "{status:?}");
    assert!(new_gets_in().await);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_talk_to_each_other_by_tls_with_their_own_certificates_and_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, strangers) = (Authority::new("a"), Authority::new("x"));
    let configured = |name: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = mutual(&dir, &authority, &authority);
        config.server.node_id = name.to_owned();
        let security = &mut config.security;
        security.peer_ca = Some(put(&dir.join("peers.crt"), &authority.pem));
        security.tokens_file = Some(put(&dir.join("tokens"), &line("*", "the-token-of-all-nodes")));
        security.peer_token_file = Some(put(&dir.join("token"), "the-token-of-all-nodes\n"));
        config
    };
    let (from, to) = (configured("from"), configured("to"));
    // At first the source shows a token that the target does not know.
    put(&dir.path().join("from/token"), "a-token-that-nobody-knows");
    put(&dir.path().join("from/peers.crt"), &strangers.pem);
    let (from, to) = (start(&from).await, start(&to).await);
    let own = authority.issue("client");
    // And the target shows that it is another than the one at its address.
    put_identity(&dir.path().join("to"), &authority.issue_for("elsewhere.test"));
    let token = Some("the-token-of-all-nodes");
    let mut source = tls(from.address(), &authority.pem, Some(&own), token);
    let mut target = tls(to.address(), &authority.pem, Some(&own), token);
    source.write(write("k", b"v", &[("c", 1)])).await.unwrap();
    source
        .start_streaming(order("to", to.address(), &WHOLE_RING))
        .await
        .unwrap();
    let status = || pb::StreamStatusRequest {
        source_node_id: String::new(),
        target_node_id: "to".into(),
    };
    let mut asking = source.clone();
    let mut problem = async || asking.get_stream_status(status()).await.unwrap().into_inner().problem;
    eventually("it does not trust the target", async || {
        problem().await.contains("UnknownIssuer")
    })
    .await;
    put(&dir.path().join("from/peers.crt"), &authority.pem);
    eventually("it does not take another for the target", async || {
        problem().await.contains("not valid for name")
    })
    .await;
    put_identity(&dir.path().join("to"), &authority.issue("node"));
    eventually("the target does not know the token", async || {
        problem().await.contains("Unauthenticated")
    })
    .await;
    assert!(!problem().await.contains("nobody-knows"), "the token is told");
    put(&dir.path().join("from/token"), "the-token-of-all-nodes");
    eventually("it completes by itself", async || {
        source.get_stream_status(status()).await.unwrap().into_inner().state == "completed"
    })
    .await;
    assert_eq!(target.read(read("k")).await.unwrap().into_inner().value, b"v");
    from.shutdown().await;
    to.shutdown().await;
}

/// A source of streams that trusts targets of `authority`.
fn source_of_streams(mut config: Config, dir: &Path, authority: &Authority) -> Config {
    config.server.node_id = "from".into();
    config.security.peer_ca = Some(put(&dir.join("peers.crt"), &authority.pem));
    config
}

async fn problem_of_stream(source: &SecureClient) -> String {
    let asked = pb::StreamStatusRequest {
        source_node_id: String::new(),
        target_node_id: "to".into(),
    };
    let status = source.clone().get_stream_status(asked).await.unwrap().into_inner();
    assert_ne!(status.state, "completed", "{status:?}");
    status.problem
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_takes_nothing_of_a_source_that_it_does_not_trust() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, strangers) = (Authority::new("a"), Authority::new("x"));
    let at = |name: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    };
    let mut config_of_target = mutual(&at("to"), &authority, &authority);
    config_of_target.server.node_id = "to".into();
    let to = start(&config_of_target).await;
    let (bare, strange) = (at("bare"), at("strange"));
    let sources = [
        source_of_streams(config(&bare), &bare, &authority),
        source_of_streams(secure(&strange, &strangers.issue("node")), &strange, &authority),
    ];
    for config in sources {
        let is_strange = config.security.tls_cert.is_some();
        let who = if is_strange { "a stranger's" } else { "none" };
        let from = start(&config).await;
        let mut source = match is_strange {
            true => tls(from.address(), &strangers.pem, None, None),
            false => plain_client(from.address(), None),
        };
        source.write(write(who, b"v", &[("c", 1)])).await.unwrap();
        let before = handshakes_refused(&to);
        let ordered = order("to", to.address(), &WHOLE_RING);
        source.start_streaming(ordered).await.unwrap();
        eventually(who, async || {
            handshakes_refused(&to) > before && !problem_of_stream(&source).await.is_empty()
        })
        .await;
        assert_eq!(applied(&to), 0, "{who}: it took something");
        if is_strange {
            put_identity(&strange, &authority.issue("node"));
            eventually("it is taken when the source shows what the target trusts", async || {
                applied(&to) > 0
            })
            .await;
        }
        from.shutdown().await;
    }
    to.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_sends_nothing_to_a_target_whose_certificate_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let config = source_of_streams(secure(dir.path(), &authority.issue("node")), dir.path(), &authority);
    let from = start(&config).await;
    // No node shows such a one at its start: it is one that runs on.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let expired = server(&authority.expired("to"));
    let listening = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            assert!(expired.accept(stream).await.is_err(), "the source goes on to speak");
        }
    });
    let mut source = tls(from.address(), &authority.pem, None, None);
    source.write(write("k", b"v", &[("c", 1)])).await.unwrap();
    source.start_streaming(order("to", at, &WHOLE_RING)).await.unwrap();
    eventually("it is told", async || {
        problem_of_stream(&source).await.contains("expired")
    })
    .await;
    assert!(!listening.is_finished(), "the source went on to speak");
    listening.abort();
    from.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_is_spoken_to_by_tls_with_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let mut config = secure(dir.path(), &authority.issue("node"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.coordinator.enabled = true;
    config.coordinator.port = listener.local_addr().unwrap().port();
    config.security.coordinator_ca = Some(put(&dir.path().join("coordinator.crt"), &authority.pem));
    let token = put(&dir.path().join("coordinator.token"), "the-token-for-the-coordinator");
    config.security.coordinator_token_file = Some(token);
    let server = server(&authority.issue("coordinator"));
    let asked = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = server.accept(stream).await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, _answer) = connection.accept().await.unwrap().unwrap();
        let shown = request.headers()["authorization"].to_str().unwrap().to_owned();
        (request.uri().to_string(), shown)
    });
    let node = start(&config).await;
    let (uri, shown) = tokio::time::timeout(PATIENCE, asked).await.unwrap().unwrap();
    assert!(uri.starts_with("https://") && uri.ends_with("/AddStorageNode"), "{uri}");
    assert_eq!(shown, "Bearer the-token-for-the-coordinator");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_a_stranger_vouches_for_or_that_is_another_hears_nothing() {
    let (authority, strangers) = (Authority::new("a"), Authority::new("x"));
    for (own, expected) in [
        (strangers.issue("coordinator"), "UnknownIssuer"),
        (authority.issue_for("elsewhere.test"), "not valid for name"),
        (authority.expired("coordinator"), "expired"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config(dir.path());
        config.coordinator.enabled = true;
        config.coordinator.port = listener.local_addr().unwrap().port();
        config.coordinator.interval = Duration::from_millis(50);
        config.security.coordinator_ca = Some(put(&dir.path().join("coordinator.crt"), &authority.pem));
        let token = put(&dir.path().join("coordinator.token"), "the-token-for-the-coordinator");
        config.security.coordinator_token_file = Some(token);
        let server = server(&own);
        let asked = tokio::spawn(async move {
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.unwrap();
                assert!(server.accept(stream).await.is_err(), "the node goes on to speak");
            }
        });
        let node = start(&config).await;
        eventually(expected, async || {
            let (_, reasons) = node.health().status();
            reasons
                .iter()
                .any(|why| why.contains("coordinator") && why.contains(expected))
        })
        .await;
        tokio::time::timeout(PATIENCE, asked).await.unwrap().unwrap();
        node.shutdown().await;
    }
}

/// How a server greets that shows this, and is none of our nodes.
fn server(own: &Issued) -> tokio_rustls::TlsAcceptor {
    let chain = tokio_rustls::rustls::pki_types::CertificateDer::from(own.der.clone());
    let key: tokio_rustls::rustls::pki_types::PrivateKeyDer<'_> =
        tokio_rustls::rustls::pki_types::pem::PemObject::from_pem_slice(own.key.as_bytes()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut server = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    tokio_rustls::TlsAcceptor::from(Arc::new(server))
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_injected_by_tls_alone_where_there_is_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, strangers) = (Authority::new("a"), Authority::new("x"));
    let mut config = mutual(dir.path(), &authority, &authority);
    breakable(&mut config);
    let node = start(&config).await;
    let address = node.fault_address().unwrap();
    let own = authority.issue("client");
    let ask = async |own: Option<&Issued>| {
        let way = way(address, &authority.pem, own, None);
        let mut faults = admin_pb::fault_service_client::FaultServiceClient::new(way);
        faults.actors(admin_pb::ActorsRequest {}).await
    };
    let (strange, expired) = (strangers.issue("x"), authority.expired("client"));
    for (who, own) in [
        ("no certificate", None),
        ("a stranger's certificate", Some(&strange)),
        ("an expired certificate", Some(&expired)),
    ] {
        let before = handshakes_refused(&node);
        let status = ask(own).await.expect_err(who);
        assert!(is_unanswered(&status), "{who}: {status:?}");
        eventually(who, async || handshakes_refused(&node) > before).await;
    }
    let plain = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut plain = admin_pb::fault_service_client::FaultServiceClient::new(plain.connect_lazy());
    let plain = plain.actors(admin_pb::ActorsRequest {}).await.expect_err("plain text");
    assert!(is_unanswered(&plain), "{plain:?}");
    // Strangers who say nothing have their places for a while, and no longer.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(!ask(Some(&own)).await.unwrap().into_inner().targets.is_empty());
    for stream in &mut silent {
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 64])).await;
        assert_eq!(end.expect("it is closed").unwrap_or(0), 0);
    }
    // It is renewed there as well.
    let renewed = authority.issue("renewed");
    assert_ne!(shown_by(address, &authority.pem).await.as_ref(), Some(&renewed.der));
    put_identity(dir.path(), &renewed);
    eventually("the new certificate is shown", async || {
        shown_by(address, &authority.pem).await.as_ref() == Some(&renewed.der)
    })
    .await;
    ask(Some(&own)).await.unwrap();
    node.shutdown().await;
}

#[test]
fn the_command_line_speaks_tls_and_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let config = mutual(dir.path(), &authority, &authority);
    let file = |path: &Option<std::path::PathBuf>| path.as_ref().unwrap().to_str().unwrap().to_owned();
    let (cert, key) = (file(&config.security.tls_cert), file(&config.security.tls_key));
    let client_ca = file(&config.security.client_ca);
    let mut node = Process::start(
        dir.path(),
        free_port(),
        &[
            ("PAIRDB__METRICS__ENABLED", "false"),
            ("PAIRDB__SECURITY__TLS_CERT", &cert),
            ("PAIRDB__SECURITY__TLS_KEY", &key),
            ("PAIRDB__SECURITY__CLIENT_CA", &client_ca),
        ],
    );
    let own = authority.issue("client");
    let path = |name: &str, content: &str| put(&dir.path().join(name), content).to_str().unwrap().to_owned();
    let (ca, own_cert, own_key) = (
        path("ca.crt", &authority.pem),
        path("own.crt", &own.cert),
        path("own.key", &own.key),
    );
    let secret = format!("https://{}", node.addr);
    let run = |args: &[&str], environment: &[(&str, &str)]| {
        let mut command = binary(args);
        command.envs(environment.iter().copied());
        command.output().unwrap()
    };
    let all = ["--ca", &ca, "--cert", &own_cert, "--key", &own_key];
    let done = run(&[&["put", "k", "v", "--addr", &node.addr], &all[..]].concat(), &[]);
    assert!(done.status.success(), "{done:?}");
    let environment = [
        ("PAIRDB_CA", &*ca),
        ("PAIRDB_CERT", &own_cert),
        ("PAIRDB_KEY", &own_key),
    ];
    let got = run(&["get", "k", "--addr", &secret], &environment);
    assert_eq!(got.stdout, b"v", "{got:?}");
    for (args, said) in [
        (vec!["get", "k", "--addr", &secret], "--ca"),
        (
            vec!["get", "k", "--addr", &secret, "--ca", &ca],
            "transport error|operation was canceled|cannot reach",
        ),
        (vec!["get", "k", "--addr", &secret, "--ca", "/nowhere"], "/nowhere"),
        (vec!["get", "k", "--addr", &secret, "--ca", &own_key], "no certificate"),
        (
            vec!["get", "k", "--addr", "http://127.0.0.1:1", "--ca", &ca],
            "must be https",
        ),
        (
            vec!["get", "k", "--addr", &secret, "--ca", &ca, "--cert", &own_cert],
            "--key",
        ),
    ] {
        let refused = run(&args, &[]);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{args:?}");
        // What comes of a connection that is closed depends on how far the call was by then.
        assert!(said.split('|').any(|said| told.contains(said)), "{args:?}: {told}");
    }
    assert_eq!(node.terminate(), Some(0));
}
