//! Backups: consistent, incremental, whole by themselves, and restored to the last write.

use bytes::Bytes;
use pairdb_node::storage::backup::{self, Copied};
use pairdb_node::storage::fs::{FileSystem, RealFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::recovery::Options;
use pairdb_node::storage::store::{Store, StoreOptions};
use pairdb_node::storage::version::Value;
use std::io;
use std::path::Path;
use std::sync::Arc;

fn key(n: u32) -> Key {
    Key::new("tenant", &format!("key{n:05}")).unwrap()
}

fn put(store: &Store, keys: std::ops::Range<u32>, round: u32) {
    for n in keys {
        let value = Value::Live(Bytes::from(format!("{n} in round {round}")));
        store.write(&key(n), value, None).unwrap();
    }
}

fn check(store: &Store, keys: std::ops::Range<u32>, round: u32) {
    for n in keys {
        let versions = store.get(&key(n)).unwrap();
        let value = versions.winner().and_then(|winner| winner.value.live().cloned());
        assert_eq!(value, Some(Bytes::from(format!("{n} in round {round}"))));
    }
}

fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::from(Options::at(dir));
    options.sync_writes = false;
    options
}

fn restored(fs: &Arc<dyn FileSystem>, from: &Path, to: &Path) -> (Copied, Store) {
    let engine = Options::at(to);
    let copied = backup::restore(fs.as_ref(), from, &engine.sstable_dir, &engine.log.dir).unwrap();
    (copied, Store::open(fs, options(to), "node").unwrap())
}

#[test]
fn each_backup_holds_its_own_moment_and_shares_what_did_not_change() {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = Store::open(&fs, options(&at("data")), "node").unwrap();
    put(&store, 0..1000, 1);
    let first = store.backup(&at("backups"), "1").unwrap();
    assert_eq!((first.tables, first.linked, first.copied), (1, 1, 0));
    put(&store, 500..1500, 2);
    for n in 0..10 {
        store.write(&key(n), Value::Tombstone, None).unwrap();
    }
    let second = store.backup(&at("backups"), "2").unwrap();
    assert_eq!((second.tables, second.linked, second.copied), (2, 2, 0));
    // The store goes on, compacts, and ends; its backups stay as they were.
    put(&store, 0..2000, 3);
    store.flush().unwrap();
    put(&store, 0..2000, 4);
    store.flush().unwrap();
    while store.compact().unwrap() {}
    let taken = store.backup(&at("backups"), "2").unwrap_err();
    assert!(taken.to_string().contains("backup of this name"), "{taken}");
    let last_seq = store.published().applied();
    drop(store);
    std::fs::remove_dir_all(at("data")).unwrap();
    let (_, store) = restored(&fs, &at("backups/1"), &at("one"));
    check(&store, 0..1000, 1);
    assert!(store.get(&key(1200)).unwrap().is_empty());
    drop(store);
    std::fs::remove_dir_all(at("backups/1")).unwrap();
    let (copied, store) = restored(&fs, &at("backups/2"), &at("two"));
    assert_eq!(copied.tables, 2);
    check(&store, 10..500, 1);
    check(&store, 500..1500, 2);
    for n in 0..10 {
        let versions = store.get(&key(n)).unwrap();
        assert!(
            versions.winner().unwrap().value.live().is_none(),
            "a delete is restored as one"
        );
    }
    // No number that the lost store may have given out is given out again.
    put(&store, 0..1, 9);
    assert!(store.published().applied() > last_seq);
    check(&store, 0..1, 9);
    let again = backup::restore(fs.as_ref(), &at("backups/2"), &at("two/sstables"), &at("two/commitlog"));
    assert!(again.unwrap_err().to_string().contains("there is data already"));
}

/// A file system on which nothing can be linked from the store's directory, as if backups were on another disk.
#[derive(Debug)]
struct TwoDisks(RealFs);

macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> $result { self.0.$name($($arg),*) })*
    };
}

impl FileSystem for TwoDisks {
    forward! {
        create_dir_all(dir: &Path) -> io::Result<Vec<std::path::PathBuf>>;
        remove_dir(dir: &Path) -> io::Result<()>;
        create(path: &Path) -> io::Result<Box<dyn pairdb_node::storage::fs::WriteFile>>;
        read(path: &Path) -> io::Result<Bytes>;
        open(path: &Path) -> io::Result<Box<dyn pairdb_node::storage::fs::WriteFile>>;
        list(dir: &Path) -> io::Result<Vec<String>>;
        rename(from: &Path, to: &Path) -> io::Result<()>;
        remove(path: &Path) -> io::Result<()>;
        sync_dir(dir: &Path) -> io::Result<()>;
        space(dir: &Path) -> io::Result<pairdb_node::storage::fs::Space>;
        lock_dir(dir: &Path) -> io::Result<pairdb_node::storage::fs::DirLock>;
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let on_backup_disk = |path: &Path| path.to_string_lossy().contains("backups");
        if on_backup_disk(from) == on_backup_disk(to) {
            self.0.link(from, to)
        } else {
            Err(io::ErrorKind::CrossesDevices.into())
        }
    }
}

#[test]
fn on_another_disk_only_what_is_new_is_copied() {
    let fs: Arc<dyn FileSystem> = Arc::new(TwoDisks(RealFs));
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = Store::open(&fs, options(&at("data")), "node").unwrap();
    put(&store, 0..1000, 1);
    let first = store.backup(&at("backups"), "1").unwrap();
    assert_eq!((first.tables, first.reused, first.copied), (1, 0, 1));
    put(&store, 1000..1100, 1);
    let second = store.backup(&at("backups"), "2").unwrap();
    assert_eq!((second.tables, second.reused, second.copied), (2, 1, 1));
    let (copied, restored) = restored(&fs, &at("backups/2"), &at("new"));
    assert_eq!(copied.copied, 2);
    check(&restored, 0..1100, 1);
}

#[test]
fn what_is_no_whole_backup_or_damaged_is_refused() {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = Store::open(&fs, options(&at("data")), "node").unwrap();
    put(&store, 0..1000, 1);
    let copied = store.backup(&at("backups"), "1").unwrap();
    drop(store);
    let refused = |from: &str| {
        let (tables, log) = (at("new/sstables"), at("new/commitlog"));
        let error = backup::restore(fs.as_ref(), &at(from), &tables, &log).unwrap_err();
        assert!(
            Store::open(&fs, options(&at("new")), "node").is_ok_and(|store| store.get(&key(1)).unwrap().is_empty())
        );
        let _ = std::fs::remove_dir_all(at("new"));
        error.to_string()
    };
    assert!(refused("nowhere").contains("cannot list"));
    let names = std::fs::read_dir(&copied.dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let table = names
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "sst"))
        .unwrap();
    let whole = std::fs::read(&table).unwrap();
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    // The backup shares the file with the store it was made of, which is gone.
    std::fs::write(&table, damaged).unwrap();
    assert!(refused("backups/1").contains("checksum"));
    std::fs::write(&table, whole).unwrap();
    std::fs::remove_file(copied.dir.join("MANIFEST")).unwrap();
    assert!(refused("backups/1").contains("no whole backup"));
}
