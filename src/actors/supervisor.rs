//! The supervisor: starts every actor, and starts one again when it ends.
//!
//! One-for-one, each child on its own. A child that ended while it ran is started again at once; one that failed to
//! start, or ended right after, waits a little longer each time. A failing start counts as a restart. Past the restart
//! intensity the supervisor gives up and says why: what comes back again and again is better started anew as a process.
//!
//! Owns: the children's generations, the reasons of their ends, the intensity. Does not own: what a child does, or its
//! messages (its mailbox outlives it).

use crate::actors::faults::{Faults, SUPERVISOR};
use crate::actors::mailbox::{Envelope, Mailbox, MailboxGauge, MailboxStats};
use crate::actors::reply::Reply;
use crate::actors::restarts::{Intensity, Restarts};
use crate::actors::threads::Threads;
use crate::actors::timers;
use crate::actors::trail::traces::Traces;
use crate::actors::trail::work::Work;
use crate::actors::trail::{self, TraceContext};
use crate::actors::watched::{Own, Pulse, Trailed, Watched};
use crate::storage::progress::Work as OnThread;
use crate::storage::time::Time;
use parking_lot::Mutex;
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorStatus, Message, SpawnErr, SupervisionEvent,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Ends that are remembered with their reasons.
const REMEMBERED_ENDS: usize = 100;
/// Most characters of a reason that are remembered: a panic may say anything.
const REASON_CHARS: usize = 500;
/// Time between two looks whether all children make progress.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

type Starting = Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>>;

/// How a child is started, any number of times.
pub struct ChildSpec {
    /// Its name, for people.
    pub name: String,
    pulse: Arc<Pulse>,
    gauge: MailboxGauge,
    /// Its ends, under this supervisor and those before: one that ends again and again may take its supervisor with it.
    restarts: Mutex<Restarts>,
    start: Box<dyn Fn(ActorCell, Arc<Faults>) -> Starting + Send + Sync>,
}

impl ChildSpec {
    /// A child that `make` makes anew for each generation, and that `mailbox` is to deliver to.
    pub fn new<A, M>(name: impl Into<String>, mailbox: Mailbox<M>, make: impl Fn() -> A + Send + Sync + 'static) -> Self
    where
        A: Actor<Msg = Envelope<M>, Arguments = ()>,
        M: Message + Trailed,
    {
        let name = name.into();
        let (pulse, known_as): (Arc<Pulse>, Arc<str>) = (Arc::default(), name.as_str().into());
        // The task of the generation before; held by whoever starts one.
        let before: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>> = Arc::default();
        Self {
            name,
            pulse: Arc::clone(&pulse),
            gauge: mailbox.gauge(),
            restarts: Mutex::default(),
            start: Box::new(move |supervisor, faults| {
                let (mailbox, before) = (mailbox.clone(), Arc::clone(&before));
                let actor = Watched {
                    inner: make(),
                    name: Arc::clone(&known_as),
                    faults,
                    pulse: Arc::clone(&pulse),
                };
                Box::pin(async move {
                    // A supervisor that comes back finds children of the one before at their last await, or at their start:
                    // of two generations the later one begins when the other has wholly ended.
                    let mut before = before.lock().await;
                    if let Some(task) = before.take() {
                        // How it ended is told elsewhere.
                        let _ = task.await;
                    }
                    // Without a name in ractor's registry, which is global to the process: nodes may share one.
                    let (actor, task) = Actor::spawn_linked(None, actor, (), supervisor).await?;
                    *before = Some(task);
                    mailbox.publish(actor.clone());
                    Ok(actor.get_cell())
                })
            }),
        }
    }
}

/// What a child is and was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// How often it was started; 0 of one whose start has only failed so far.
    pub generation: u64,
    /// Whether it runs now.
    pub running: bool,
    /// For how long it has been at one message, or at its start, when that is longer than it may be.
    pub stuck: Option<Duration>,
}

impl ChildStatus {
    /// How often it was started again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.generation.saturating_sub(1)
    }
}

/// An end of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildEnd {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: u64,
    /// Why.
    pub reason: String,
}

