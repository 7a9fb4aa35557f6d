//! Torn and damaged files: recovered, or refused with a clear error. Never a panic, never a wrong value.

use bytes::Bytes;
use pairdb_node::storage::error::{Error, ErrorKind};
use pairdb_node::storage::fs::{Failure, Fault, FileSystem, OperationKind, SimFs, Survival};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::log;
use pairdb_node::storage::recovery::Options;
use pairdb_node::storage::store::Store;
use pairdb_node::storage::table::block::Compression;
use pairdb_node::storage::table::{Layout, Place};
use pairdb_node::storage::version::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const WRITES: u64 = 8;

fn key(n: u64) -> Key {
    Key::new("tenant", &format!("key{n}")).unwrap()
}

fn value(n: u64) -> Bytes {
    Bytes::from(format!("value {n} ").repeat(3))
}

fn filesystem(disk: &SimFs) -> Arc<dyn FileSystem> {
    Arc::new(disk.clone())
}

/// A disk with a log of `WRITES` writes, each a batch of its own; `clean`: the log was ended in order.
fn disk_with_log(clean: bool) -> (SimFs, PathBuf, Vec<u8>) {
    let disk = SimFs::default();
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    for n in 1..=WRITES {
        store.write(&key(n), Value::Live(value(n)), None).unwrap();
    }
    if clean {
        store.close().unwrap();
        drop(store);
    } else {
        drop(store);
        disk.crash(0);
    }
    let path = log::path(Path::new("/data/commitlog"), 1);
    let written = disk.read(&path).unwrap();
    // A log that was not ended in order has zeros written ahead of its records.
    let len = if clean {
        written.len()
    } else {
        written.iter().rposition(|byte| *byte != 0).unwrap() + 1
    };
    (disk, path, written[..len].to_vec())
}

/// Opens the disk and returns how many of the writes, from the first on, are there. Panics on a wrong value or a gap.
fn recovered(disk: &SimFs) -> Result<u64, Error> {
    let store = Store::open(&filesystem(disk), Options::at("/data"), "node")?;
    let mut found = 0;
    for n in 1..=WRITES {
        let versions = store.get(&key(n))?;
        match versions.winner() {
            Some(version) => {
                assert_eq!(version.value.live(), Some(&value(n)), "wrong value for key {n}");
                assert_eq!(found, n - 1, "key {n} is there, but one before it is not");
                found = n;
            }
            None => assert!(versions.is_empty()),
        }
    }
    Ok(found)
}

fn assert_names_file_and_offset(error: &Error, file: &Path) {
    match error {
        Error::Corruption { file: named, .. } | Error::Format { file: named, .. } => {
            assert_eq!(named, file);
            let shown = error.to_string();
            assert!(shown.contains(file.to_str().unwrap()), "{shown}");
        }
        other => panic!("{other} says neither what is damaged nor where"),
    }
}

#[test]
fn every_truncation_of_the_last_record_is_recovered_quietly() {
    let (disk, path, content) = disk_with_log(false);
    let mut shortest_with_all = content.len();
    for len in (0..content.len()).rev() {
        disk.overwrite(&path, content[..len].to_vec()).unwrap();
        match recovered(&disk) {
            Ok(found) if found == WRITES => shortest_with_all = len,
            Ok(found) if len as u64 >= log::HEADER_BYTES => assert!(found < WRITES),
            Ok(found) => panic!("a log of {len} bytes has no header, yet {found} writes were recovered"),
            Err(error) => {
                assert!((len as u64) < log::HEADER_BYTES, "truncation at {len}: {error}");
                assert_names_file_and_offset(&error, &path);
            }
        }
    }
    // A log that was not ended in order ends with its last record: one byte less loses it, and no more than it.
    assert_eq!(shortest_with_all, content.len());
    disk.overwrite(&path, content[..content.len() - 1].to_vec()).unwrap();
    assert_eq!(recovered(&disk).unwrap(), WRITES - 1);
}

