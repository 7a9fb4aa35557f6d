//! Tables that a start finds missing, unreadable or damaged: what cannot be read of them is lost, and nothing else is.

use bytes::Bytes;
use pairdb_node::storage::backup;
use pairdb_node::storage::error::{Error, ErrorKind};
use pairdb_node::storage::fs::{Failure, Fault, FileSystem, OperationKind, RealFs, SimFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::recovery::Options;
use pairdb_node::storage::store::Store;
use pairdb_node::storage::table::{Layout, Place};
use pairdb_node::storage::verify::verify;
use pairdb_node::storage::version::Value;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const KEYS: u32 = 400;
/// What the second of four tables holds.
const SECOND: Range<u32> = 100..200;

fn key(n: u32) -> Key {
    Key::new("tenant", &format!("key{n:06}")).unwrap()
}

fn value(n: u32) -> Bytes {
    Bytes::from(format!("value {n} ").repeat(5))
}

fn open_on(disk: &SimFs) -> Result<Store, Error> {
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    Store::open(&fs, Options::at("/data"), "node")
}

/// A store that has ended, with four tables one behind the other in key order; and the second of them.
fn four_tables() -> (SimFs, PathBuf) {
    let disk = SimFs::default();
    let store = open_on(&disk).unwrap();
    for n in 0..KEYS {
        store.write(&key(n), Value::Live(value(n)), None).unwrap();
        if n % 100 == 99 {
            store.flush().unwrap();
        }
    }
    while store.compact().unwrap() {}
    let view = store.published().load();
    let holds = |n: u32| view.tables.all().find(move |t| t.range().0 == key(n).as_str()).unwrap();
    let path = holds(SECOND.start).path().to_path_buf();
    assert_eq!(holds(SECOND.start).range().1, key(SECOND.end - 1).as_str());
    store.close().unwrap();
    (disk, path)
}

fn remove(disk: &SimFs, path: &Path) -> Vec<u8> {
    let content = disk.read(path).unwrap().to_vec();
    disk.remove(path).unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
    content
}

fn put_back(disk: &SimFs, path: &Path, content: &[u8]) {
    disk.create(path).unwrap().write_at(0, content).unwrap();
}

/// The keys that answer with damage in `path`; all others must have their value.
fn lost(store: &Store, path: &Path) -> Vec<u32> {
    let is_lost = |n: &u32| match store.get(&key(*n)) {
        Ok(found) => {
            let found = found.winner().and_then(|winner| winner.value.live().cloned());
            assert_eq!(found, Some(value(*n)), "key {n}");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corruption);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            true
        }
    };
    (0..KEYS).filter(is_lost).collect()
}

fn causes(store: &Store) -> Vec<String> {
    let view = store.published().load();
    view.tables
        .quarantine()
        .iter()
        .map(|table| table.cause.clone())
        .collect()
}

#[test]
fn a_missing_table_loses_its_range_alone_and_comes_back_with_its_file() {
    let (disk, path) = four_tables();
    let content = remove(&disk, &path);
    // However often it starts.
    for _ in 0..2 {
        let store = open_on(&disk).unwrap();
        assert_eq!(causes(&store), [format!("{} is missing", path.display())]);
        assert!(lost(&store, &path).into_iter().eq(SECOND));
        let scanned: Vec<_> = store.scan(&Key::least()).collect();
        assert_eq!(
            scanned.iter().filter(|item| item.is_ok()).count(),
            SECOND.start as usize
        );
        assert!(
            scanned.last().unwrap().is_err(),
            "a scan says that something is missing"
        );
        store.close().unwrap();
    }
    let found = verify(&disk, &Options::at("/data"), |_| Ok(())).unwrap();
    assert!(
        found
            .damage
            .iter()
            .any(|damage| damage.file == path && damage.detail.contains("missing")),
        "{found:?}"
    );
    // It writes, flushes, compacts and is backed up as before, and what is backed up misses what is missing.
    let store = open_on(&disk).unwrap();
    for n in (0..KEYS).filter(|n| !SECOND.contains(n)) {
        store.write(&key(n), Value::Live(value(n)), None).unwrap();
    }
    for _ in 0..5 {
        store.write(&key(KEYS), Value::Live(value(KEYS)), None).unwrap();
        store.flush().unwrap();
    }
    assert!(store.compact().unwrap());
    let copied = store.backup(Path::new("/backups"), "1").unwrap();
    assert_eq!(copied.damaged.len(), 1);
    store.close().unwrap();
    drop(store);
    let restored = Options::at("/restored");
    backup::restore(&disk, Path::new("/backups/1"), &restored.sstable_dir, &restored.log.dir).unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let store = Store::open(&fs, restored, "node").unwrap();
    assert!(
        lost(&store, Path::new(path.file_name().unwrap()))
            .into_iter()
            .eq(SECOND)
    );
    put_back(&disk, &path, &content);
    let store = open_on(&disk).unwrap();
    assert_eq!((causes(&store), lost(&store, &path)), (vec![], vec![]));
}

