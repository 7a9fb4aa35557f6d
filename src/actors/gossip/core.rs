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
//! Owns: membership, the records of all, which packets are believed. Does not own: signatures (see [`super::wire`]).

use super::agenda::Agenda;
use super::codec::Codec;
use super::contents::{self, Content, Word};
use super::identity::Identity;
use super::pace::{FAN_OUT, Pace};
use super::record::{Record, Report};
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
use rand::seq::IteratorRandom;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Probe intervals between two rounds in which a node looks beyond those that it knows …
const REACHING: u32 = 2;
/// … and rounds between two calls at a seed, for one that is not alone.
const ROUNDS_A_SEED: u64 = 8;
/// Seeds, and members known before, that a node calls at in a round while it is alone.
const CALLS: usize = 16;
/// How long something is remembered of a node that is no member: its record may come before it does.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// Shortest time between two pieces of news of this node.
const BETWEEN_NEWS: Duration = Duration::from_millis(250);
/// Members to whom a node gives news on when it hears them first: that reaches all but one of 400, and so does the second time.
const PUSHES: usize = 6;
/// Longest time after which news are told once more, for those whom they did not reach.
const AGAIN: Duration = Duration::from_secs(2);
/// Time within which two renewals for the same cause are no chance.
const TWICE: Duration = Duration::from_secs(60);

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
    /// Whether foca probes: it knows somebody who lives.
    is_connected: bool,
    has_left: bool,
    /// Packets so far.
    sent: u64,
    /// Records of this life so far.
    told: u64,
    last_told: Option<(Duration, Report)>,
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
            is_connected: false,
            has_left: false,
            sent: 0,
            told: 0,
            last_told: None,
            owes_report: false,
            told_news: false,
            rounds: 0,
            members_at_round: 0,
            renewed_at: None,
            now,
            chance: rand::SeedableRng::seed_from_u64(seed),
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

    /// All nodes: itself, then the others by their ids.
    #[must_use]
    pub fn members(&self) -> Vec<Seen> {
        let (own, records) = (self.foca.identity(), self.records.lock());
        let myself = Seen {
            identity: own.clone(),
            life: if self.has_left { Life::Left } else { Life::Alive },
            heard: records.get(&own.node_id).cloned(),
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
        self.admit(&packet.from, packet.number)?;
        self.heard_at.insert(packet.from.node_id.clone(), now);
        let result = match packet.content {
            Content::Protocol(message) => self.protocol(&packet.from, message),
            Content::Word(Word::Suspected { of, refutations }) => {
                self.suspected(&packet.from, &of, refutations);
                Ok(())
            }
            Content::Word(Word::Superseded { by }) => {
                self.superseded(&packet.from, &by);
                Ok(())
            }
            Content::Word(Word::News(record)) => {
                self.pass_on(record);
                Ok(())
            }
        };
        self.settle();
        result
    }

    /// Takes how the node is now, and spreads it if it is time to.
    pub fn report(&mut self, now: Duration, report: Report) {
        self.advance(now);
        let refresh = self
            .pace
            .round_of_all(self.foca.num_members())
            .max(self.pace.gossip_interval.saturating_mul(2));
        let owed = (refresh / 4).max(self.pace.gossip_interval);
        let Some((at, before)) = self.last_told else {
            return self.tell(report, true);
        };
        let (age, is_news) = (now.saturating_sub(at), report.is_news_after(&before));
        let is_again = self.told_news && age >= self.pace.gossip_interval.min(AGAIN);
        if is_news && age >= BETWEEN_NEWS || is_again || age >= refresh || self.owes_report && age >= owed {
            self.tell(report, is_news || is_again);
            self.told_news = is_news;
        }
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
            self.tell(Report { is_leaving, ..report }, false);
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

    /// Whether the sender of a packet is one to listen to.
    fn admit(&mut self, from: &Identity, number: u64) -> Result<(), Refused> {
        let own = self.foca.identity();
        if !from.is_possible() {
            return Err(Refused::Undecodable);
        }
        if from.node_id == own.node_id {
            if from.supersedes(own) {
                self.events.push(Event::Rival(from.clone()));
            }
            return Err(Refused::OwnId);
        }
        let known = self.known(&from.node_id).map(foca::Member::id);
        if let Some(known) = known.filter(|known| known.supersedes(from)).cloned() {
            self.say(from, Word::Superseded { by: known });
            return Err(Refused::Superseded);
        }
        let windows = &mut self.windows;
        if let Some(window) = windows.get_mut(&from.node_id) {
            return match window.admit(from.incarnation, number) {
                true => Ok(()),
                false => Err(Refused::Replayed),
            };
        }
        windows.insert(from.node_id.clone(), Window::new(from.incarnation, number));
        Ok(())
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
            if self.foca.identity().supersedes(of) && of.node_id == self.foca.identity().node_id {
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

    /// The cluster knows this node's id in a later life, or somebody else by it.
    fn superseded(&mut self, from: &Identity, by: &Identity) {
        let own = self.foca.identity().clone();
        // Two nodes of one id would drive each other on.
        let is_early = self
            .renewed_at
            .is_some_and(|at| self.now.saturating_sub(at) < self.pace.probe_interval);
        let Some(incarnation) = by.incarnation.checked_add(1) else {
            return;
        };
        if by.node_id != own.node_id || !by.supersedes(&own) || is_early {
            return;
        }
        let is_again = self.renewed_at.is_some_and(|at| self.now.saturating_sub(at) < TWICE);
        if is_again && by.address != own.address {
            self.events.push(Event::Rival(by.clone()));
        }
        self.renewed_at = Some(self.now);
        self.renew(Identity::new(own.node_id, own.address, incarnation));
        self.announce(from.clone());
    }

    fn renew(&mut self, identity: Identity) {
        let changed = self.foca.change_identity(identity, &mut self.runtime);
        debug_assert!(changed.is_ok(), "{changed:?}");
        self.come_back();
        self.settle();
    }

    /// After a change of identity: foca waits for a packet before it goes on, and the record of the life before is old.
    fn come_back(&mut self) {
        self.is_connected = false;
        self.events.push(Event::Renewed(self.foca.identity().clone()));
        let resumed = self.foca.apply_many(std::iter::empty(), false, &mut self.runtime);
        debug_assert!(resumed.is_ok(), "{resumed:?}");
        self.told = 0;
        if let Some((_, report)) = self.last_told.take() {
            self.tell(report, true);
        }
    }

    /// Spreads how this node is.
    fn tell(&mut self, report: Report, is_news: bool) {
        self.told += 1;
        self.last_told = Some((self.now, report));
        self.owes_report = false;
        let own = self.foca.identity();
        let life = (own.node_id.clone(), own.incarnation);
        let record = Record::new(life, self.told, &self.about.address, &self.about.version, report);
        let Ok(record) = record.encode() else {
            return;
        };
        let added = self.foca.add_broadcast(&record);
        debug_assert!(matches!(added, Ok(true)), "{added:?}");
        if is_news {
            self.push(&record);
        }
        self.settle();
    }

    /// Takes news of another node, and passes them on the first time.
    fn pass_on(&mut self, record: Vec<u8>) {
        let is_own = Record::decode(&record).is_none_or(|record| record.node_id == self.foca.identity().node_id);
        if !is_own && matches!(self.foca.add_broadcast(&record), Ok(true)) {
            self.push(&record);
        }
    }

    /// Gives a record to some members, now.
    fn push(&mut self, record: &[u8]) {
        let members = self.foca.iter_members().map(foca::Member::id).cloned();
        for member in members.choose_multiple(&mut self.chance, PUSHES) {
            self.say(&member, Word::News(record.to_vec()));
        }
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

    /// Looks beyond those who are known, and forgets what is of nobody.
    fn reach(&mut self) {
        self.agenda
            .add(self.pace.probe_interval.saturating_mul(REACHING), Task::Reach);
        if self.has_left {
            return;
        }
        self.rounds += 1;
        self.forget();
        let own = self.foca.identity().clone();
        let is_new = |seed: &std::net::SocketAddr| {
            *seed != own.address && !self.foca.iter_members().any(|member| member.id().address == *seed)
        };
        let seeds: Vec<_> = self
            .seeds
            .iter()
            .copied()
            .filter(is_new)
            .map(Identity::anybody_at)
            .collect();
        let is_alone = self.is_alone() || !self.is_connected;
        let seeds = match (is_alone, self.rounds % ROUNDS_A_SEED) {
            (true, _) => seeds.into_iter().choose_multiple(&mut self.chance, CALLS),
            (false, 0) => seeds.into_iter().choose_multiple(&mut self.chance, 1),
            (false, _) => Vec::new(),
        };
        let members = self.foca.num_members();
        // While it pays: who came to a large cluster does not know all of it yet.
        let grows = members > self.members_at_round + self.members_at_round / 20;
        self.members_at_round = members;
        let others = || {
            let known = self.foca.iter_membership_state();
            known.filter(|other| other.id().node_id != own.node_id)
        };
        let dead = others().filter(|other| other.state() == State::Down).count();
        // When so many are dead it is rather this node that was away: each of them has to hear from it.
        let was_away = dead * 4 > members;
        let wanted = match (is_alone || was_away, grows) {
            (true, _) => CALLS,
            (false, true) => FAN_OUT.get(),
            (false, false) => 0,
        };
        let others = others().filter(|other| !was_away || other.state() == State::Down);
        let others = others
            .map(|other| other.id().clone())
            .choose_multiple(&mut self.chance, wanted);
        for call in seeds.into_iter().chain(others) {
            self.announce(call);
        }
        let config = self.pace.config(members);
        if let Err(error) = self.foca.set_config(config) {
            tracing::debug!(%error, "gossip: the size of the cluster changes nothing");
        }
    }

    fn forget(&mut self) {
        let members = self.foca.iter_membership_state();
        let members: std::collections::HashSet<_> = members.map(|member| member.id().node_id.as_str()).collect();
        let (own, now) = (self.foca.identity().node_id.as_str(), self.now);
        self.windows.retain(|node_id, _| members.contains(node_id.as_str()));
        self.heard_at.retain(|node_id, _| members.contains(node_id.as_str()));
        self.records
            .lock()
            .retain(|node_id, at| node_id == own || members.contains(node_id) || now.saturating_sub(at) < UNKNOWN_FOR);
    }

    fn say(&mut self, to: &Identity, word: Word) {
        self.sent += 1;
        match contents::word(self.sent, self.foca.identity().clone(), word) {
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
                    self.owes_report = true;
                    self.events.push(Event::Up(member));
                }
                OwnedNotification::MemberDown(member) => self.events.push(Event::Down(member)),
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
