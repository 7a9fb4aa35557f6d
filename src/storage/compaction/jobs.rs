//! The jobs of compaction: which are under way, and what became of the last.
//!
//! Owns: the claim of a job on its tables, and the record of jobs. Both outlive whoever starts the jobs, so that a
//! successor meets no table that is being merged. Does not own: threads, or the merge.

use super::debt::LevelOptions;
use super::job::{self, JobContext, Outcome};
use super::pick::{Choice, Situation, pick};
use super::throttle::Throttle;
use crate::storage::error::{Error, ErrorKind, Result};
use crate::storage::histogram::Histogram;
use crate::storage::tables::Tables;
use crate::storage::time::Time;
use crate::storage::view::Published;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Finished jobs that are remembered.
const REMEMBERED: usize = 64;
/// A table that was written for its tombstones alone, and had to keep some, is left alone for so long, in milliseconds.
const REST_MS: u64 = 3600 * 1000;

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Chosen; waits for a worker.
    Pending,
    /// Being carried out.
    Running,
    /// Its result is installed.
    Completed,
    /// Nothing changed, for this reason.
    Failed(String),
}

/// A job, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// Its number; the first of a process is 1.
    pub id: u64,
    /// How it stands.
    pub state: JobState,
    /// Level of the first tables.
    pub from: usize,
    /// Level of the result.
    pub to: usize,
    /// Numbers of its tables.
    pub inputs: Vec<u64>,
    /// Bytes of its tables.
    pub input_bytes: u64,
    /// Bytes of its tables that a completed job read; 0 when it moved them as they were.
    pub read: u64,
    /// Bytes written so far.
    pub written: u64,
    /// When it was chosen, in milliseconds since the Unix epoch.
    pub chosen_ms: u64,
    /// When it ended; 0 before.
    pub ended_ms: u64,
}

/// Sums over all jobs of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobTotals {
    /// Jobs that merged or moved tables.
    pub completed: u64,
    /// Jobs that changed nothing.
    pub failed: u64,
    /// Bytes of tables read by completed jobs.
    pub bytes_read: u64,
    /// Bytes of tables written by completed jobs.
    pub bytes_written: u64,
    /// Keys whose tombstones had outlived their grace.
    pub tombstones_dropped: u64,
}

#[derive(Debug, Default)]
struct Registry {
    /// Which job has a table.
    claimed: BTreeMap<u64, u64>,
    /// Until when a table rests.
    resting: BTreeMap<u64, u64>,
    /// Most tables of L0 that the next job may take, since the disk had no space for more.
    most_l0_tables: Option<usize>,
    active: BTreeMap<u64, JobRecord>,
    ended: VecDeque<JobRecord>,
    totals: JobTotals,
    last_id: u64,
}

/// All jobs of a node.
#[derive(Debug)]
pub struct Jobs {
    tables: Arc<Tables>,
    published: Arc<Published>,
    time: Arc<dyn Time>,
    throttle: Throttle,
    registry: Mutex<Registry>,
    stopping: AtomicBool,
    times: Histogram,
    table_times: Histogram,
}

/// A job that has its tables to itself. Dropped before it was run to its end, it counts as failed.
#[derive(Debug)]
pub struct Job {
    jobs: Arc<Jobs>,
    id: u64,
    choice: Choice,
}

