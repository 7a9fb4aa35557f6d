//! The gossip as a machine that has neither a socket nor a clock: packets and the time go in, packets and changes come out.
//!
//! foca does SWIM: it probes, suspects, declares dead, and spreads what is new. Added to it here:
//! - *Nobody stays alone.* A node that knows nobody alive announces itself to its seeds and to whom it knew, again and again;
//!   one that knows others does so now and then, so that two parts that know nothing of each other meet.
//! - *A partition heals in a few round trips.* Who learns that the cluster took it for dead comes back at once, as a later
//!   life, to the node that said so.
//! - *Whoever is suspected is told so* by the node that suspects it, until one of the two is right: lost packets alone kill
//!   nobody.
//! - *A pause is nobody's death*: see [`super::agenda`].
//! - *A clock that went back locks nobody out*: a node that the cluster knows in a later life is told in which, and comes back
//!   as one that is later still.
//!
//! Owns: membership, and the records of all; `admitting` has which packets are believed, `telling` what is told of health,
//! `reaching` how nodes are found that are not known. Does not own: signatures (see [`super::wire`]).

mod admitting;
mod reaching;
mod telling;

use super::agenda::Agenda;
use super::codec::Codec;
use super::contents::{self, Content, Word};
use super::identity::Identity;
use super::pace::Pace;
use super::record::Report;
use super::records::{Heard, Records, Spread};
use super::seen::{Life, Seen, life};
use super::window::Window;
use super::wire::Refused;
use crate::actors::address_book::NodeAddress;
use compact_str::CompactString;
use foca::{AccumulatingRuntime, Foca, OwnedNotification, State, Timer};
use foca_rand::SeedableRng;
use foca_rand::rngs::SmallRng;
use parking_lot::Mutex;
use rand::Rng;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a node says of itself that does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Where it answers gRPC.
    pub address: NodeAddress,
    /// Of the program.
    pub version: String,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A member is there.
    Up(Identity),
    /// A member is taken for dead, or left.
    Down(Identity),
    /// This node was taken for dead, or was known in a later life, and came back in this one.
    Renewed(Identity),
    /// Another node at this place has the same id.
    Rival(Identity),
}

/// What the next one is to know of a core that ended.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    members: Vec<foca::Member<Identity>>,
    heard: Vec<Heard>,
}

enum Task {
    Foca(Timer<Identity>),
    /// Look beyond those who are known.
    Reach,
    /// Tell a member that it is suspected.
    Accuse(Identity, u16),
}

/// The machine.
pub struct Core {
    foca: Foca<Identity, Codec, SmallRng, Spread>,
    runtime: AccumulatingRuntime<Identity>,
    records: Arc<Mutex<Records>>,
    agenda: Agenda<Task>,
    pace: Pace,
    about: About,
    seeds: Vec<std::net::SocketAddr>,
    windows: HashMap<CompactString, Window>,
    heard_at: HashMap<CompactString, Duration>,
    /// When a member came, or was lost.
    changed_at: Duration,
    /// When a packet of that life was answered last that did not count.
    answered: HashMap<(CompactString, u64), Duration>,
    /// What questions to strangers are made of.
    secret: u64,
    /// Whether foca probes: it knows somebody who lives.
    is_connected: bool,
    has_left: bool,
    /// Packets so far.
    sent: u64,
    /// Records of this life so far.
    told: u64,
    last_told: Option<(Duration, Report)>,
    /// What it heard of itself last, told or not.
    measured: Option<Report>,
    /// Somebody came who has not heard how this node is.
    owes_report: bool,
    /// What it told last was news, and told once.
    told_news: bool,
    rounds: u64,
    members_at_round: usize,
    renewed_at: Option<Duration>,
    now: Duration,
    chance: rand::rngs::SmallRng,
    out: Vec<(std::net::SocketAddr, Vec<u8>)>,
    events: Vec<Event>,
}

