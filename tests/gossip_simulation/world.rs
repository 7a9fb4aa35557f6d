//! A simulated network of gossiping nodes: their clock, what becomes of packets, and what befalls the nodes.

use pairdb_node::actors::address_book::NodeAddress;
use pairdb_node::actors::gossip::core::{About, Core, Event};
use pairdb_node::actors::gossip::identity::Identity;
use pairdb_node::actors::gossip::pace::Pace;
use pairdb_node::actors::gossip::record::Report;
use pairdb_node::actors::gossip::seen::Life;
use pairdb_node::actors::gossip::wire::Refused;
use pairdb_node::actors::health::Status;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

pub const MS: Duration = Duration::from_millis(1);
pub const S: Duration = Duration::from_secs(1);
/// The wall clock of all nodes at the beginning.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// Packets that a socket keeps for a process that does not read.
const SOCKET_QUEUE: usize = 200;
/// Packets that are remembered to be sent again by somebody else.
pub const RECORDED: usize = 2000;

/// The intervals that ship, but for the gossip's, which is a second.
pub const EACH_SECOND: Pace = Pace {
    gossip_interval: Duration::from_secs(1),
    probe_interval: Duration::from_secs(1),
    probe_timeout: Duration::from_millis(500),
};
/// Those that ship.
pub const SHIPPED: Pace = Pace {
    gossip_interval: Duration::from_secs(5),
    ..EACH_SECOND
};