/// What all generations of the supervisor share with those who look at it.
#[derive(Debug)]
pub struct Tree {
    time: Arc<dyn Time>,
    changed: watch::Sender<()>,
    children: Mutex<Vec<ChildStatus>>,
    ends: Mutex<VecDeque<ChildEnd>>,
    cells: Mutex<HashMap<String, ActorCell>>,
    /// All generations of an actor have the same.
    pulses: Mutex<Vec<(String, Arc<Pulse>)>>,
    /// Of the actors that others send to.
    mailboxes: Mutex<Vec<(String, MailboxGauge)>>,
    supervisor_restarts: AtomicU64,
    /// Those that ended and are not back yet.
    fallen: Mutex<HashMap<String, Fallen>>,
    /// Those that make no progress, and for how long.
    stuck: Mutex<BTreeMap<String, Duration>>,
    /// The work on threads, with the time of its last step, as of the last looks.
    works: Mutex<BTreeMap<u64, Step>>,
    /// Why those were killed of whose end nobody was told yet.
    condemned: Mutex<HashMap<String, String>>,
    traces: OnceLock<Arc<Traces>>,
}

/// Work on a thread, as it was when it was seen to have taken a step.
#[derive(Debug)]
struct Step {
    work: OnThread,
    at: Instant,
    /// That is too long ago.
    is_late: bool,
}

/// A child that ended and is not back yet.
#[derive(Debug)]
struct Fallen {
    at: Instant,
    reason: String,
    /// The request at which it ended, if it was one.
    at_request: Option<TraceContext>,
}

impl Tree {
    /// No children yet. `time` dates their ends.
    #[must_use]
    pub fn new(time: Arc<dyn Time>) -> Arc<Self> {
        Arc::new(Self {
            time,
            changed: watch::Sender::default(),
            children: Mutex::default(),
            ends: Mutex::default(),
            cells: Mutex::default(),
            pulses: Mutex::default(),
            mailboxes: Mutex::default(),
            supervisor_restarts: AtomicU64::new(0),
            fallen: Mutex::default(),
            stuck: Mutex::default(),
            works: Mutex::default(),
            condemned: Mutex::default(),
            traces: OnceLock::new(),
        })
    }

    /// Tells of restarts there from now on.
    pub fn trace_to(&self, traces: Arc<Traces>) {
        // A tree is of one node.
        let _ = self.traces.set(traces);
    }

    /// All children, in the order in which they were started first; also those that never were, since their start failed.
    #[must_use]
    pub fn children(&self) -> Vec<ChildStatus> {
        let mut children = self.children.lock().clone();
        let stuck = self.stuck.lock();
        for child in &mut children {
            child.stuck = stuck.get(&child.name).copied();
        }
        children
    }

    /// Who makes no progress, and for how long: the supervisor may be among them, and one that never started.
    #[must_use]
    pub fn stuck(&self) -> Vec<(String, Duration)> {
        let stuck = self.stuck.lock();
        stuck.iter().map(|(name, busy)| (name.clone(), *busy)).collect()
    }

    /// Whether a child was started at some time.
    fn knows(&self, name: &str) -> bool {
        let children = self.children.lock();
        children.iter().any(|child| child.name == name && child.generation > 0)
    }

    /// The pulse of each actor.
    #[must_use]
    pub fn pulses(&self) -> Vec<(String, Arc<Pulse>)> {
        self.pulses.lock().clone()
    }

    /// What the mailbox of each actor holds that others send to.
    #[must_use]
    pub fn mailboxes(&self) -> Vec<(String, MailboxStats)> {
        let mailboxes = self.mailboxes.lock();
        let held = |(name, gauge): &(String, MailboxGauge)| (name.clone(), gauge.stats());
        mailboxes.iter().map(held).collect()
    }

    /// The pulse of the actor of this name, for one more generation of it.
    pub(crate) fn pulse(&self, name: &str) -> Arc<Pulse> {
        self.pulses_with(name, Arc::default)
    }

    fn pulses_with(&self, name: &str, make: impl FnOnce() -> Arc<Pulse>) -> Arc<Pulse> {
        let mut pulses = self.pulses.lock();
        if let Some((_, pulse)) = pulses.iter().find(|(known, _)| known == name) {
            return Arc::clone(pulse);
        }
        let pulse = make();
        pulses.push((name.to_owned(), Arc::clone(&pulse)));
        pulse
    }

