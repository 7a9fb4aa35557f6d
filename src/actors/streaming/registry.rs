//! The streams of this node, whichever actors work on them.
//!
//! Owns: which streams there are, and when the file that outlives the process is written. Does not own: its format (see
//! [`crate::storage::stream_records`]).

use crate::actors::address_book::NodeAddress;
use crate::actors::refusal::Refusal;
use crate::actors::streaming::stream::{Stream, StreamOrder};
use crate::actors::streaming::tap::Taps;
use crate::storage::fs::FileSystem;
use crate::storage::stream_records::{self, Progress, Sent, StreamRecord};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Most streams at a time: each has some memory of its own.
pub const MOST_STREAMS: usize = 32;

/// What became of an order.
#[derive(Debug)]
pub enum Ordered {
    /// There was such a stream already.
    Known(Arc<Stream>),
    /// A new stream, or one in place of another whose address or ranges it changes.
    New(Arc<Stream>),
}

/// The streams.
#[derive(Debug)]
pub struct Streams {
    set: Mutex<BTreeMap<String, Arc<Stream>>>,
    taps: Arc<Taps>,
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    /// What the file holds, if that is known. Locked while it is written.
    stored: Mutex<Option<Vec<StreamRecord>>>,
}

impl Streams {
    /// Those of an earlier process, with their file in `dir`.
    #[must_use]
    pub fn new(fs: Arc<dyn FileSystem>, dir: PathBuf, taps: Arc<Taps>, records: Vec<StreamRecord>) -> Arc<Self> {
        let streams = Self {
            set: Mutex::default(),
            taps,
            fs,
            dir,
            // Streams that are found may stand in a file whose name is not durable: it is written again with the next change.
            stored: Mutex::new(records.is_empty().then(Vec::new)),
        };
        for record in records {
            let order = StreamOrder {
                target: record.target,
                address: NodeAddress {
                    host: record.host,
                    port: record.port,
                },
                ranges: record.ranges,
            };
            streams.put(order, record.progress, record.sent);
        }
        Arc::new(streams)
    }

    fn put(&self, order: StreamOrder, progress: Progress, sent: Sent) -> Arc<Stream> {
        let tap = self.taps.add(order.ranges.clone());
        let target = order.target.clone();
        let stream = Stream::new(order, tap, progress, sent);
        if let Some(replaced) = self.set.lock().insert(target, Arc::clone(&stream)) {
            self.taps.remove(&replaced.tap);
        }
        stream
    }

    /// Takes an order. Ranges are added to those that the stream has: since nothing of the new ones was sent yet, it then
    /// begins anew.
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when there are too many streams.
    pub fn order(&self, order: StreamOrder) -> Result<Ordered, Refusal> {
        let Some(known) = self.get(&order.target) else {
            if self.set.lock().len() >= MOST_STREAMS {
                return Err(Refusal::Overloaded("too many streams; stop another first"));
            }
            return Ok(Ordered::New(self.put(order, Progress::default(), Sent::default())));
        };
        let mut record = known.record();
        // Whoever orders it again may have a reason: the target may have lost what it had.
        let is_compared = std::mem::take(&mut record.progress.compared);
        record.progress.compare_from.clear();
        let ranges = known.order().ranges.union(&order.ranges);
        if ranges == known.order().ranges {
            if order.address == known.order().address && !is_compared && known.skipped().is_empty() {
                return Ok(Ordered::Known(known));
            }
            return Ok(Ordered::New(self.put(
                StreamOrder { ranges, ..order },
                record.progress,
                record.sent,
            )));
        }
        Ok(Ordered::New(self.put(
            StreamOrder { ranges, ..order },
            Progress::default(),
            record.sent,
        )))
    }

    /// Ends a stream.
    pub fn remove(&self, target: &str) -> Option<Arc<Stream>> {
        let removed = self.set.lock().remove(target);
        if let Some(stream) = &removed {
            self.taps.remove(&stream.tap);
        }
        removed
    }

    /// The stream to a node.
    #[must_use]
    pub fn get(&self, target: &str) -> Option<Arc<Stream>> {
        self.set.lock().get(target).cloned()
    }

    /// All of them, by the ids of their targets.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Stream>> {
        self.set.lock().values().cloned().collect()
    }

    /// Makes durable which streams there are, and how far they are, if that has changed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn save(self: &Arc<Self>) -> Result<(), Refusal> {
        if self.is_known_to_be_without() {
            return Ok(());
        }
        let this = Arc::clone(self);
        let saving = tokio::task::spawn_blocking(move || this.save_now());
        saving
            .await
            .unwrap_or_else(|panicked| Err(Refusal::Internal(format!("saving the streams failed: {panicked}"))))
    }

    /// Whether there are no streams, and no file: an idle node is to stay idle.
    fn is_known_to_be_without(&self) -> bool {
        let stored = self.stored.try_lock();
        stored.is_some_and(|stored| stored.as_ref().is_some_and(Vec::is_empty)) && self.set.lock().is_empty()
    }

    fn save_now(&self) -> Result<(), Refusal> {
        let mut stored = self.stored.lock();
        let records: Vec<_> = self.all().iter().map(|stream| stream.record()).collect();
        if stored.as_ref() == Some(&records) {
            return Ok(());
        }
        // Until it has succeeded: the new ones or the old.
        *stored = None;
        stream_records::store(self.fs.as_ref(), &self.dir, &records).map_err(|error| Refusal::from(&error))?;
        *stored = Some(records);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test panics")]

    use super::*;
    use crate::storage::fs::{Failure, Fault, OperationKind, SimFs, Survival};
    use crate::storage::ring::HashRanges;
    use std::path::Path;

    #[test]
    fn a_file_that_is_found_after_a_failed_sync_is_written_again_before_an_order_counts_as_kept() {
        let (disk, dir) = (SimFs::default(), Path::new("/data"));
        disk.create_dir_all(dir).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let record = StreamRecord {
            target: "target".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 1,
            ranges: HashRanges::from_iter([(0, u64::MAX)]),
            progress: Progress::default(),
            sent: Sent::default(),
        };
        disk.fail(Fault::next(OperationKind::SyncDir, "", Failure::Device));
        assert!(stream_records::store(&disk, dir, &[record]).is_err());
        let found = stream_records::load(&disk, dir).unwrap();
        assert_eq!(found.len(), 1, "it has its name, but not for good");
        let streams = Streams::new(Arc::new(disk.clone()), dir.to_path_buf(), Arc::default(), found);
        streams.save_now().unwrap();
        disk.crash_with(Survival::Nothing);
        assert_eq!(stream_records::load(&disk, dir).unwrap().len(), 1);
    }
}