#[test]
fn a_table_that_the_device_does_not_give_stands_aside_until_it_does() {
    let (disk, path) = four_tables();
    disk.fail(Fault::next(
        OperationKind::Read,
        path.to_str().unwrap(),
        Failure::Device,
    ));
    let store = open_on(&disk).unwrap();
    assert!(lost(&store, &path).into_iter().eq(SECOND));
    assert!(causes(&store)[0].contains("os error 5"), "{:?}", causes(&store));
    drop(store);
    let store = open_on(&disk).unwrap();
    assert_eq!((causes(&store), lost(&store, &path)), (vec![], vec![]));
    drop(store);
    // Too few resources are no damage.
    disk.fail(Fault::next(OperationKind::Read, path.to_str().unwrap(), Failure::Full));
    let error = open_on(&disk).err().unwrap();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn a_table_with_a_damaged_filter_or_damaged_properties_loses_no_key() {
    type Part = fn(&Layout) -> Place;
    let parts: [(&str, Part); 2] = [
        ("filter", |layout| layout.filter),
        ("properties", |layout| layout.properties),
    ];
    for (name, part) in parts {
        let (disk, path) = four_tables();
        let content = disk.read(&path).unwrap().to_vec();
        let place = part(&Layout::read(&path, &content).unwrap());
        // The keys of its range alone are asked of it, also when it cannot say them.
        for _ in 0..2 {
            let mut damaged = content.clone();
            damaged[place.offset as usize + 2] ^= 0x10;
            disk.overwrite(&path, damaged).unwrap();
            let store = open_on(&disk).unwrap();
            assert!(causes(&store)[0].contains(name), "{:?}", causes(&store));
            assert!(lost(&store, &path).is_empty());
            assert_eq!(store.scan(&Key::least()).filter(Result::is_ok).count(), KEYS as usize);
            assert!(
                store
                    .get(&Key::new("tenant", "key000150a").unwrap())
                    .unwrap()
                    .is_empty()
            );
            let view = store.published().load();
            let aside = &view.tables.quarantine()[0];
            assert_eq!(
                (aside.first_key.as_str(), aside.last_key.as_str()),
                (key(100).as_str(), key(199).as_str())
            );
            assert_eq!(
                aside.table.as_ref().unwrap().range(),
                (key(100).as_str(), key(199).as_str())
            );
            store.close().unwrap();
        }
        disk.overwrite(&path, content).unwrap();
        let store = open_on(&disk).unwrap();
        assert_eq!((causes(&store), lost(&store, &path)), (vec![], vec![]));
    }
}

#[test]
fn a_lost_table_of_which_the_manifest_knows_no_range_refuses_the_start() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    for cut in [None, Some(50)] {
        let dir = tempfile::tempdir().unwrap();
        for part in ["sstables", "commitlog"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
            for entry in std::fs::read_dir(fixture.join(part)).unwrap().map(Result::unwrap) {
                std::fs::copy(entry.path(), dir.path().join(part).join(entry.file_name())).unwrap();
            }
        }
        let table = dir.path().join("sstables/000000000001.sst");
        match cut {
            None => std::fs::remove_file(&table).unwrap(),
            Some(len) => {
                let content = std::fs::read(&table).unwrap();
                std::fs::write(&table, &content[..len]).unwrap();
            }
        }
        let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
        let error = Store::open(&fs, Options::at(dir.path()), "node")
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(table.to_str().unwrap()), "{error}");
        assert!(error.contains("put the file back from a backup"), "{error}");
    }
}