    /// How often the supervisor itself was started again.
    #[must_use]
    pub fn supervisor_restarts(&self) -> u64 {
        self.supervisor_restarts.load(Ordering::Relaxed)
    }

    /// The last ends of children, the latest last.
    #[must_use]
    pub fn ends(&self) -> Vec<ChildEnd> {
        self.ends.lock().iter().cloned().collect()
    }

    /// Kills a child as it stands, in the middle of what it does at its next await. Says whether there was one to kill.
    pub fn kill(&self, name: &str) -> bool {
        let cell = self.cells.lock().get(name).cloned();
        cell.is_some_and(|cell| {
            let alive = cell.get_status() < ActorStatus::Stopping;
            cell.kill();
            alive
        })
    }

    /// Makes the supervisor known, so that it can be killed as well.
    fn adopt(&self, supervisor: ActorCell) {
        self.cells.lock().insert(SUPERVISOR.to_owned(), supervisor);
    }

    /// Notes for how long an actor has been at one message, or at its start, when that is longer than `most`, and kills it
    /// then, once. One that blocks its thread ends when that goes on; one whose start hangs is only told of.
    pub(crate) fn judge(&self, name: &str, busy: Duration, most: Duration) {
        if busy <= most {
            self.stuck.lock().remove(name);
            return;
        }
        if self.stuck.lock().insert(name.to_owned(), busy).is_some() {
            return;
        }
        tracing::error!(actor = name, ?busy, "an actor makes no progress; killing it");
        let reason = format!("it makes no progress: killed after {busy:.1?} at one message");
        // Before it is killed: its end is told by others.
        self.condemned.lock().insert(name.to_owned(), reason);
        if !self.kill(name) {
            self.condemned.lock().remove(name);
        }
    }

    /// Notes which work on threads took no step for longer than `most`. No thread can be ended from outside, and a successor would
    /// meet the same disk: it is only told of.
    fn note_steps(&self, works: Vec<OnThread>, most: Duration) {
        let (now, mut before) = (Instant::now(), self.works.lock());
        let noted = |work: OnThread| {
            let known = before.remove(&work.number).filter(|step| step.work == work);
            let mut step = known.unwrap_or(Step {
                work,
                at: now,
                is_late: false,
            });
            let still = now.duration_since(step.at);
            if still > most && !step.is_late {
                step.is_late = true;
                tracing::error!(work = work.name, ?still, "the work of a thread stands still");
            }
            (work.number, step)
        };
        *before = works.into_iter().map(noted).collect();
    }

    /// Which work on threads stands still, and for how long.
    #[must_use]
    pub fn still(&self) -> Vec<(&'static str, Duration)> {
        let works = self.works.lock();
        let late = works.values().filter(|step| step.is_late);
        late.map(|step| (step.work.name, step.at.elapsed())).collect()
    }

    /// Why an actor ended of which it is told that it did for `reason`: of one that was killed, that is not why.
    pub(crate) fn reason_of(&self, name: &str, reason: String) -> String {
        self.condemned.lock().remove(name).unwrap_or(reason)
    }