#[test]
fn every_flip_of_a_byte_in_a_log_is_recovered_or_refused() {
    let (disk, path, content) = disk_with_log(false);
    let mut refused = 0;
    let last_batch = last_batch_start(&content);
    for at in 0..content.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = content.clone();
            damaged[at] ^= flip;
            disk.overwrite(&path, damaged).unwrap();
            match recovered(&disk) {
                // Only what no later record vouches for can be taken for a torn write.
                Ok(found) => assert!(at >= last_batch && found == WRITES - 1, "flip at {at}: {found} writes"),
                Err(error) => {
                    refused += 1;
                    assert_names_file_and_offset(&error, &path);
                }
            }
        }
    }
    assert!(refused > content.len(), "only {refused} flips were refused");
}

/// Where the last batch, a mark and one record, begins.
fn last_batch_start(content: &[u8]) -> usize {
    let record = |at: usize| 17 + u32::from_le_bytes(content[at + 4..at + 8].try_into().unwrap()) as usize;
    let (mut at, mut starts) = (log::HEADER_BYTES as usize, Vec::new());
    while at < content.len() {
        starts.push(at);
        at += record(at);
    }
    starts[starts.len() - 2]
}

#[test]
fn in_a_log_that_was_ended_in_order_every_flip_of_a_write_is_refused() {
    let (disk, path, content) = disk_with_log(true);
    let closing_mark = content.len() - 25;
    for at in 0..closing_mark {
        let mut damaged = content.clone();
        damaged[at] ^= 0x10;
        disk.overwrite(&path, damaged).unwrap();
        let error = recovered(&disk).expect_err(&format!("flip at {at} went unnoticed"));
        assert_names_file_and_offset(&error, &path);
    }
}

#[test]
fn a_hole_in_the_last_batch_is_a_torn_write_and_one_behind_it_is_damage() {
    let (disk, path, content) = disk_with_log(false);
    let last = last_batch_start(&content);
    // The sectors of the last, unsynced batch reach the disk in any order.
    let mut torn = content.clone();
    torn[last..].fill(0);
    disk.overwrite(&path, torn).unwrap();
    assert_eq!(recovered(&disk).unwrap(), WRITES - 1);
    // What a later mark calls durable cannot be torn.
    let mut damaged = content.clone();
    damaged[last - 200..last - 100].fill(0);
    disk.overwrite(&path, damaged).unwrap();
    assert_names_file_and_offset(&recovered(&disk).unwrap_err(), &path);
}

#[test]
fn a_lost_sector_that_a_later_mark_vouches_for_is_damage() {
    let disk = SimFs::default();
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    for n in 1..=40 {
        store.write(&key(n), Value::Live(value(n)), None).unwrap();
    }
    drop(store);
    let path = log::path(Path::new("/data/commitlog"), 1);
    let content = disk.read(&path).unwrap().to_vec();
    let written = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let last = last_batch_start(&content[..written]);
    for sector in 1..last / 512 {
        let mut damaged = content.clone();
        damaged[sector * 512..][..512].fill(0);
        disk.overwrite(&path, damaged).unwrap();
        let error = recovered(&disk).expect_err(&format!("the loss of sector {sector} went unnoticed"));
        assert_names_file_and_offset(&error, &path);
    }
}