pub fn well() -> Report {
    Report {
        status: Status::Healthy,
        is_latched: false,
        is_draining: false,
        is_disk_full: false,
        is_leaving: false,
        cpu: 0.1,
        memory: 0.2,
        disk: 0.3,
        requests_per_s: 100.0,
        error_rate: 0.0,
        cache_hit_rate: 0.9,
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Packet(usize, Vec<u8>),
    Wake(usize),
    Measure(usize),
    Resume(usize),
}

pub struct Member {
    pub core: Option<Core>,
    /// The number in its name: its place, unless it pretends to be another.
    pub called: usize,
    pub report: Report,
    pub address: SocketAddr,
    /// What its wall clock is wrong by, in milliseconds.
    pub clock_ms: i64,
    /// Who can hear whom: those of one part.
    pub part: usize,
    wakes: Option<Duration>,
    /// What waits for it while it is stopped.
    waiting: Option<Vec<Vec<u8>>>,
}

/// Everything.
pub struct World {
    pub pace: Pace,
    pub now: Duration,
    pub members: Vec<Member>,
    /// Share of packets that get lost.
    pub loss: f64,
    pub chance: SmallRng,
    /// Deaths: when, who saw it, of whom.
    pub deaths: Vec<(Duration, usize, String)>,
    pub renewals: usize,
    pub rivals: usize,
    pub packets: u64,
    /// Of these, those by which a node is told that it is suspected.
    pub suspicions: u64,
    pub refused: Vec<Refused>,
    /// Copies of some packets, with whom they were for.
    pub recorded: Vec<(usize, Vec<u8>)>,
    pub seeds: usize,
    agenda: BinaryHeap<Reverse<(Duration, u64, What)>>,
    entries: u64,
}

pub fn name(n: usize) -> String {
    format!("node-{n:04}")
}

fn address(n: usize, place: u8) -> SocketAddr {
    SocketAddr::from(([10, place, (n / 256) as u8, (n % 256) as u8], 7946))
}

/// Added to every seed: PAIRDB_TEST_GOSSIP_SEED, so that the same tests run with other chances.
fn other_seeds() -> u64 {
    let given = std::env::var("PAIRDB_TEST_GOSSIP_SEED");
    given.map_or(0, |given| given.parse().expect("PAIRDB_TEST_GOSSIP_SEED is a number"))
}

impl World {
    /// So many nodes, each with the first three as its seeds, none of which knows anybody. They start within a second.
    pub fn new(count: usize, pace: Pace, loss: f64, seed: u64) -> Self {
        let member = |n: usize| Member {
            core: None,
            called: n,
            report: well(),
            address: address(n, 0),
            clock_ms: 0,
            part: 0,
            wakes: None,
            waiting: None,
        };
        let mut world = Self {
            pace,
            now: S,
            members: (0..count).map(member).collect(),
            loss,
            chance: SmallRng::seed_from_u64(seed.wrapping_add(other_seeds())),
            deaths: Vec::new(),
            renewals: 0,
            rivals: 0,
            packets: 0,
            suspicions: 0,
            refused: Vec::new(),
            recorded: Vec::new(),
            seeds: 3,
            agenda: BinaryHeap::new(),
            entries: 0,
        };
        for n in 0..count {
            world.start(n);
        }
        world
    }

    /// As [`World::new`], with all of them known to all: they get to know each other faster than a thousand would.
    pub fn acquainted(count: usize, pace: Pace, loss: f64, seed: u64) -> Self {
        let mut world = Self::new(count, pace, 0.0, seed);
        for member in &mut world.members {
            member.core.as_mut().unwrap().set_seeds(vec![address(0, 0)]);
        }
        world.run(1500 * MS);
        let known = world.members[0].core.as_ref().unwrap();
        assert_eq!(known.members().len(), count, "all have called at the first");
        let known = known.memory();
        for n in 1..count {
            world.members[n].core.as_mut().unwrap().restore(known.clone());
            world.settle(n);
        }
        world.loss = loss;
        assert!(world.is_whole());
        world
    }

    /// Packets of the protocol that one node sent to another, as far as they were recorded.
    pub fn recorded_of(&self, from: usize, to: usize) -> Vec<Vec<u8>> {
        // Behind the kind and the number comes the sender's name, with its length first.
        let name = name(from);
        let is_from = |packet: &[u8]| packet[0] == 0 && packet[10..].starts_with(name.as_bytes());
        let recorded = self.recorded.iter();
        let recorded = recorded.filter(|(whom, packet)| *whom == to && is_from(packet));
        recorded.map(|(_, packet)| packet.clone()).collect()
    }

    /// How many pieces of news to a node were recorded.
    pub fn recorded_news(&self, to: usize) -> usize {
        // The third word of ours, behind the kind and the number.
        let is_news = |(whom, packet): &&(usize, Vec<u8>)| *whom == to && packet[0] == 1 && packet[9] == 2;
        self.recorded.iter().filter(is_news).count()
    }

    fn add(&mut self, after: Duration, what: What) {
        self.entries += 1;
        self.agenda.push(Reverse((self.now + after, self.entries, what)));
    }

    /// Starts a node that does not run, as a new process.
    pub fn start(&mut self, n: usize) {
        assert!(self.members[n].core.is_none());
        let wall = EPOCH_MS + self.now.as_millis() as u64;
        let member = &self.members[n];
        let incarnation = wall.saturating_add_signed(member.clock_ms);
        let identity = Identity::new(name(member.called), member.address, incarnation);
        let about = About {
            address: NodeAddress {
                host: self.members[n].address.ip().to_string(),
                port: 50_052,
            },
            version: "1".into(),
        };
        let mut core = Core::new(identity, about, self.pace, self.chance.random(), self.now);
        core.set_seeds((0..self.seeds.min(self.members.len())).map(|n| address(n, 0)).collect());
        self.members[n].core = Some(core);
        self.members[n].waiting = None;
        let after = MS * self.chance.random_range(0..1000);
        self.add(after, What::Measure(n));
        let after = MS * self.chance.random_range(0..1000);
        self.add(after, What::Wake(n));
        self.members[n].wakes = Some(self.now + after);
    }

    /// Ends a process without a word.
    pub fn kill(&mut self, n: usize) {
        self.members[n].core = None;
        self.members[n].wakes = None;
    }

    /// Ends a process in order.
    pub fn leave(&mut self, n: usize) {
        let now = self.now;
        self.members[n].core.as_mut().unwrap().leave(now);
        self.settle(n);
        self.kill(n);
    }

    /// Moves a node that does not run to another address.
    pub fn move_away(&mut self, n: usize) {
        self.members[n].address = address(n, 1);
    }

    /// Moves a node that runs to another address, which it learns.
    pub fn move_running(&mut self, n: usize) {
        let to = address(n, 2);
        self.members[n].address = to;
        let now = self.now;
        self.members[n].core.as_mut().unwrap().move_to(now, to);
        self.settle(n);
    }

    /// Whether all nodes that run see `n` alive where it is.
    pub fn is_found(&self, n: usize) -> bool {
        let at = self.members[n].address;
        self.running().iter().all(|other| {
            let members = self.members[*other].core.as_ref().unwrap().members();
            members
                .iter()
                .any(|seen| seen.identity.address == at && seen.life == Life::Alive)
        })
    }

    /// Stops a process for so long, which does not notice.
    pub fn pause(&mut self, n: usize, time: Duration) {
        self.members[n].waiting = Some(Vec::new());
        self.add(time, What::Resume(n));
    }

    /// Splits the network: each node into the part of its number; 0 heals it.
    pub fn split(&mut self, part: impl Fn(usize) -> usize) {
        for (n, member) in self.members.iter_mut().enumerate() {
            member.part = part(n);
        }
    }

    /// Gives a packet to a node as it is, now.
    pub fn deliver(&mut self, n: usize, packet: &[u8]) {
        let now = self.now;
        let member = &mut self.members[n];
        if let Some(waiting) = &mut member.waiting {
            if waiting.len() < SOCKET_QUEUE {
                waiting.push(packet.to_vec());
            }
            return;
        }
        if let Some(core) = &mut member.core {
            if let Err(why) = core.receive(now, packet) {
                self.refused.push(why);
            }
            self.settle(n);
        }
    }

    fn settle(&mut self, n: usize) {
        let member = &mut self.members[n];
        let Some(core) = &mut member.core else {
            return;
        };
        let (packets, events, part) = (core.take_packets(), core.take_events(), member.part);
        let due = core.next_due().map(|due| due.max(self.now));
        if let Some(due) = due.filter(|due| member.wakes.is_none_or(|wakes| *due < wakes)) {
            member.wakes = Some(due);
            let after = due.saturating_sub(self.now);
            self.add(after, What::Wake(n));
        }
        for (to, packet) in packets {
            self.send(part, to, packet);
        }
        for event in events {
            match event {
                Event::Up(_) => {}
                Event::Down(who) => self.deaths.push((self.now, n, who.node_id.to_string())),
                Event::Renewed(_) => self.renewals += 1,
                Event::Rival(_) => self.rivals += 1,
            }
        }
    }

    fn send(&mut self, part: usize, to: SocketAddr, packet: Vec<u8>) {
        self.packets += 1;
        // The first word of ours, behind the kind and the number.
        self.suspicions += u64::from(packet[0] == 1 && packet[9] == 0);
        let place = to.to_string();
        let SocketAddr::V4(v4) = to else { panic!("{place}") };
        let [_, _, high, low] = v4.ip().octets();
        let n = usize::from(high) * 256 + usize::from(low);
        let is_there = self
            .members
            .get(n)
            .is_some_and(|member| member.address == to && member.part == part);
        if is_there && !self.chance.random_bool(self.loss) {
            let after = MS / 10 * self.chance.random_range(2..200);
            if self.recorded.len() < RECORDED {
                self.recorded.push((n, packet.clone()));
            } else if self.chance.random_range(0..100) == 0 {
                let at = self.chance.random_range(0..RECORDED);
                self.recorded[at] = (n, packet.clone());
            }
            self.add(after, What::Packet(n, packet));
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.agenda.peek().is_some_and(|Reverse((at, _, _))| *at <= until) {
            let Reverse((at, _, what)) = self.agenda.pop().unwrap();
            self.now = self.now.max(at);
            match what {
                What::Packet(n, packet) => self.deliver(n, &packet),
                What::Wake(n) => self.wake(n, at),
                What::Measure(n) => self.measure(n),
                What::Resume(n) => {
                    for packet in self.members[n].waiting.take().unwrap_or_default() {
                        self.deliver(n, &packet);
                    }
                    self.members[n].wakes = None;
                    self.settle(n);
                }
            }
        }
        self.now = until;
    }

    fn wake(&mut self, n: usize, at: Duration) {
        let member = &mut self.members[n];
        if member.wakes != Some(at) || member.waiting.is_some() {
            return;
        }
        member.wakes = None;
        if let Some(core) = &mut member.core {
            core.tick(at);
            self.settle(n);
        }
    }

    fn measure(&mut self, n: usize) {
        let (now, member) = (self.now, &mut self.members[n]);
        let Some(core) = &mut member.core else {
            return;
        };
        if member.waiting.is_none() {
            core.report(now, member.report);
            self.settle(n);
        }
        self.add(S, What::Measure(n));
    }

    /// Nodes that run.
    pub fn running(&self) -> Vec<usize> {
        let all = 0..self.members.len();
        all.filter(|n| self.members[*n].core.is_some()).collect()
    }

    /// Whether every node that runs sees exactly those that run as alive, or suspected.
    pub fn is_whole(&self) -> bool {
        let running = self.running();
        let names: Vec<_> = running.iter().map(|n| name(*n)).collect();
        running.iter().all(|n| {
            let members = self.members[*n].core.as_ref().unwrap().members();
            let mut there: Vec<_> = members.iter().filter(|seen| seen.life.is_there()).collect();
            there.sort_by(|one, other| one.identity.node_id.cmp(&other.identity.node_id));
            there.len() == names.len()
                && there
                    .iter()
                    .zip(&names)
                    .all(|(seen, name)| seen.identity.node_id == *name)
        })
    }

    /// Whether every node that runs has heard of each other one that runs how that is now.
    pub fn knows_all(&self) -> bool {
        let running = self.running();
        let statuses: HashMap<_, _> = running
            .iter()
            .map(|n| (name(*n), self.members[*n].report.status))
            .collect();
        running.iter().all(|n| {
            let members = self.members[*n].core.as_ref().unwrap().members();
            let known = members.iter().filter(|seen| {
                let heard = seen.heard.as_ref().map(|heard| heard.record.report.status);
                heard.is_some() && heard == statuses.get(seen.identity.node_id.as_str()).copied()
            });
            known.count() == statuses.len()
        })
    }

    /// As [`World::until_whole`], until all know how all are.
    pub fn until_all_known(&mut self, within: Duration) -> Duration {
        self.until("all know how all are", within, Self::knows_all)
    }

    /// Lets time pass until the world is whole; returns how much, and fails when it is more than `within`.
    pub fn until_whole(&mut self, within: Duration) -> Duration {
        self.until("all see all", within, Self::is_whole)
    }

    pub fn until(&mut self, what: &str, within: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let begun = self.now;
        while !holds(self) {
            assert!(self.now - begun < within, "not within {within:?}: {what}");
            // To ask a thousand nodes of a thousand others takes its time.
            let step = if self.members.len() > 500 { 5 * S } else { 200 * MS };
            self.run(step);
        }
        self.now - begun
    }

    /// What a node sees of another.
    pub fn sees(&self, n: usize, other: usize) -> Option<(Life, Option<Status>)> {
        let members = self.members[n].core.as_ref()?.members();
        let seen = members.into_iter().find(|seen| seen.identity.node_id == name(other))?;
        Some((seen.life, seen.heard.map(|heard| heard.record.report.status)))
    }

    /// Changes the health of a node, and returns how long it took until every other node that runs knew it.
    pub fn spread(&mut self, n: usize, status: Status) -> Duration {
        self.members[n].report.status = status;
        let (now, report) = (self.now, self.members[n].report);
        self.members[n].core.as_mut().unwrap().report(now, report);
        self.settle(n);
        let mut ignorant = self.running();
        let begun = self.now;
        loop {
            ignorant.retain(|other| self.sees(*other, n).is_none_or(|(_, known)| known != Some(status)));
            if ignorant.is_empty() {
                return self.now - begun;
            }
            assert!(self.now - begun < 300 * S, "{} never learn it", ignorant.len());
            self.run(50 * MS);
        }
    }
}
