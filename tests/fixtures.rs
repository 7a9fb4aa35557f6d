//! Files of every format version that was ever written can still be opened.
//!
//! `tests/fixtures/vN` is a data directory of format version N, killed with a table, a manifest and a log that holds more:
//! made once by `PAIRDB_MAKE_FIXTURE=tests/fixtures/vN cargo test --test fixtures`, and never again for the same version.

use bytes::Bytes;
use pairdb_node::storage::fs::{FileSystem, RealFs};
use pairdb_node::storage::idempotency::{Remembered, WriteName, WriteOutcome};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::log::record::{Operation, encode_change, encode_note};
use pairdb_node::storage::log::writer::EncodedBatch;
use pairdb_node::storage::recovery::{self, Options};
use pairdb_node::storage::remembered;
use pairdb_node::storage::store::Store;
use pairdb_node::storage::version::{Value, Version};
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
        make(&root.join(&dir));
        make_named(&root.join(dir));
    }
    for (version, named) in [("v1", 0), ("v2", 0), ("v3", 3)] {
        check(&root.join("tests/fixtures").join(version), named);
    }
}

/// The write with a name that is number `n` among them: one found in the log, one with a note beside it, and one that was
/// kept in the file.
fn named(n: u64, seq: u64) -> Remembered {
    let name = WriteName {
        key: Key::new("fixture", &format!("named{n}")).unwrap(),
        id: format!("id{n}").into(),
    };
    let clock = [("a", 1)].into_iter().collect();
    let outcome = match n {
        0 => WriteOutcome::plain(clock),
        _ => WriteOutcome {
            clock: clock.with("b", n),
            applied: false,
        },
    };
    Remembered {
        name,
        seq,
        timestamp_ms: 1_700_000_000_000,
        outcome,
    }
}

/// Adds writes with names to a fixture, behind all others.
fn make_named(dir: &Path) {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let mut recovered = recovery::open(&fs, &Options::at(dir)).unwrap();
    let log = &mut recovered.log;
    let (epoch, salt) = (log.take_over(), log.salt());
    let mut batch = EncodedBatch::default();
    for n in 0..3 {
        let write = named(n, log.last_seq() + 1 + n);
        let version = Version {
            clock: [("a", 1)].into_iter().collect(),
            value: Value::Live(Bytes::from("named")),
            timestamp_ms: write.timestamp_ms,
            seq: write.seq,
        };
        batch.last_seq = version.seq;
        let (key, id) = (&write.name.key, Some(write.name.id.as_str()));
        encode_change(&mut batch.bytes, salt, Operation::Write, key, &version, id).unwrap();
        match n {
            1 => encode_note(&mut batch.bytes, salt, version.seq, &write).unwrap(),
            2 => remembered::keep(fs.as_ref(), &Options::at(dir).log.dir, &[write]).unwrap(),
            _ => {}
        }
    }
    log.append(epoch, &batch, 0, 1).unwrap();
    log.sync(epoch).unwrap();
}

fn check(fixture: &Path, named_writes: u64) {
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
    let mut found = recovery::open(&fs, &Options::at(dir.path())).unwrap().remembered;
    found.sort_by_key(|write| write.seq);
    let first = found.first().map_or(0, |write| write.seq);
    let expected_names: Vec<_> = (0..named_writes).map(|n| named(n, first + n)).collect();
    assert_eq!(found, expected_names);
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
    let keys = store.scan(&Key::least()).filter(Result::is_ok).count() as u64;
    assert_eq!(keys, KEYS + named_writes);
}
