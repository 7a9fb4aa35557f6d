//! A write that arrives while its key is being read into the cache: whoever reads afterwards sees it.

mod common;

use common::*;
use pairdb_node::rpc::pb;

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_pins_nothing_that_was_written_over_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path())).await;
    let mut client = client(node.address());
    for round in 0..150 {
        // Keys that no cache knows yet: each is loaded when it is first read, some of them while they are written.
        let keys: Vec<_> = (0..64).map(|n| format!("{round}-{n}")).collect();
        let operations = keys.iter().map(|key| write(key, b"v", &[("a", 1)])).collect();
        let mut writer = client.clone();
        let writing = tokio::spawn(async move { writer.batch_write(pb::BatchWriteRequest { operations }).await });
        for key in &keys {
            let _ = client.read(read(key)).await;
        }
        writing.await.unwrap().unwrap();
        for key in &keys {
            let found = client.read(read(key)).await;
            assert!(
                found.is_ok(),
                "{key} was written, and is read as it was before: {found:?}"
            );
        }
    }
    node.shutdown().await;
}