    /// Tells of every start and end of a child.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn started(&self, name: &str, cell: &ActorCell) -> u64 {
        self.cells.lock().insert(name.to_owned(), cell.clone());
        self.ended_with_their_parent(|child| child == name);
        let generation = self.count_start(name);
        self.trace_restart(name, generation);
        self.changed.send_replace(());
        generation
    }

    fn trace_restart(&self, name: &str, generation: u64) {
        let fallen = self.fallen.lock().remove(name);
        if let (Some(fallen), Some(traces)) = (fallen, self.traces.get()) {
            let restart = Work::begin("restart", Some(fallen.at), fallen.at_request)
                .with("pairdb.actor", name.to_owned())
                .with("pairdb.actor.generation", generation)
                .with("pairdb.actor.reason", fallen.reason);
            traces.work(restart.end(None));
        }
    }

    /// Takes note that a child ended, for when it is back. Of several ends before that the first counts. Returns the request at
    /// which it did, if it was one.
    fn note_fall(&self, name: &str, reason: &str) -> Option<TraceContext> {
        let pulse = self
            .pulses
            .lock()
            .iter()
            .find(|(of, _)| of == name)
            .map(|(_, pulse)| Arc::clone(pulse));
        let at_request = pulse.and_then(|pulse| pulse.take_fatal());
        let fallen = || Fallen {
            at: Instant::now(),
            reason: shortened(reason),
            at_request,
        };
        self.fallen.lock().entry(name.to_owned()).or_insert_with(fallen);
        at_request
    }

    /// Takes out a child that is wanted no more. Its ends stay.
    pub(super) fn forget(&self, name: &str) {
        self.fallen.lock().remove(name);
        self.stuck.lock().remove(name);
        self.condemned.lock().remove(name);
        self.cells.lock().remove(name);
        self.children.lock().retain(|child| child.name != name);
        self.pulses.lock().retain(|(known, _)| known != name);
        self.changed.send_replace(());
    }

    /// Takes note of the ends of those children that are still said to run: nobody was there to be told of them.
    fn ended_with_their_parent(&self, is_meant: impl Fn(&str) -> bool) {
        let children = self.children().into_iter();
        for child in children.filter(|child| child.running && is_meant(&child.name)) {
            let reason = self.reason_of(&child.name, "its parent ended".to_owned());
            self.ended(&child.name, reason);
        }
    }

    fn count_start(&self, name: &str) -> u64 {
        self.change(name, |child| {
            child.generation += 1;
            child.running = true;
        })
    }

    /// A child whose first start failed is listed from then on: nobody would miss it otherwise.
    fn count_end(&self, name: &str) -> u64 {
        self.change(name, |child| child.running = false)
    }

    /// Changes what is known of a child, be it there or not. Returns its generation.
    fn change(&self, name: &str, change: impl FnOnce(&mut ChildStatus)) -> u64 {
        let mut children = self.children.lock();
        if let Some(child) = children.iter_mut().find(|child| child.name == name) {
            change(child);
            return child.generation;
        }
        let mut child = ChildStatus {
            name: name.to_owned(),
            generation: 0,
            running: false,
            stuck: None,
        };
        change(&mut child);
        let generation = child.generation;
        children.push(child);
        generation
    }

    /// Takes note that a child ended, or did not start. Returns the request at which it did, if it was one.
    pub(super) fn ended(&self, name: &str, reason: String) -> Option<TraceContext> {
        let generation = self.count_end(name);
        let at_request = self.note_fall(name, &reason);
        self.remember(name, generation, &reason);
        self.changed.send_replace(());
        at_request
    }

    /// Takes note of an end of the supervisor itself, which is started again.
    pub(crate) fn supervisor_ended(&self, generation: u64, reason: &str) {
        self.supervisor_restarts.fetch_add(1, Ordering::Relaxed);
        self.remember(SUPERVISOR, generation, reason);
    }

    fn remember(&self, name: &str, generation: u64, reason: &str) {
        let mut ends = self.ends.lock();
        if ends.len() == REMEMBERED_ENDS {
            ends.pop_front();
        }
        ends.push_back(ChildEnd {
            at_ms: self.time.now_ms(),
            name: name.to_owned(),
            generation,
            reason: shortened(reason),
        });
    }
}

/// A reason, as far as it is remembered.
fn shortened(reason: &str) -> String {
    reason.chars().take(REASON_CHARS).collect()
}

/// The child that ended, and why, if that is what an event tells.
#[must_use]
pub fn end_told_by(event: SupervisionEvent) -> Option<(ActorCell, String)> {
    match event {
        SupervisionEvent::ActorTerminated(cell, _state, reason) => {
            Some((cell, reason.unwrap_or_else(|| "it stopped".to_owned())))
        }
        SupervisionEvent::ActorFailed(cell, error) => Some((cell, error.to_string())),
        _ => None,
    }
}

/// What the supervisor is told.
pub enum SupervisorMessage {
    /// A start was tried.
    Started(usize, Result<ActorCell, SpawnErr>),
    /// The pause before a start is over.
    Start(usize),
    /// Time to look whether all make progress.
    Look,
    /// Ends of children are wanted from now on. Answers when no start is under way.
    StopRestarting(Reply<()>),
}

