//! The threads that do what would hold up the runtime: reading, writing and syncing files.
//!
//! In a node they are the system's. In a simulation each piece of work is a task of the one thread on which everything
//! runs: it is done in one go, at a moment that follows from a seed, and its result arrives at another. So nothing there
//! is left to the system's scheduler.
//!
//! Owns: starting them, the loop of a thread that has a queue, and that what takes its time is watched. Does not own: what
//! they do.

use crate::storage::priority;
use crate::storage::progress::UnderWay;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

/// Processors of a simulated machine: the least with which more than one shard of anything is tried.
const SIMULATED_CORES: usize = 2;

/// How a thread stands to others that want the processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// As all.
    Ordinary,
    /// It takes what they leave.
    Low,
}

/// Work that has a thread of its own, on which it does one job after the other.
pub trait Worker: Send + 'static {
    /// What it is asked to do.
    type Job: Send + 'static;

    /// Does a job.
    fn perform(&mut self, job: Self::Job);

    /// How long it may wait for a job before it has something to do by itself; [`None`]: as long as it takes.
    fn patience(&self) -> Option<Duration>;

    /// Does what is due by itself. Called after each job, and when its patience has ended.
    fn attend(&mut self);

    /// No more jobs come.
    fn finish(&mut self);
}

/// The way to a [`Worker`]. Dropping it lets the worker finish, after the jobs that it has.
#[derive(Debug)]
pub struct Queue<J>(Sender<J>);

#[derive(Debug)]
enum Sender<J> {
    Thread(mpsc::Sender<J>),
    Task(tokio::sync::mpsc::UnboundedSender<J>),
}

impl<J> Queue<J> {
    /// Queues a job.
    ///
    /// # Errors
    /// Hands it back when the worker has ended.
    pub fn send(&self, job: J) -> Result<(), J> {
        match &self.0 {
            Sender::Thread(jobs) => jobs.send(job).map_err(|unsent| unsent.0),
            Sender::Task(jobs) => jobs.send(job).map_err(|unsent| unsent.0),
        }
    }
}

/// A worker each of whose jobs is watched.
struct WatchedWorker<W> {
    inner: W,
    name: &'static str,
    under_way: Arc<UnderWay>,
}

impl<W: Worker> Worker for WatchedWorker<W> {
    type Job = W::Job;

    fn perform(&mut self, job: W::Job) {
        self.under_way.watch(self.name, || self.inner.perform(job));
    }

    fn patience(&self) -> Option<Duration> {
        self.inner.patience()
    }

    fn attend(&mut self) {
        self.under_way.watch(self.name, || self.inner.attend());
    }

    fn finish(&mut self) {
        self.under_way.watch(self.name, || self.inner.finish());
    }
}

/// Where threads come from.
#[derive(Debug, Clone)]
pub struct Threads {
    /// Of a simulation.
    schedule: Option<Schedule>,
    under_way: Arc<UnderWay>,
}

impl Threads {
    /// From the system.
    #[must_use]
    pub fn system() -> Self {
        Self {
            schedule: None,
            under_way: Arc::default(),
        }
    }

    /// From nowhere: their work is done by tasks of the runtime, which must have one thread, when `seed` says.
    #[must_use]
    pub fn simulated(seed: u64) -> Self {
        let chance = SmallRng::seed_from_u64(seed);
        Self {
            schedule: Some(Schedule(Arc::new(Mutex::new(chance)))),
            under_way: Arc::default(),
        }
    }

    /// How many processors there are.
    #[must_use]
    pub fn cores(&self) -> usize {
        match &self.schedule {
            None => std::thread::available_parallelism().map_or(1, usize::from),
            Some(_) => SIMULATED_CORES,
        }
    }

    /// Whether work on several threads may be done at the same time.
    #[must_use]
    pub fn are_parallel(&self) -> bool {
        self.schedule.is_none()
    }

    /// The work that they are at, but for that of [`Threads::run`], which is short.
    #[must_use]
    pub fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// As [`Threads::run`], for work that takes its time, and has a name.
    pub fn run_long<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.run(self.watched(name, work))
    }

    /// The same work, watched.
    fn watched<T, W: FnOnce() -> T>(&self, name: &'static str, work: W) -> impl FnOnce() -> T + use<T, W> {
        let under_way = Arc::clone(&self.under_way);
        move || under_way.watch(name, work)
    }

    /// Does work on a thread that may block. It is done to its end, whether or not anybody waits for it.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let Some(schedule) = self.schedule.clone() else {
            return tokio::task::spawn_blocking(work);
        };
        tokio::spawn(async move {
            schedule.pause().await;
            let done = work();
            schedule.pause().await;
            done
        })
    }

    /// Does work on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        &self,
        name: &'static str,
        priority: Priority,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let work = self.watched(name, work);
        if self.schedule.is_some() {
            drop(self.run(work));
            return Ok(());
        }
        let work = move || {
            if priority == Priority::Low {
                priority::lower();
            }
            work();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
    }

    /// Gives a worker its thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn serve<W: Worker>(&self, name: &'static str, worker: W) -> io::Result<Queue<W::Job>> {
        let worker = WatchedWorker {
            inner: worker,
            name,
            under_way: Arc::clone(&self.under_way),
        };
        let Some(schedule) = self.schedule.clone() else {
            let (jobs, queue) = mpsc::channel();
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || work_off(worker, &queue))?;
            return Ok(Queue(Sender::Thread(jobs)));
        };
        let (jobs, queue) = unbounded_channel();
        tokio::spawn(work_off_simulated(worker, queue, schedule));
        Ok(Queue(Sender::Task(jobs)))
    }
}

fn work_off<W: Worker>(mut worker: W, queue: &Receiver<W::Job>) {
    loop {
        let job = match worker.patience() {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(patience) => queue.recv_timeout(patience),
        };
        match job {
            Ok(job) => worker.perform(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        worker.attend();
    }
    worker.finish();
}

async fn work_off_simulated<W: Worker>(mut worker: W, mut queue: UnboundedReceiver<W::Job>, schedule: Schedule) {
    loop {
        let job = match worker.patience() {
            None => Ok(queue.recv().await),
            Some(patience) => tokio::time::timeout(patience, queue.recv()).await,
        };
        schedule.pause().await;
        match job {
            Ok(Some(job)) => worker.perform(job),
            Err(_elapsed) => {}
            Ok(None) => break,
        }
        worker.attend();
    }
    worker.finish();
}

/// When simulated threads get on.
#[derive(Debug, Clone)]
struct Schedule(Arc<Mutex<SmallRng>>);

impl Schedule {
    /// Lets others have their turn, mostly; or for as long as a disk takes; now and then as a slow one.
    async fn pause(&self) {
        let (turns, millis) = {
            let mut chance = self.0.lock();
            match chance.random_range(0..16) {
                0..=9 => (chance.random_range(0..4), 0),
                10..=14 => (0, chance.random_range(1..=4)),
                _ => (0, chance.random_range(5..=80)),
            }
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }
}
