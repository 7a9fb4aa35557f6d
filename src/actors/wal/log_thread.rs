//! The thread on which the log is written and synced, so that the next batch can gather meanwhile.
//!
//! Owns: the order of jobs on the log, and the interval of syncs when writes do not wait for one. Does not own: the log
//! (it outlives the thread), or batches beyond the one at work. It reports to the WalActor that started it and to no
//! successor; it ends when that actor is gone, and tells it when it ends otherwise.

use super::{Batch, WalMessage};
use crate::actors::Handles;
use crate::actors::faults::{Faults, Injected};
use crate::actors::mailbox::{Envelope, Mailbox};
use crate::actors::threads::{Priority, Queue, Threads, Worker as OnThread};
use crate::actors::trail::TraceContext;
use crate::actors::trail::work::LogWrite;
use crate::actors::write::{OnTheWay, RecentWrites, context_of};
use crate::storage::error::{Error, ErrorKind, Result};
use crate::storage::histogram::Histogram;
use crate::storage::log::record::Change;
use crate::storage::log::upkeep;
use crate::storage::log::writer::{DurableEnd, Log, LogStats};
use crate::storage::remembered;
use crate::storage::time::Time;
use crate::storage::view::Published;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use ractor::ActorRef;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The log, as all generations of its writer share it.
pub struct SharedLog {
    log: Mutex<Log>,
    status: Mutex<LogStats>,
    latched: ArcSwapOption<String>,
    is_unlinking: AtomicBool,
    recent: Arc<RecentWrites>,
    times: LogTimes,
}

/// How long batches took.
#[derive(Debug)]
pub struct LogTimes {
    /// To append to a segment that was there.
    pub append: Histogram,
    /// To append with the beginning of a new segment, and the end of the one before.
    pub rotate: Histogram,
    /// To sync.
    pub sync: Histogram,
}

impl SharedLog {
    /// Shares a log. What `recent` remembers is kept when segments are deleted.
    #[must_use]
    pub fn new(log: Log, recent: Arc<RecentWrites>) -> Arc<Self> {
        Arc::new(Self {
            recent,
            times: LogTimes {
                append: Histogram::of_durations(),
                rotate: Histogram::of_durations(),
                sync: Histogram::of_durations(),
            },
            status: Mutex::new(log.stats()),
            latched: ArcSwapOption::empty(),
            is_unlinking: AtomicBool::new(false),
            log: Mutex::new(log),
        })
    }

    /// Numbers as of the last job; never waits for the disk.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        *self.status.lock()
    }

    /// How long batches took.
    #[must_use]
    pub fn times(&self) -> &LogTimes {
        &self.times
    }

    /// Up to where each segment is durable, the oldest first. Waits for a batch that is being written.
    #[must_use]
    pub fn durable_ends(&self) -> Vec<DurableEnd> {
        self.log.lock().durable_ends().collect()
    }

    /// Sequence number of the last change that the log has. Waits for a batch that is being written.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.log.lock().last_seq()
    }

    /// Why the log takes no writes, if it does not; never waits for the disk.
    #[must_use]
    pub fn latched(&self) -> Option<Arc<String>> {
        self.latched.load_full()
    }

    /// Deletes segments that are wholly flushed, when what is remembered of them is kept.
    fn delete_flushed(&self) -> Result<()> {
        // The number first: what is flushed later may have names that are not in what is kept now.
        let up_to = self.log.lock().flushed_seq();
        let mut remembered = self.recent.lock().remembered();
        // What is not flushed stands in segments that stay, or does not stand in the log yet: kept here, a write that a loss
        // of power takes back would pass for one that was answered.
        remembered.retain(|write| write.seq <= up_to);
        if !remembered.is_empty() {
            let (fs, dir) = self.log.lock().place();
            match remembered::keep(fs.as_ref(), &dir, &remembered) {
                // The space that the segments give back is worth more.
                Err(error) if error.kind() == ErrorKind::DiskFull => {
                    tracing::warn!(%error, "after a restart, writes that are sent again may be applied again");
                }
                kept => kept?,
            }
        }
        let deleted = upkeep::delete_flushed(&self.log, up_to);
        *self.status.lock() = self.log.lock().stats();
        deleted.map(|_segments| ())
    }

    /// Works on the log, and publishes what became of it.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Log) -> T) -> T {
        let mut log = self.log.lock();
        let result = work(&mut log);
        *self.status.lock() = log.stats();
        if let Some(cause) = log.latched() {
            self.latched.store(Some(Arc::new(cause.to_owned())));
        }
        result
    }
}

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Write a batch and, if so configured, sync it.
    Write(Batch),
    /// Read back what lies above this sequence number, for whoever asks for it.
    ReadBack(u64, Option<OnTheWay>),
    /// Delete segments that are wholly flushed up to this sequence number.
    DeleteFlushed(u64),
    /// Rotate if the segment is old enough, delete what is wholly flushed, and say whether a closed segment is overdue.
    CheckAge,
    /// Make everything durable, and end the log cleanly.
    Close,
}