/// The actor.
pub struct Supervisor {
    /// The children, in the order of their start.
    pub specs: Arc<Vec<ChildSpec>>,
    /// How often they may end.
    pub intensity: Intensity,
    /// Longest time that a child may be at one message; then it is killed, and started again.
    pub stuck_after: Duration,
    /// What is injected into the children.
    pub faults: Arc<Faults>,
    /// Those that do what would hold up the children: they are told of when they stand still.
    pub threads: Threads,
    /// What others see.
    pub tree: Arc<Tree>,
    /// Where it says why it gave up.
    pub gave_up: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct Child {
    cell: Option<ActorCell>,
    /// A start, or the pause before one, is under way.
    starting: bool,
    started_at: Option<Instant>,
}

/// What it knows.
pub struct SupervisorState {
    children: Vec<Child>,
    /// Ends that were reported before the start was.
    early_ends: HashMap<ActorId, String>,
    /// Children that have started once, under this supervisor or one before. At first one starts after the other, so that
    /// nobody is there before those whom he sends to; later none waits for another, whose start may wait for the disk.
    introduced: usize,
    stopping: bool,
    quiet: Vec<Reply<()>>,
}

impl Actor for Supervisor {
    type Msg = Own<SupervisorMessage>;
    type State = SupervisorState;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<SupervisorState, ActorProcessingErr> {
        self.tree.adopt(myself.get_cell());
        for spec in self.specs.iter() {
            self.tree.pulses_with(&spec.name, || Arc::clone(&spec.pulse));
        }
        let mailbox = |spec: &ChildSpec| (spec.name.clone(), spec.gauge.clone());
        *self.tree.mailboxes.lock() = self.specs.iter().map(mailbox).collect();
        timers::every(&myself, LOOK_EVERY, || SupervisorMessage::Look.into());
        Ok(SupervisorState {
            children: self.specs.iter().map(|_| Child::default()).collect(),
            early_ends: HashMap::new(),
            introduced: 0,
            stopping: false,
            quiet: Vec::new(),
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        state.introduced = self.specs.iter().take_while(|spec| self.tree.knows(&spec.name)).count();
        self.tree.ended_with_their_parent(|_| true);
        for index in 0..=state.introduced {
            self.start(&myself, index, state);
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message.message {
            SupervisorMessage::Start(index) => self.start(&myself, index, state),
            SupervisorMessage::Started(index, result) => self.started(&myself, index, result, state),
            SupervisorMessage::Look => self.look(),
            SupervisorMessage::StopRestarting(reply) => {
                state.stopping = true;
                state.quiet.push(reply);
            }
        }
        if state.stopping && !state.children.iter().any(|child| child.starting) {
            for reply in state.quiet.drain(..) {
                reply.send(Ok(()));
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let Some((cell, reason)) = end_told_by(event) else {
            return Ok(());
        };
        let known = |child: &Child| child.cell.as_ref().is_some_and(|c| c.get_id() == cell.get_id());
        match state.children.iter().position(known) {
            Some(index) => self.ended(&myself, index, reason, state),
            None => {
                state.early_ends.insert(cell.get_id(), reason);
            }
        }
        Ok(())
    }
}

impl Supervisor {
    fn name(&self, index: usize) -> &str {
        self.specs.get(index).map_or("", |spec| &spec.name)
    }

    /// Starts a child off this mailbox: a start that takes its time keeps no other child waiting.
    fn start(&self, myself: &ActorRef<Own<SupervisorMessage>>, index: usize, state: &mut SupervisorState) {
        let Some((spec, child)) = self.specs.get(index).zip(state.children.get_mut(index)) else {
            return;
        };
        if state.stopping {
            child.starting = false;
            return;
        }
        child.starting = true;
        let starting = (spec.start)(myself.get_cell(), Arc::clone(&self.faults));
        let myself = myself.clone();
        tokio::spawn(async move {
            let _ = myself.send_message(SupervisorMessage::Started(index, starting.await).into());
        });
    }

    /// Kills children that have been at one message for too long, and tells of threads that stand still.
    fn look(&self) {
        self.tree.note_steps(self.threads.under_way().works(), self.stuck_after);
        for spec in self.specs.iter() {
            self.tree.judge(&spec.name, spec.pulse.busy(), self.stuck_after);
        }
    }

    fn started(
        &self,
        myself: &ActorRef<Own<SupervisorMessage>>,
        index: usize,
        result: Result<ActorCell, SpawnErr>,
        state: &mut SupervisorState,
    ) {
        let name = self.name(index);
        let Some(child) = state.children.get_mut(index) else {
            return;
        };
        child.starting = false;
        child.started_at = Some(Instant::now());
        match result {
            Ok(cell) => {
                let generation = self.tree.started(name, &cell);
                tracing::debug!(actor = name, generation, "started");
                let early = state.early_ends.remove(&cell.get_id());
                child.cell = Some(cell);
                if index == state.introduced {
                    state.introduced += 1;
                    self.start(myself, state.introduced, state);
                }
                if let Some(reason) = early {
                    self.ended(myself, index, reason, state);
                }
            }
            Err(error) => self.ended(myself, index, format!("it did not start: {error}"), state),
        }
    }

    fn ended(
        &self,
        myself: &ActorRef<Own<SupervisorMessage>>,
        index: usize,
        reason: String,
        state: &mut SupervisorState,
    ) {
        let Some((spec, child)) = self.specs.get(index).zip(state.children.get_mut(index)) else {
            return;
        };
        let name = &spec.name;
        child.cell = None;
        let reason = self.tree.reason_of(name, reason);
        let at_request = self.tree.ended(name, reason.clone());
        if state.stopping {
            return;
        }
        let lived = child.started_at.map(|at| at.elapsed());
        let pause = match spec.restarts.lock().ended(lived, self.intensity) {
            Ok(pause) => pause,
            Err(times) => {
                self.gave_up
                    .send_replace(Some(format!("{name} {times}, last: {reason}")));
                return;
            }
        };
        trail::say_at(at_request, || {
            tracing::warn!(actor = name, reason, ?pause, "an actor ended; starting it again");
        });
        if pause.is_zero() {
            self.start(myself, index, state);
        } else {
            child.starting = true;
            timers::after(myself, pause, move || SupervisorMessage::Start(index).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::time::RealTime;

    #[test]
    fn a_child_whose_first_start_fails_is_there_and_does_not_run() {
        let tree = Tree::new(Arc::new(RealTime::default()));
        let shown = |name: &str, generation, running| ChildStatus {
            name: name.to_owned(),
            generation,
            running,
            stuck: None,
        };
        tree.count_start("one");
        for _ in 0..3 {
            tree.ended("other", "it did not start: no disk".to_owned());
            assert_eq!(tree.children(), [shown("one", 1, true), shown("other", 0, false)]);
            // A supervisor that comes back still has to start it before those that send to it.
            assert!(tree.knows("one") && !tree.knows("other"));
        }
        assert_eq!(tree.ends()[2].generation, 0);
        tree.count_start("other");
        assert_eq!(tree.children()[1], shown("other", 1, true));
        assert_eq!(tree.children()[1].restarts(), 0);
        assert!(tree.knows("other"));
    }

    #[test]
    fn the_last_ends_are_remembered_with_their_reasons_and_no_more() {
        let time = Arc::new(RealTime::default());
        let before = time.now_ms();
        let tree = Tree::new(time);
        for n in 0..150 {
            tree.count_start("child");
            tree.ended("child", format!("{n} {}", "ä".repeat(10_000)));
        }
        tree.supervisor_ended(7, "killed");
        let ends = tree.ends();
        assert_eq!(ends.len(), REMEMBERED_ENDS);
        assert_eq!(ends[0].generation, 52);
        assert!(ends[0].reason.starts_with("51 ä"), "{}", ends[0].reason);
        assert!(ends.iter().all(|end| end.reason.chars().count() <= REASON_CHARS));
        assert!(ends.iter().all(|end| (before..before + 60_000).contains(&end.at_ms)));
        let last = ends.last().unwrap();
        assert_eq!((&*last.name, last.generation, &*last.reason), (SUPERVISOR, 7, "killed"));
    }
}