#[test]
fn a_missing_segment_is_an_error() {
    let disk = SimFs::default();
    let mut options = Options::at("/data");
    options.log.segment_size = 300;
    let store = Store::open(&filesystem(&disk), options.clone(), "node").unwrap();
    for n in 1..=20 {
        store.write(&key(n), Value::Live(value(n)), None).unwrap();
    }
    store.close().unwrap();
    drop(store);
    for missing in [1, 3] {
        let disk = disk_copy(&disk);
        disk.remove(&log::path(Path::new("/data/commitlog"), missing)).unwrap();
        let error = Store::open(&filesystem(&disk), options.clone(), "node").err().unwrap();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

#[test]
fn every_truncation_and_flip_of_a_segment_before_the_last_is_refused() {
    let disk = SimFs::default();
    let mut options = Options::at("/data");
    options.log.segment_size = 300;
    let store = Store::open(&filesystem(&disk), options.clone(), "node").unwrap();
    for n in 1..=WRITES {
        store.write(&key(n), Value::Live(value(n)), None).unwrap();
    }
    drop(store);
    let path = log::path(Path::new("/data/commitlog"), 2);
    let content = disk.read(&path).unwrap().to_vec();
    for at in 0..content.len() {
        disk.overwrite(&path, content[..at].to_vec()).unwrap();
        let error = recovered(&disk).expect_err(&format!("truncation at {at} went unnoticed"));
        assert_names_file_and_offset(&error, &path);
        disk.overwrite(&path, content.clone()).unwrap();
        disk.flip(&path, at, 0x40).unwrap();
        let error = recovered(&disk).expect_err(&format!("flip at {at} went unnoticed"));
        assert_names_file_and_offset(&error, &path);
    }
    disk.overwrite(&path, content).unwrap();
    assert_eq!(recovered(&disk).unwrap(), WRITES);
}

/// The same files on another disk.
fn disk_copy(disk: &SimFs) -> SimFs {
    let copy = SimFs::default();
    for dir in ["/data/commitlog", "/data/sstables"].map(Path::new) {
        for name in disk.list(dir).unwrap() {
            let content = disk.read(&dir.join(&name)).unwrap();
            copy.create(&dir.join(&name)).unwrap().write_at(0, &content).unwrap();
        }
    }
    copy
}

#[test]
fn every_flip_and_truncation_of_a_table_is_refused_or_harmless() {
    for compression in [Compression::None, Compression::Lz4] {
        let disk = SimFs::default();
        let mut options = Options::at("/data");
        options.table.compression = compression;
        options.table.block_size = 128;
        let store = Store::open(&filesystem(&disk), options, "node").unwrap();
        for n in 1..=WRITES {
            store.write(&key(n), Value::Live(value(n)), None).unwrap();
        }
        store.flush().unwrap();
        store.close().unwrap();
        drop(store);
        let table = disk.list(Path::new("/data/sstables")).unwrap();
        let table = table.iter().find(|name| name.ends_with(".sst")).unwrap();
        let path = Path::new("/data/sstables").join(table);
        let content = disk.read(&path).unwrap().to_vec();
        assert_eq!(recovered(&disk).unwrap(), WRITES);
        let layout = Layout::read(&path, &content).unwrap();
        let dispensable = |at: usize| {
            let within = |part: Place| (part.offset..part.offset + part.length).contains(&(at as u64));
            within(layout.filter) || within(layout.properties)
        };
        for at in 0..content.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = content.clone();
                damaged[at] ^= flip;
                disk.overwrite(&path, damaged).unwrap();
                match recovered(&disk) {
                    // Nothing of what it holds.
                    Ok(found) => {
                        assert!(dispensable(at), "flip at {at} went unnoticed");
                        assert_eq!(found, WRITES);
                        let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
                        assert_eq!(store.published().load().tables.quarantine().len(), 1);
                    }
                    Err(error) => assert_names_file_and_offset(&error, &path),
                }
            }
        }
        for len in 0..content.len() {
            disk.overwrite(&path, content[..len].to_vec()).unwrap();
            let error = recovered(&disk).expect_err(&format!("truncation at {len} went unnoticed"));
            assert_names_file_and_offset(&error, &path);
        }
    }
}

#[test]
fn every_flip_of_the_manifest_is_refused_or_harmless() {
    let disk = SimFs::default();
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    for n in 1..=WRITES {
        store.write(&key(n), Value::Live(value(n)), None).unwrap();
        if n == WRITES / 2 {
            store.flush().unwrap();
        }
    }
    store.close().unwrap();
    drop(store);
    let path = Path::new("/data/sstables/MANIFEST");
    let content = disk.read(path).unwrap().to_vec();
    for at in 0..content.len() {
        let disk = disk_copy(&disk);
        let mut damaged = content.clone();
        damaged[at] ^= 0x41;
        disk.overwrite(path, damaged).unwrap();
        match recovered(&disk) {
            // The last edit may be taken for a torn one; the log still has all that it recorded.
            Ok(found) => assert_eq!(found, WRITES, "flip at {at}"),
            Err(error) => assert_names_file_and_offset(&error, path),
        }
    }
}