impl Core {
    /// A node that knows nobody. It is `now`, by a clock that never goes back; all that is left to chance follows from `seed`.
    #[must_use]
    pub fn new(own: Identity, about: About, pace: Pace, seed: u64, now: Duration) -> Self {
        let records = Records::new(own.node_id.clone(), now);
        let codec = Codec {
            own: own.node_id.clone(),
        };
        let mut chance: rand::rngs::SmallRng = rand::SeedableRng::seed_from_u64(seed);
        let mut agenda = Agenda::new(now, pace.probe_interval);
        agenda.add(Duration::ZERO, Task::Reach);
        Self {
            foca: Foca::with_custom_broadcast(
                own,
                pace.config(0),
                SmallRng::seed_from_u64(seed),
                codec,
                Spread(Arc::clone(&records)),
            ),
            runtime: AccumulatingRuntime::new(),
            records,
            agenda,
            pace,
            about,
            seeds: Vec::new(),
            windows: HashMap::new(),
            heard_at: HashMap::new(),
            changed_at: now,
            answered: HashMap::new(),
            secret: chance.random(),
            is_connected: false,
            has_left: false,
            sent: 0,
            told: 0,
            last_told: None,
            measured: None,
            owes_report: false,
            told_news: false,
            rounds: 0,
            members_at_round: 0,
            renewed_at: None,
            now,
            chance,
            out: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Goes on with what one knew that ended.
    pub fn restore(&mut self, memory: Memory) {
        let own = self.foca.identity().node_id.clone();
        let members = memory.members.into_iter().filter(|member| member.id().node_id != own);
        // A suspicion ended with whoever had it.
        let members = members.map(|member| match member.state() {
            State::Suspect => foca::Member::new(member.id().clone(), member.incarnation(), State::Alive),
            _ => member,
        });
        // What it knew is nothing new to the others.
        let applied = self.foca.apply_many(members, false, &mut self.runtime);
        debug_assert!(applied.is_ok(), "{applied:?}");
        for heard in memory.heard.into_iter().filter(|heard| heard.record.node_id != own) {
            self.records.lock().restore(heard);
        }
        self.settle();
        self.events.clear();
    }

    /// What one that comes after this is to know.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            members: self.foca.iter_membership_state().cloned().collect(),
            heard: self.records.lock().all().cloned().collect(),
        }
    }

    /// Who this node is, in its present life.
    #[must_use]
    pub fn own(&self) -> &Identity {
        self.foca.identity()
    }

