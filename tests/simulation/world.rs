//! What the clients did and saw, all of it in one order, and whether one node can have answered so.
//!
//! Keys `r0`, `r1` … are written without clocks: each is a register, and its history must be linearizable. Keys `c0` … are
//! written with clocks: whatever was acknowledged, or seen, must be covered by what is read from then on.

use crate::machine::NODE;
use pairdb_node::actors::refusal::Refusal;
use pairdb_node::actors::write::WriteOutcome;
use pairdb_node::cli::history::{ABSENT, Act, Event, Moment, check};
use pairdb_node::storage::clock::{Causality, VectorClock};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::version::{Value, Versions};
use std::collections::BTreeMap;

/// A deletion is known by its number in the log, and this tells it from what was written.
const DELETION: u64 = 1 << 63;

/// What a write is to do.
#[derive(Debug, Clone)]
pub enum Intent {
    Put(u64),
    Delete,
    /// With a clock; nothing: a deletion.
    Clocked(VectorClock, Option<u64>),
}

/// A write that is not answered.
#[derive(Debug, Clone)]
pub struct Open {
    pub key: Key,
    pub intent: Intent,
    /// The name by which it may be sent again.
    pub name: Option<String>,
    begun: Moment,
}

/// Where a read began.
#[derive(Debug, Clone)]
pub struct Reading {
    key: Key,
    begun: Moment,
    covered: usize,
}

#[derive(Debug, Default)]
struct Register {
    events: Vec<Event>,
    /// When deletions began of which nobody knows what became.
    lost_deletions: Vec<Moment>,
}

#[derive(Debug, Default)]
struct Clocked {
    /// What was written, or may have been.
    attempts: Vec<(VectorClock, Option<u64>)>,
    /// What was acknowledged or seen.
    covered: Vec<VectorClock>,
}

#[derive(Debug, Default)]
pub struct World {
    pub trace: Vec<String>,
    pub violation: Option<String>,
    /// Nobody hears the node any more.
    pub is_dead: bool,
    /// Named writes that a crash left unanswered.
    pub unfinished: Vec<Open>,
    now: Moment,
    last_call: u64,
    last_value: u64,
    open: BTreeMap<u64, Open>,
    registers: BTreeMap<Key, Register>,
    clocked: BTreeMap<Key, Clocked>,
    /// Answers by what they were.
    pub counts: BTreeMap<&'static str, u64>,
}

/// The value that these bytes begin with.
fn number_of(value: &Value) -> Option<u64> {
    let bytes = value.live()?;
    Some(u64::from_be_bytes(bytes[..8].try_into().expect("8 bytes")))
}

fn own_counter(clock: &VectorClock) -> u64 {
    let own = clock.entries().iter().find(|entry| entry.id == NODE);
    own.map_or(0, |entry| entry.counter)
}