/// What the thread reports.
#[derive(Debug)]
pub enum Done {
    /// A batch was written, or not; `previous_seq` is the last number in the log before it.
    Written {
        /// The batch.
        batch: Batch,
        /// Last sequence number before it.
        previous_seq: u64,
        /// Whether it is in the log, durably if so configured.
        result: Result<()>,
        /// The same for the trails of its requests, if they have any.
        logged: Option<Arc<LogWrite>>,
    },
    /// The changes above `applied`.
    ReadBack {
        /// The number that was asked for.
        applied: u64,
        /// What lies above it.
        result: Result<Vec<Change>>,
        /// As it came with the job.
        on_the_way: Option<OnTheWay>,
    },
    /// A closed segment is older than the configured age, so what is in memory should be flushed.
    Overdue,
    /// Upkeep failed: deleting or rotating. It will be tried again.
    UpkeepFailed(Error),
    /// The log is ended.
    Closed(Result<()>),
    /// The thread ended without being told to, at the batch of this request, if it was at one.
    Ended(Option<TraceContext>),
}

/// How the thread syncs.
#[derive(Debug, Clone, Copy)]
pub struct SyncPolicy {
    /// Whether a batch is synced before it is reported.
    pub every_batch: bool,
    /// Otherwise: longest time for which a batch is not synced.
    pub interval: Duration,
}

/// A running thread. Dropping it lets the thread end after the jobs that it has.
#[derive(Debug)]
pub struct LogThread {
    jobs: Queue<Job>,
}

impl LogThread {
    /// Starts the thread for one generation of the WalActor, as writer `epoch`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        log: Arc<SharedLog>,
        epoch: u64,
        sync: SyncPolicy,
        time: Arc<dyn Time>,
        handles: &Handles,
        actor: ActorRef<Envelope<WalMessage>>,
    ) -> std::io::Result<Self> {
        let worker = Worker {
            log,
            epoch,
            sync,
            time,
            applied: Arc::clone(&handles.published),
            faults: Arc::clone(&handles.faults),
            mailbox: handles.wal.clone(),
            threads: handles.threads.clone(),
            actor,
            unsynced_since: None,
            writing: None,
        };
        let jobs = handles.threads.serve("pairdb-log", worker)?;
        Ok(Self { jobs })
    }

    /// Queues a job.
    ///
    /// # Errors
    /// Hands it back when the thread has ended.
    pub fn send(&self, job: Job) -> std::result::Result<(), Job> {
        self.jobs.send(job)
    }
}

/// Ends with the deletion that it stands for, whatever ends that.
struct Unlinking(Arc<SharedLog>);

impl Drop for Unlinking {
    fn drop(&mut self) {
        self.0.is_unlinking.store(false, Ordering::Release);
    }
}

struct Worker {
    log: Arc<SharedLog>,
    epoch: u64,
    sync: SyncPolicy,
    time: Arc<dyn Time>,
    applied: Arc<Published>,
    faults: Arc<Faults>,
    mailbox: Mailbox<WalMessage>,
    threads: Threads,
    actor: ActorRef<Envelope<WalMessage>>,
    /// As the clock's `elapsed` tells it.
    unsynced_since: Option<Duration>,
    /// That of the first request of the batch that is being written.
    writing: Option<TraceContext>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let writing = self.writing.take();
        self.report(Done::Ended(writing));
    }
}

impl OnThread for Worker {
    type Job = Job;

    fn perform(&mut self, job: Job) {
        match job {
            Job::Write(batch) => self.write(batch),
            Job::ReadBack(applied, on_the_way) => {
                let result = self.log.with(|log| log.changes_after(applied));
                self.report(Done::ReadBack {
                    applied,
                    result,
                    on_the_way,
                });
            }
            Job::DeleteFlushed(seq) => {
                self.log.with(|log| log.set_flushed(seq));
                self.delete_flushed_aside();
            }
            Job::CheckAge => {
                let now = self.time.now_ms();
                let checked = self.log.with(|log| {
                    log.rotate_if_due(self.epoch, now)?;
                    // What was flushed before it was closed meets no later flush while nobody writes.
                    log.begin_if_flushed(self.epoch, now)?;
                    Ok(log.has_overdue_segment(now))
                });
                self.delete_flushed_aside();
                match checked {
                    Ok(true) => self.report(Done::Overdue),
                    Ok(false) | Err(Error::Latched { .. } | Error::Fenced) => {}
                    Err(error) => self.report(Done::UpkeepFailed(error)),
                }
            }
            Job::Close => {
                let result = self.log.with(|log| log.close(self.epoch));
                self.unsynced_since = None;
                self.report(Done::Closed(result));
            }
        }
    }