    /// Whether no other node is known to live.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.foca.num_members() == 0
    }

    /// Where nodes may be that know others.
    pub fn set_seeds(&mut self, seeds: Vec<std::net::SocketAddr>) {
        self.seeds = seeds;
    }

    /// When there will be something to do without a packet.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.agenda.next_due()
    }

    /// What is to be sent, and where to, since the last question.
    pub fn take_packets(&mut self) -> Vec<(std::net::SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.out)
    }

    /// What changed since the last question.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether something was heard since the last question that somebody may want to see at once.
    pub fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.records.lock().has_news)
    }

    /// All nodes: itself, as it is now, then the others by their ids, as they said last.
    #[must_use]
    pub fn members(&self) -> Vec<Seen> {
        let (own, records) = (self.foca.identity(), self.records.lock());
        let myself = Seen {
            identity: own.clone(),
            life: if self.has_left { Life::Left } else { Life::Alive },
            heard: records
                .get(&own.node_id)
                .map(|told| self.measured.map_or_else(|| told.clone(), |report| told.with(report))),
            heard_at: Some(self.now),
        };
        // Of its own id foca may remember an earlier life.
        let others = self.foca.iter_membership_state();
        let others = others.filter(|member| member.id().node_id != own.node_id);
        let mut all: Vec<_> = others
            .map(|member| {
                let heard = records.get(&member.id().node_id).cloned();
                Seen {
                    life: life(member, heard.as_ref()),
                    heard_at: self
                        .heard_at
                        .get(&member.id().node_id)
                        .copied()
                        .max(heard.as_ref().map(|heard| heard.at)),
                    heard,
                    identity: member.id().clone(),
                }
            })
            .collect();
        all.sort_by(|one, other| one.identity.node_id.cmp(&other.identity.node_id));
        all.insert(0, myself);
        all
    }

    /// It is `now`: does what is due.
    pub fn tick(&mut self, now: Duration) {
        self.advance(now);
        while let Some(task) = self.agenda.take() {
            match task {
                // Who refuted a suspicion is not to hear that it is dead; foca 2.0 would say so.
                Task::Foca(Timer::ChangeSuspectToDown {
                    member_id, incarnation, ..
                }) if !self.suspects(&member_id, incarnation) => {}
                Task::Foca(timer) => {
                    if let Err(error) = self.foca.handle_timer(timer, &mut self.runtime) {
                        tracing::debug!(%error, "gossip: a timer came out of turn");
                    }
                }
                Task::Reach => self.reach(),
                Task::Accuse(member, refutations) => self.accuse(member, refutations),
            }
            self.settle();
        }
    }

    /// Takes a packet.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn receive(&mut self, now: Duration, packet: &[u8]) -> Result<(), Refused> {
        self.advance(now);
        let packet = contents::read(packet).ok_or(Refused::Undecodable)?;
        let own = self.foca.identity();
        // What this node sent to itself, by one of its other addresses among the seeds, says nothing.
        let is_echo = packet.from.node_id == own.node_id && packet.from.address == own.address;
        if self.has_left || is_echo {
            return Ok(());
        }
        if !self.admit(&packet)? {
            return Ok(());
        }
        self.heard_at.insert(packet.from.node_id.clone(), now);
        let word = match packet.content {
            Content::Protocol { message, .. } => {
                let result = self.protocol(&packet.from, message);
                self.settle();
                return result;
            }
            Content::Word { word, .. } => word,
        };
        match word {
            Word::Suspected { of, refutations } => self.suspected(&packet.from, &of, refutations),
            Word::Superseded { by } => self.superseded(&packet.from, &by),
            Word::News(record) => self.pass_on(record),
            Word::AreYouThere { question } => {
                if self.may_answer(&packet.from) {
                    self.say(&packet.from, Word::Here { question });
                }
            }
            Word::Here { .. } => self.is_there(&packet.from),
        }
        self.settle();
        Ok(())
    }

    /// This node is somewhere else from now on.
    pub fn move_to(&mut self, now: Duration, address: std::net::SocketAddr) {
        self.advance(now);
        let own = self.foca.identity();
        if own.address != address {
            self.renew(Identity::new(
                own.node_id.clone(),
                address,
                own.incarnation.saturating_add(1),
            ));
        }
    }

    /// Leaves: the others know at once, and need not find out.
    pub fn leave(&mut self, now: Duration) {
        self.advance(now);
        if let Some((_, report)) = self.last_told {
            let is_leaving = true;
            self.tell(Report { is_leaving, ..report }, true);
        }
        let left = self.foca.leave_cluster(&mut self.runtime);
        // Once more, to others: a packet may get lost.
        let again = left.and_then(|()| self.foca.gossip(&mut self.runtime));
        debug_assert!(again.is_ok(), "{again:?}");
        self.settle();
        self.has_left = true;
    }

    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.agenda.advance(self.now);
        self.records.lock().now = self.now;
    }

    fn known(&self, node_id: &str) -> Option<&foca::Member<Identity>> {
        self.foca
            .iter_membership_state()
            .find(|member| member.id().node_id == node_id)
    }

    fn protocol(&mut self, from: &Identity, message: &[u8]) -> Result<(), Refused> {
        let before = self.foca.identity().incarnation;
        let result = self.foca.handle_data(message, &mut self.runtime);
        self.settle();
        if self.foca.identity().incarnation != before {
            // Whoever took this node for dead is the first to know better.
            self.announce(from.clone());
        }
        result.map_err(|error| {
            tracing::debug!(%error, from = from.node_id.as_str(), "gossip: a packet that cannot be understood");
            Refused::Undecodable
        })
    }

    /// This node is suspected: refutes it, first to whoever suspects it.
    fn suspected(&mut self, by: &Identity, of: &Identity, refutations: u16) {
        if of != self.foca.identity() {
            let own = self.foca.identity();
            if own.supersedes(of) && of.node_id == own.node_id && self.may_answer(by) {
                // It does not know this life yet.
                self.announce(by.clone());
            }
            return;
        }
        let suspect = foca::Member::new(of.clone(), refutations, State::Suspect);
        let applied = self.foca.apply_many(std::iter::once(suspect), true, &mut self.runtime);
        debug_assert!(applied.is_ok(), "{applied:?}");
        self.settle();
        self.announce(by.clone());
    }

    fn announce(&mut self, to: Identity) {
        if let Err(error) = self.foca.announce(to, &mut self.runtime) {
            tracing::debug!(%error, "gossip: an announcement cannot be made");
        }
        self.settle();
    }

    /// Whether a member is suspected that has refuted so many suspicions before.
    fn suspects(&self, member: &Identity, refutations: u16) -> bool {
        self.known(&member.node_id).is_some_and(|known| {
            known.id() == member && known.incarnation() == refutations && known.state() == State::Suspect
        })
    }

    /// Tells a member that it is suspected, as long as it is.
    fn accuse(&mut self, member: Identity, refutations: u16) {
        if self.suspects(&member, refutations) {
            let of = member.clone();
            self.say(&member, Word::Suspected { of, refutations });
            self.agenda
                .add(self.pace.probe_interval, Task::Accuse(member, refutations));
        }
    }

    fn say(&mut self, to: &Identity, word: Word) {
        self.sent += 1;
        match contents::word(self.sent, self.foca.identity().clone(), to, word) {
            Ok(packet) => self.out.push((to.address, packet)),
            Err(error) => tracing::debug!(%error, "gossip: a word cannot be said"),
        }
    }

    /// Carries out what foca wants done.
    fn settle(&mut self) {
        while let Some((to, message)) = self.runtime.to_send() {
            self.sent += 1;
            self.out.push((to.address, contents::protocol(self.sent, &message)));
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            if let Timer::ChangeSuspectToDown {
                member_id, incarnation, ..
            } = &timer
            {
                self.agenda
                    .add(Duration::ZERO, Task::Accuse(member_id.clone(), *incarnation));
            }
            self.agenda.add(after, Task::Foca(timer));
        }
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(member) => {
                    self.changed_at = self.now;
                    self.owes_report = true;
                    self.events.push(Event::Up(member));
                }
                OwnedNotification::MemberDown(member) => {
                    self.changed_at = self.now;
                    self.events.push(Event::Down(member));
                }
                OwnedNotification::Rename(_, _) => self.owes_report = true,
                OwnedNotification::Active => self.is_connected = true,
                OwnedNotification::Idle | OwnedNotification::Defunct => self.is_connected = false,
                OwnedNotification::Rejoin(_) => {
                    self.come_back();
                    self.settle();
                }
            }
        }
    }
}