impl Jobs {
    /// No jobs yet. `bytes_per_second` is their pace together; 0: without a limit.
    #[must_use]
    pub fn new(
        tables: Arc<Tables>,
        published: Arc<Published>,
        time: Arc<dyn Time>,
        bytes_per_second: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            throttle: Throttle::new(Arc::clone(&time), bytes_per_second),
            tables,
            published,
            time,
            registry: Mutex::new(Registry::default()),
            stopping: AtomicBool::new(false),
            times: Histogram::of_long_durations(),
            table_times: Histogram::of_long_durations(),
        })
    }

    /// Another pace for all jobs, in bytes a second; 0: without a limit.
    pub fn set_pace(&self, bytes_per_second: u64) {
        self.throttle.set_rate(bytes_per_second);
    }

    /// The pace of all jobs, in bytes a second; 0: without a limit.
    #[must_use]
    pub fn pace(&self) -> u64 {
        self.throttle.bytes_per_second()
    }

    /// Chooses the most urgent work that no job has yet; [`None`] when nothing is due.
    #[must_use]
    pub fn next(self: &Arc<Self>) -> Option<Job> {
        if self.stopping.load(Ordering::Relaxed) {
            return None;
        }
        let registry = &mut *self.registry.lock();
        let now_ms = self.time.now_ms();
        registry.resting.retain(|_, until| *until > now_ms);
        let choice = self.choose(registry, now_ms)?;
        registry.last_id += 1;
        let id = registry.last_id;
        registry.claimed.extend(choice.inputs().map(|table| (table.id(), id)));
        let record = JobRecord {
            id,
            state: JobState::Pending,
            from: choice.from,
            to: choice.to,
            inputs: choice.inputs().map(|table| table.id()).collect(),
            input_bytes: choice.inputs().map(|table| table.size()).sum(),
            read: 0,
            written: 0,
            chosen_ms: now_ms,
            ended_ms: 0,
        };
        registry.active.insert(id, record);
        Some(Job {
            jobs: Arc::clone(self),
            id,
            choice,
        })
    }

    /// Whether there is work that no job has yet.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.choose(&self.registry.lock(), self.time.now_ms()).is_some()
    }

    fn choose(&self, registry: &Registry, now_ms: u64) -> Option<Choice> {
        // Loaded while the registry is locked: a table that a job has just replaced is in no view from here on.
        let view = self.published.load();
        pick(
            &view.tables,
            &Situation {
                options: self.options(),
                busy: &|id| registry.claimed.contains_key(&id),
                resting: &|id| registry.resting.contains_key(&id),
                most_l0_tables: registry.most_l0_tables,
                now_ms,
            },
        )
    }

    /// How the levels are shaped.
    #[must_use]
    pub fn options(&self) -> &LevelOptions {
        self.tables.level_options()
    }

    /// Jobs that wait or run, then those that ended last, the latest first.
    #[must_use]
    pub fn records(&self) -> Vec<JobRecord> {
        let registry = self.registry.lock();
        registry
            .active
            .values()
            .chain(registry.ended.iter().rev())
            .cloned()
            .collect()
    }

    /// Sums over all jobs.
    #[must_use]
    pub fn totals(&self) -> JobTotals {
        self.registry.lock().totals
    }

    /// How long jobs took, from their choice to their end.
    #[must_use]
    pub fn times(&self) -> &Histogram {
        &self.times
    }

    /// How long jobs took to write a table, without the waits of their pace.
    #[must_use]
    pub fn table_times(&self) -> &Histogram {
        &self.table_times
    }

    /// Jobs that wait or run.
    #[must_use]
    pub fn active(&self) -> usize {
        self.registry.lock().active.len()
    }

    /// Ends running jobs at the next opportunity, without a result, and chooses no more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// After a merge of L0 that the disk had no space for, the next takes fewer tables, which may fit; after one that
    /// succeeded, as many as is usual.
    fn heed_space(&self, choice: &Choice, result: &Result<Outcome>) {
        if !choice.merges_l0() {
            return;
        }
        let next = match result {
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::DiskFull => Some(choice.fewer_l0_tables()),
            Err(_) => return,
        };
        self.registry.lock().most_l0_tables = next;
    }

    fn end(&self, id: u64, state: JobState, outcome: Option<&Outcome>) {
        let registry = &mut *self.registry.lock();
        registry.claimed.retain(|_, job| *job != id);
        let Some(mut record) = registry.active.remove(&id) else {
            return;
        };
        let now_ms = self.time.now_ms();
        self.times
            .observe(Duration::from_millis(now_ms.saturating_sub(record.chosen_ms)));
        match outcome {
            Some(outcome) => {
                for took in &outcome.table_times {
                    self.table_times.observe(*took);
                }
                registry.totals.completed += 1;
                registry.totals.bytes_read += outcome.bytes_read;
                registry.totals.bytes_written += outcome.bytes_written;
                registry.totals.tombstones_dropped += outcome.tombstones_dropped;
                record.read = outcome.bytes_read;
                record.written = outcome.bytes_written;
                if record.from == record.to {
                    registry
                        .resting
                        .extend(outcome.outputs.iter().map(|table| (*table, now_ms + REST_MS)));
                }
            }
            None => registry.totals.failed += 1,
        }
        record.state = state;
        record.ended_ms = now_ms;
        if registry.ended.len() == REMEMBERED {
            registry.ended.pop_front();
        }
        registry.ended.push_back(record);
    }
}

impl Job {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Carries it out on this thread, at the pace of all jobs together.
    ///
    /// # Errors
    /// As [`job::run`]. Tables that turned out to be damaged are then set aside, so that the next job is another.
    pub fn run(self) -> Result<Outcome> {
        let jobs = Arc::clone(&self.jobs);
        if let Some(record) = jobs.registry.lock().active.get_mut(&self.id) {
            record.state = JobState::Running;
        }
        let mut pace = |bytes| self.pace(bytes);
        let result = job::run(
            &self.choice,
            &mut JobContext {
                tables: &jobs.tables,
                published: &jobs.published,
                now_ms: jobs.time.now_ms(),
                pace: &mut pace,
                time: jobs.time.as_ref(),
            },
        );
        // While the tables are still claimed, so that no job is chosen before.
        jobs.heed_space(&self.choice, &result);
        match &result {
            Ok(outcome) => jobs.end(self.id, JobState::Completed, Some(outcome)),
            Err(error) => jobs.end(self.id, JobState::Failed(error.to_string()), None),
        }
        drop(self);
        jobs.tables.collect_garbage();
        if result.is_err() {
            // The rest is for upkeep to repeat: what a failed installation left, and what turned out to be damaged.
            let _ = jobs.tables.sweep();
            let _ = jobs.tables.quarantine_damaged(&jobs.published);
        }
        result
    }

    fn pace(&self, bytes: u64) -> Result<()> {
        if let Some(record) = self.jobs.registry.lock().active.get_mut(&self.id) {
            record.written += bytes;
        }
        let stopping = || self.jobs.stopping.load(Ordering::Relaxed);
        self.jobs.throttle.draw(bytes, || {
            if stopping() {
                None
            } else {
                self.jobs.published.load().tables.debt().haste()
            }
        });
        if stopping() {
            let why = std::io::Error::new(std::io::ErrorKind::Interrupted, "the node is stopping");
            return Err(Error::io("compact tables in", Path::new("the data directory"), why));
        }
        Ok(())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.jobs
            .end(self.id, JobState::Failed("it was abandoned".to_owned()), None);
    }
}
