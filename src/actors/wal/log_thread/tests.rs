use super::*;
use crate::storage::clock::VectorClock;
use crate::storage::fs::{Failure, Fault, FileSystem, OperationKind, SimFs, Survival};
use crate::storage::idempotency::{REMEMBERED_BYTES, Recent, WriteName};
use crate::storage::key::Key;
use crate::storage::log::record::{Operation, encode_change};
use crate::storage::log::writer::EncodedBatch;
use crate::storage::recovery::{self, Options};
use crate::storage::version::{Value, Version};

/// Found by the simulation: such a name outlived a loss of power that its write did not, and the write, sent again, was
/// answered as if it were there.
#[test]
fn a_name_whose_write_may_not_be_in_the_log_is_not_kept_when_segments_go() {
    let fs: Arc<dyn FileSystem> = Arc::new(SimFs::default());
    let mut log = recovery::open(&fs, &Options::at("/data")).unwrap().log;
    log.set_flushed(5);
    let mut recent = Recent::new(300_000, REMEMBERED_BYTES);
    for (id, seq) in [("flushed", 5), ("gathering", 6)] {
        let name = WriteName {
            key: Key::new("tenant", "key").unwrap(),
            id: id.into(),
        };
        recent.begin(name, seq, 1, VectorClock::default());
    }
    let shared = SharedLog::new(log, Arc::new(Mutex::new(recent)));
    shared.delete_flushed().unwrap();
    let kept = remembered::kept(fs.as_ref(), Path::new("/data/commitlog")).unwrap();
    let kept: Vec<&str> = kept.iter().map(|write| write.name.id.as_str()).collect();
    assert_eq!(kept, ["flushed"]);
}

/// Where writes are answered before the sync, the interval's is promised to those that were answered before a write failed.
#[test]
fn what_was_answered_before_a_write_failed_is_synced_all_the_same() {
    let disk = SimFs::default();
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let mut log = recovery::open(&fs, &Options::at("/data")).unwrap().log;
    let (epoch, salt) = (log.take_over(), log.salt());
    let batch = |seq| {
        let version = Version {
            clock: [("c", seq)].into_iter().collect(),
            value: Value::Live(b"value".as_slice().into()),
            timestamp_ms: 1,
            seq,
        };
        let mut batch = EncodedBatch {
            last_seq: seq,
            ..EncodedBatch::default()
        };
        let key = Key::new("tenant", "key").unwrap();
        encode_change(&mut batch.bytes, salt, Operation::Write, &key, &version, None).unwrap();
        batch
    };
    log.append(epoch, &batch(1), 0, 1).unwrap();
    disk.fail(Fault::next(OperationKind::Write, ".log", Failure::Device));
    log.append(epoch, &batch(2), 0, 1).unwrap_err();
    assert!(matches!(log.sync(epoch), Err(Error::Latched { .. })));
    drop(log);
    disk.crash_with(Survival::Nothing);
    assert_eq!(recovery::open(&fs, &Options::at("/data")).unwrap().log.last_seq(), 1);
}