/// A line without the numbers that the runtime gives to tasks: it counts them for the whole process.
fn without_task_numbers(line: &str) -> String {
    let mut parts = line.split("task ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| {
        line + "task " + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

/// Whether a refusal says that nothing was written.
fn is_definite(refusal: &Refusal) -> bool {
    !matches!(
        refusal,
        Refusal::Restarting(_) | Refusal::TimedOut(_) | Refusal::Internal(_) | Refusal::Latched(_)
    )
}

impl World {
    pub fn note(&mut self, line: &str) {
        self.trace.push(without_task_numbers(line));
    }

    pub fn violate(&mut self, what: String) {
        self.trace.push(format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    pub fn new_value(&mut self) -> u64 {
        self.last_value += 1;
        self.last_value
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn begin_write(&mut self, key: &Key, intent: Intent, name: Option<String>) -> u64 {
        let begun = self.moment();
        if let Intent::Clocked(clock, value) = &intent {
            let known = self.clocked.entry(key.clone()).or_default();
            known.attempts.push((clock.clone(), *value));
        }
        self.reopen(Open {
            key: key.clone(),
            intent,
            name,
            begun,
        })
    }

    /// Begins a write again that was begun before.
    pub fn reopen(&mut self, open: Open) -> u64 {
        self.last_call += 1;
        self.open.insert(self.last_call, open);
        self.last_call
    }

    /// Takes an answer. One after which nobody knows what became of the write may leave it open.
    pub fn end_write(&mut self, call: u64, answer: &Result<WriteOutcome, Refusal>, goes_on: bool) {
        let ended = self.moment();
        match answer {
            Ok(outcome) => {
                self.count("written");
                let Some(open) = self.open.remove(&call) else { return };
                self.written(open, outcome, ended);
            }
            Err(refusal) if is_definite(refusal) => {
                self.count("refused");
                if let Some(open) = self.open.remove(&call)
                    && let (Intent::Clocked(clock, _), Some(known)) = (&open.intent, self.clocked.get_mut(&open.key))
                {
                    known.attempts.retain(|(attempt, _)| attempt != clock);
                }
            }
            Err(_) => {
                self.count("unknown");
                if !goes_on && let Some(open) = self.open.remove(&call) {
                    self.lost(open);
                }
            }
        }
    }

    fn written(&mut self, open: Open, outcome: &WriteOutcome, ended: Moment) {
        let act = match open.intent {
            Intent::Put(value) => Act::Wrote(value),
            Intent::Delete => Act::Wrote(DELETION | own_counter(&outcome.clock)),
            Intent::Clocked(clock, _) => {
                self.clocked.entry(open.key).or_default().covered.push(clock);
                return;
            }
        };
        let begun = open.begun;
        let register = self.registers.entry(open.key).or_default();
        register.events.push(Event { act, begun, ended });
    }

    fn lost(&mut self, open: Open) {
        let register = self.registers.entry(open.key.clone()).or_default();
        match open.intent {
            Intent::Put(value) => register.events.push(Event {
                act: Act::Tried(value),
                begun: open.begun,
                ended: open.begun,
            }),
            Intent::Delete => register.lost_deletions.push(open.begun),
            Intent::Clocked(..) => {}
        }
    }

    pub fn begin_read(&mut self, key: &Key) -> Reading {
        Reading {
            key: key.clone(),
            begun: self.moment(),
            covered: self.clocked.get(key).map_or(0, |known| known.covered.len()),
        }
    }

    pub fn end_read(&mut self, reading: &Reading, versions: &Versions) {
        self.count("read");
        let ended = self.moment();
        if reading.key.key().starts_with('c') {
            return self.judge_clocked(reading, versions);
        }
        if versions.all().len() > 1 {
            self.violate(format!("{} has siblings: {versions:?}", reading.key.as_str()));
        }
        let value = versions.winner().map_or(ABSENT, |winner| {
            number_of(&winner.value).unwrap_or(DELETION | own_counter(&winner.clock))
        });
        let register = self.registers.entry(reading.key.clone()).or_default();
        register.events.push(Event {
            act: Act::Read(value),
            begun: reading.begun,
            ended,
        });
    }

    fn judge_clocked(&mut self, reading: &Reading, versions: &Versions) {
        let known = self.clocked.entry(reading.key.clone()).or_default();
        let mut wrong = Vec::new();
        let is_covered = |clock: &VectorClock| {
            let covers = |seen: &VectorClock| matches!(seen.compare(clock), Causality::Equal | Causality::After);
            versions.all().iter().any(|version| covers(&version.clock))
        };
        for clock in known.covered.iter().take(reading.covered) {
            if !is_covered(clock) {
                wrong.push(format!("{clock:?} is lost"));
            }
        }
        for version in versions.all() {
            let written = (version.clock.clone(), number_of(&version.value));
            if !known.attempts.contains(&written) {
                wrong.push(format!("nobody wrote {written:?}"));
            }
            let mut covered = known.covered.iter().take(reading.covered);
            if covered.any(|clock| clock.compare(&version.clock) == Causality::After) {
                wrong.push(format!("{version:?} was replaced"));
            }
        }
        for version in versions.all() {
            if !known.covered.contains(&version.clock) {
                known.covered.push(version.clock.clone());
            }
        }
        for what in wrong {
            self.violate(format!("{}: {what}; it has {versions:?}", reading.key.as_str()));
        }
    }

    /// The node is gone, and with it all answers.
    pub fn crash(&mut self) {
        self.is_dead = false;
        for open in std::mem::take(&mut self.unfinished) {
            self.lost(open);
        }
        for (_, open) in std::mem::take(&mut self.open) {
            if open.name.is_some() {
                self.unfinished.push(open);
            } else {
                self.lost(open);
            }
        }
    }

    /// Gives up what a crash left to be sent again.
    pub fn give_up_unfinished(&mut self) {
        for open in std::mem::take(&mut self.unfinished) {
            self.lost(open);
        }
    }

    /// Judges all registers.
    pub fn judge(&mut self) {
        let mut wrong = Vec::new();
        for (key, register) in &self.registers {
            let mut events = register.events.clone();
            // Those that are still open, too, may have happened.
            let open = self
                .open
                .values()
                .chain(&self.unfinished)
                .filter(|open| open.key == *key);
            let mut lost_deletions = register.lost_deletions.clone();
            for open in open {
                match open.intent {
                    Intent::Put(value) => events.push(Event {
                        act: Act::Tried(value),
                        begun: open.begun,
                        ended: open.begun,
                    }),
                    Intent::Delete => lost_deletions.push(open.begun),
                    Intent::Clocked(..) => {}
                }
            }
            if let Some(begun) = lost_deletions.into_iter().min() {
                events.extend(seen_unwritten(&register.events).into_iter().map(|value| Event {
                    act: Act::Tried(value),
                    begun,
                    ended: begun,
                }));
            }
            if let Err(violation) = check(&events) {
                wrong.push(format!("{}: {violation}", key.as_str()));
            }
        }
        for what in wrong {
            self.violate(what);
        }
    }
}

/// Deletions that were seen, and that nobody was told of.
fn seen_unwritten(events: &[Event]) -> Vec<u64> {
    let written: Vec<u64> = events
        .iter()
        .filter_map(|event| match event.act {
            Act::Wrote(value) => Some(value),
            _ => None,
        })
        .collect();
    let mut seen: Vec<u64> = events
        .iter()
        .filter_map(|event| match event.act {
            Act::Read(value) if value & DELETION != 0 && !written.contains(&value) => Some(value),
            _ => None,
        })
        .collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}