#[test]
fn a_failed_sync_latches_the_log_and_reads_go_on() {
    let disk = SimFs::default();
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    store.write(&key(1), Value::Live(value(1)), None).unwrap();
    disk.fail_syncs(1);
    store.write(&key(2), Value::Live(value(2)), None).unwrap_err();
    let later = store.write(&key(3), Value::Live(value(3)), None).unwrap_err();
    assert!(matches!(later, Error::Latched { .. }), "{later}");
    assert_eq!(
        store.get(&key(1)).unwrap().winner().unwrap().value.live(),
        Some(&value(1))
    );
    assert!(
        store.get(&key(2)).unwrap().is_empty(),
        "a write whose sync failed must not be seen"
    );
}

/// What a failed sync was for may be on the disk or not: "disk full" would say that it is not, and that it may be repeated.
#[test]
fn a_sync_that_fails_for_lack_of_space_is_no_full_disk() {
    let disk = SimFs::default();
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    store.write(&key(1), Value::Live(value(1)), None).unwrap();
    disk.fail(Fault::next(OperationKind::Sync, ".log", Failure::Full));
    let failed = store.write(&key(2), Value::Live(value(2)), None).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Failed, "{failed}");
    drop(store);
    disk.crash_with(Survival::Everything);
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    assert!(!store.get(&key(2)).unwrap().is_empty(), "it came through all the same");
}

/// Nor may it be told of a record that was begun and cannot be cut back.
#[test]
fn a_full_disk_that_keeps_half_a_record_latches_the_log() {
    let disk = SimFs::default();
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    store.write(&key(1), Value::Live(value(1)), None).unwrap();
    disk.fail(Fault::next(OperationKind::Write, ".log", Failure::Full));
    disk.fail(Fault::next(OperationKind::Truncate, ".log", Failure::Device));
    let failed = store.write(&key(2), Value::Live(value(2)), None).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Failed, "{failed}");
}

/// The system tells a failed write once: the sync that follows would succeed, and the log be deleted for a table that is not
/// there.
#[test]
fn a_table_of_which_a_part_did_not_reach_the_disk_is_not_kept() {
    let disk = SimFs::default();
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    store.write(&key(1), Value::Live(value(1)), None).unwrap();
    disk.fail(Fault::next(OperationKind::WriteOut, ".sst.tmp", Failure::Device));
    store.flush().unwrap_err();
    assert_eq!(store.published().load().tables.all().count(), 0);
    store.flush().unwrap();
    assert_eq!(store.published().load().tables.all().count(), 1);
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space_again() {
    let disk = SimFs::default();
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    store.write(&key(1), Value::Live(value(1)), None).unwrap();
    let large = Bytes::from(vec![1; 1 << 20]);
    disk.set_space(Some(1000));
    let error = store.write(&key(2), Value::Live(large), None).unwrap_err();
    assert_eq!(
        error.kind(),
        pairdb_node::storage::error::ErrorKind::DiskFull,
        "{error}"
    );
    disk.set_space(None);
    store.write(&key(2), Value::Live(value(2)), None).unwrap();
    drop(store);
    disk.crash(0);
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    for n in [1, 2] {
        assert_eq!(
            store.get(&key(n)).unwrap().winner().unwrap().value.live(),
            Some(&value(n))
        );
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let disk = SimFs::default();
    let _first = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    let error = Store::open(&filesystem(&disk), Options::at("/data"), "node")
        .err()
        .unwrap();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
}

#[test]
fn a_record_that_could_not_be_read_back_is_not_written() {
    let disk = SimFs::default();
    let store = Store::open(&filesystem(&disk), Options::at("/data"), "node").unwrap();
    store.write(&key(1), Value::Live(value(1)), None).unwrap();
    let clock = (0..20_000).map(|n| (format!("{n:0128}"), 1)).collect();
    let large = Value::Live(Bytes::from(vec![1; 10 << 20]));
    let error = store.write(&key(2), large, Some(clock)).unwrap_err();
    assert!(error.to_string().contains("at most"), "{error}");
    store.write(&key(2), Value::Live(value(2)), None).unwrap();
    drop(store);
    disk.crash(0);
    assert_eq!(recovered(&disk).unwrap(), 2);
}
