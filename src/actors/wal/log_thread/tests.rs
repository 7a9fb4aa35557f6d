use super::*;
use crate::storage::clock::VectorClock;
use crate::storage::fs::{FileSystem, SimFs};
use crate::storage::idempotency::{REMEMBERED_BYTES, Recent, WriteName};
use crate::storage::key::Key;
use crate::storage::recovery::{self, Options};

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