    fn patience(&self) -> Option<Duration> {
        let since = self.unsynced_since?;
        Some((since + self.sync.interval).saturating_sub(self.time.elapsed()))
    }

    fn attend(&mut self) {
        if self.patience() == Some(Duration::ZERO) {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if self.unsynced_since.take().is_some() {
            // A failure latches the log, and the next write is told.
            let _ = self
                .log
                .with(|log| self.timed(&self.log.times.sync, || log.sync(self.epoch)));
        }
    }
}

impl Worker {
    /// Passes a point. An error that is injected there is one of the disk's.
    fn pass(&self, point: &'static str) -> Result<()> {
        let disk = |injected: Injected| Error::io("write", Path::new("commit log"), std::io::Error::other(injected));
        self.faults.pass("wal", point).map(|_on| ()).map_err(disk)
    }

    fn timed<T>(&self, histogram: &Histogram, work: impl FnOnce() -> T) -> T {
        let begun = self.time.elapsed();
        let result = work();
        histogram.observe(self.time.elapsed().saturating_sub(begun));
        result
    }

    fn report(&self, done: Done) {
        // The actor may be gone; what is durable is then read back by its successor.
        let _ = self.actor.send_message(self.mailbox.envelope(WalMessage::Done(done)));
    }

    /// Deletes what is wholly flushed on a thread of its own: to unlink a large file takes the disk a tenth of a second,
    /// and batches would wait for it.
    fn delete_flushed_aside(&self) {
        // One at a time: on a disk that hangs they would pile up.
        if !self.log.log.lock().has_flushed_segment() || self.log.is_unlinking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (log, actor, mailbox) = (Arc::clone(&self.log), self.actor.clone(), self.mailbox.clone());
        let work = move || {
            let unlinking = Unlinking(log);
            let deleted = unlinking.0.delete_flushed();
            drop(unlinking);
            if let Err(error) = deleted {
                let _ = actor.send_message(mailbox.envelope(WalMessage::Done(Done::UpkeepFailed(error))));
            }
        };
        // Without a thread it is tried again after the next flush.
        let started = self.threads.start("pairdb-unlink", Priority::Ordinary, work);
        if started.is_err() {
            self.log.is_unlinking.store(false, Ordering::Release);
        }
    }

    fn write(&mut self, batch: Batch) {
        let (epoch, every_batch) = (self.epoch, self.sync.every_batch);
        let (applied, now_ms) = (self.applied.applied(), self.time.now_ms());
        let (begun, mut sync_begun) = (Instant::now(), None);
        self.writing = context_of(&batch.writes);
        let (previous_seq, result) = self.log.with(|log| {
            let previous_seq = log.last_seq();
            let times = &self.log.times;
            let appended = self.pass("before-write").and_then(|()| {
                let (segment, begun) = (log.open_segment_id(), self.time.elapsed());
                let appended = log.append(epoch, &batch.encoded, applied, now_ms);
                let is_same = segment.is_some() && segment == log.open_segment_id();
                let histogram = if is_same { &times.append } else { &times.rotate };
                histogram.observe(self.time.elapsed().saturating_sub(begun));
                appended
            });
            let result = appended.and_then(|()| {
                self.pass("before-sync")?;
                if every_batch {
                    sync_begun = Some(Instant::now());
                    self.timed(&times.sync, || log.sync(epoch))
                } else {
                    Ok(())
                }
            });
            (previous_seq, result)
        });
        let result = result.and_then(|()| self.pass("after-sync"));
        if !every_batch {
            self.unsynced_since.get_or_insert(self.time.elapsed());
        }
        let size = (batch.writes.len(), batch.encoded.bytes.len());
        let error = |result: &Result<()>| result.as_ref().err().map(ToString::to_string);
        let logged = self.writing.take().is_some();
        let logged = logged.then(|| Arc::new(LogWrite::ended((begun, sync_begun), size, error(&result))));
        self.report(Done::Written {
            batch,
            previous_seq,
            result,
            logged,
        });
    }
}

#[cfg(test)]
mod tests;
