//! Files of every format version that was ever written can still be opened.
//!
//! `tests/fixtures/vN` is a data directory of format version N, killed with a table, a manifest and a log that holds more:
//! made once by `PAIRDB_MAKE_FIXTURE=tests/fixtures/vN cargo test --test fixtures`, and never again for the same version.

use bytes::Bytes;
use pairdb_node::storage::fs::{FileSystem, RealFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::recovery::Options;
use pairdb_node::storage::store::Store;
use pairdb_node::storage::version::Value;
use std::path::Path;
use std::sync::Arc;

const KEYS: u64 = 60;

fn key(n: u64) -> Key {
    Key::new("fixture", &format!("key{n:03}")).unwrap()
}

/// What key `n` has in the fixture: deleted, with siblings, or plain.
fn expected(n: u64) -> Vec<Option<Bytes>> {
    let value = |text: String| Some(Bytes::from(text));
    match n % 10 {
        3 => vec![None],
        5 => vec![value(format!("b{n}")), value(format!("a{n}"))],
        _ => vec![value(format!("value {n} ").repeat(n as usize % 7 + 1))],
    }
}

fn make(dir: &Path) {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let store = Store::open(&fs, Options::at(dir), "fixture-node").unwrap();
    for n in 0..KEYS {
        match n % 10 {
            5 => {
                for (id, text) in [("a", format!("a{n}")), ("b", format!("b{n}"))] {
                    let clock = [(id, n)].into_iter().collect();
                    store.write(&key(n), Value::Live(text.into()), Some(clock)).unwrap();
                }
            }
            _ => {
                let value = expected(n)[0].clone().map_or(Value::Tombstone, Value::Live);
                store.write(&key(n), value, None).unwrap();
            }
        }
        if n == KEYS / 2 {
            store.flush().unwrap();
        }
    }
}

#[test]
fn directories_of_every_format_version_open() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Ok(dir) = std::env::var("PAIRDB_MAKE_FIXTURE") {
        make(&root.join(dir));
    }
    for version in ["v1", "v2"] {
        check(&root.join("tests/fixtures").join(version));
    }
}

fn check(fixture: &Path) {
    let dir = tempfile::tempdir().unwrap();
    for entry in walkdir::WalkDir::new(fixture).into_iter().map(Result::unwrap) {
        let target = dir.path().join(entry.path().strip_prefix(fixture).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(target).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let store = Store::open(&fs, Options::at(dir.path()), "fixture-node").unwrap();
    assert!(store.report().replayed > 0, "part of it is in the log");
    assert_eq!(
        store.published().load().tables.all().count(),
        1,
        "part of it is in a table"
    );
    for n in 0..KEYS {
        let found: Vec<_> = store
            .get(&key(n))
            .unwrap()
            .all()
            .iter()
            .map(|v| v.value.live().cloned())
            .collect();
        assert_eq!(found, expected(n), "key {n}");
    }
    // And what it holds goes on in the present format.
    store.flush().unwrap();
    while store.compact().unwrap() {}
    drop(store);
    let store = Store::open(&fs, Options::at(dir.path()), "fixture-node").unwrap();
    assert_eq!(store.scan(&Key::least()).filter(Result::is_ok).count() as u64, KEYS);
}
