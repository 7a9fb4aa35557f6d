//! GossipActor: gives the gossip its socket, its clock and its names, and tells the rest of the node what comes of it.
//!
//! Owns: when it ticks, when names are looked up and keys are read again, and that what was learned goes to the address book.
//! Does not own: the protocol (see [`super::core`]), or who may speak (see [`super::wire`]). Socket, keys and what was seen
//! outlive it: one that was killed comes back in a later life, and knows whom it knew.

use super::core::{About, Core, Event};
use super::identity::Identity;
use super::key_file::KeyFile;
use super::measuring;
use super::names::{Looked, NameService, Names};
use super::pace::Pace;
use super::seen::Seen;
use super::watch::GossipWatch;
use super::wire::{Keys, MAX_PACKET_BYTES, Refused};
use crate::actors::address_book::{AddressBook, NodeAddress};
use crate::actors::health::Health;
use crate::actors::mailbox::{Envelope, Undelivered};
use crate::actors::reply::Reply;
use crate::actors::threads::Threads;
use crate::actors::timers;
use crate::actors::watched::Trailed;
use compact_str::CompactString;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::Rng;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Longest time between two ticks.
const LONGEST_TICK: Duration = Duration::from_millis(100);
/// Longest time between two measurements of the node's own health: what is news is told that soon.
const MEASURE: Duration = Duration::from_secs(1);
/// Longest time between two looks at the file of the keys.
const READ_KEYS: Duration = Duration::from_secs(5);
/// Probe intervals between two looks at a name, while nobody is known who lives, and later.
const LOOK: (u32, u32) = (2, 30);
/// Pause after a failed receive.
const RECEIVE_PAUSE: Duration = Duration::from_millis(50);
/// Time for which it is said that another node has the same id, after it was heard of.
const RIVAL_FOR: Duration = Duration::from_secs(60);
/// Longest that is waited for a name before it is said that there is no answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longest time after which it is shown again how the members are, when there are no news.
const SHOW: Duration = Duration::from_secs(1);
/// Milliseconds to the last moment that can be written: of a clock that is as wrong as that no more can be said.
const LAST_MS: u64 = 253_402_300_799_000;
/// Probe intervals after which it is a problem that no other node is there.
const ALONE: u32 = 10;

/// What is wrong, by what it is about.
const KEYS: &str = "keys";
const OWN_NAME: &str = "own name";
const OWN_ADDRESS: &str = "own address";
const COMPANY: &str = "company";
const RIVAL: &str = "rival";

/// What GossipActor is told.
#[derive(Debug)]
pub enum GossipMessage {
    /// What a packet says that was signed with one of the keys.
    Received(Vec<u8>),
    /// Time has passed.
    Tick,
    /// A seed was looked up.
    SeedFound(usize, Looked),
    /// This node's own name was.
    SelfFound(Looked),
    /// The file of the keys was read.
    KeysRead(Result<Keys, String>),
    /// The node stops: tell the others.
    Leave(Reply<()>),
}

impl Trailed for GossipMessage {}

/// The actor.
pub struct GossipActor {
    /// Who the node is.
    pub node_id: String,
    /// Where it answers gRPC.
    pub about: About,
    /// Its own name with the port of the gossip, when it listens at all of its addresses: which of them others send to.
    pub own_name: Option<String>,
    /// Names with ports, where nodes may be that know others.
    pub seeds: Vec<String>,
    /// Its intervals.
    pub pace: Pace,
    /// Where the keys are, if there are any.
    pub key_file: Option<KeyFile>,
    /// What it tells the others of.
    pub health: Arc<Health>,
    /// What it tells of the others.
    pub book: AddressBook,
    /// Where the file of the keys is read, and names are looked up.
    pub threads: Threads,
    /// What says where a name is.
    pub name_service: NameService,
    /// What outlives it.
    pub watch: Arc<GossipWatch>,
}

/// What it knows.
pub struct GossipState {
    socket: Arc<UdpSocket>,
    receiving: JoinHandle<Infallible>,
    /// None, before it is known where this node is.
    core: Option<Core>,
    names: Names,
    measured: Option<Duration>,
    shown: Option<Duration>,
    /// Something happened since then.
    has_events: bool,
    /// Since when no other node is there though some should be, and that by the wall clock.
    alone: Option<(Duration, u64)>,
    looked: Option<Duration>,
    read: Duration,
    is_reading: bool,
    rival_at: Option<Duration>,
    /// What the address book was told.
    told: HashMap<CompactString, NodeAddress>,
}

impl Drop for GossipState {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

impl Actor for GossipActor {
    type Msg = Envelope<GossipMessage>;
    type State = GossipState;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<GossipState, ActorProcessingErr> {
        let socket = Arc::new(UdpSocket::from_std(self.watch.socket.try_clone()?)?);
        let mailbox = self.watch.mailbox.clone();
        let (from, watch) = (Arc::clone(&socket), Arc::clone(&self.watch));
        let receiving = tokio::spawn(async move { receive(&from, &watch).await });
        let tick = (self.pace.probe_timeout / 5).clamp(Duration::from_millis(5), LONGEST_TICK);
        timers::every(&myself, tick, move || mailbox.envelope(GossipMessage::Tick));
        let mut state = GossipState {
            socket,
            receiving,
            core: None,
            names: self
                .watch
                .names()
                .unwrap_or_else(|| Names::new(self.own_name.clone(), self.seeds.clone())),
            measured: None,
            shown: None,
            has_events: false,
            alone: None,
            looked: None,
            read: self.now(),
            is_reading: false,
            rival_at: None,
            told: HashMap::new(),
        };
        // Where the one before was is known, whatever the name service says now.
        let before = self.watch.members().first().map(|own| own.identity.address);
        let own = match self.own_name {
            None => Some(self.watch.bound),
            Some(_) => before,
        };
        if let Some(address) = own {
            self.begin(&mut state, address);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut GossipState,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.message {
            GossipMessage::Received(content) => self.received(state, &content),
            GossipMessage::Tick => self.tick(&myself, state),
            GossipMessage::SeedFound(at, found) => self.seed_found(state, at, found),
            GossipMessage::SelfFound(found) => self.self_found(state, found),
            GossipMessage::KeysRead(read) => self.keys_read(state, read),
            GossipMessage::Leave(reply) => {
                self.leave(state);
                // Whoever waits may end the process next.
                self.flush(state);
                reply.send(Ok(()));
            }
        }
        self.flush(state);
        Ok(())
    }
}

impl GossipActor {
    fn now(&self) -> Duration {
        self.health.time.elapsed()
    }

    /// Begins a life at `address`.
    fn begin(&self, state: &mut GossipState, address: SocketAddr) {
        if self.watch.has_left() {
            return;
        }
        let incarnation = self.watch.next_incarnation(self.health.time.now_ms());
        let own = Identity::new(self.node_id.as_str(), address, incarnation);
        tracing::info!(%address, incarnation = own.incarnation, "gossip begins");
        let mut core = Core::new(own, self.about.clone(), self.pace, rand::rng().random(), self.now());
        core.restore(self.watch.memory());
        core.set_seeds(state.names.found());
        state.core = Some(core);
        (state.measured, state.shown) = (None, None);
    }

    fn received(&self, state: &mut GossipState, content: &[u8]) {
        let Some(core) = &mut state.core else {
            return;
        };
        match core.receive(self.now(), content) {
            Ok(()) => {
                self.watch.counts.received.fetch_add(1, Ordering::Relaxed);
            }
            Err(why) => self.watch.counts.refuse(why),
        }
    }

    fn tick(&self, myself: &ActorRef<Envelope<GossipMessage>>, state: &mut GossipState) {
        if self.watch.has_left() {
            return;
        }
        let now = self.now();
        self.look(myself, state, now);
        self.read_keys(myself, state, now);
        let measure = MEASURE.min(self.pace.gossip_interval);
        let is_due = state.measured.is_none_or(|at| now.saturating_sub(at) >= measure);
        if state.rival_at.is_some_and(|at| now.saturating_sub(at) > RIVAL_FOR) {
            state.rival_at = None;
            self.watch.set_problem(RIVAL, None);
        }
        if let Some(core) = &mut state.core {
            core.tick(now);
            if is_due {
                state.measured = Some(now);
                core.report(now, measuring::report(&self.health));
            }
            let is_stale = state.shown.is_none_or(|at| now.saturating_sub(at) >= SHOW);
            let has_events = std::mem::take(&mut state.has_events);
            if core.has_news() || has_events || is_stale {
                state.shown = Some(now);
                let members = core.members();
                self.learn(&mut state.told, &members);
                self.watch.saw(members, core.memory());
            }
        }
        if is_due {
            self.check_company(state, now);
        }
    }

    /// Whether others can be reached, and can reach this node, as far as it can tell.
    fn check_company(&self, state: &mut GossipState, now: Duration) {
        let Some(core) = &state.core else {
            return;
        };
        let own = core.own().address;
        let is_alone = core.is_alone() && state.names.lead_beyond(own);
        let since = || (now, self.health.time.now_ms());
        state.alone = is_alone.then(|| state.alone.unwrap_or_else(since));
        let long = state
            .alone
            .filter(|(since, _)| now.saturating_sub(*since) > self.pace.probe_interval * ALONE);
        let alone = long.map(|(_, since_ms)| {
            let since = UNIX_EPOCH + Duration::from_millis(since_ms.min(LAST_MS));
            let since = humantime::format_rfc3339_seconds(since);
            format!(
                "gossip: alone since {since}: no other node is known to live, and none of gossip.seed_nodes answers"
            )
        });
        self.note(COMPANY, alone);
        let is_hidden = own.ip().is_loopback() && state.names.lead_elsewhere();
        let hidden = is_hidden.then(|| {
            format!(
                "gossip: others are told that this node is at {own}, which only this machine reaches, and gossip.seed_nodes are \
                 elsewhere: server.advertise_host (or gossip.bind_host) must be an address that they can send to"
            )
        });
        self.note(OWN_ADDRESS, hidden);
    }

    fn note(&self, about: &'static str, problem: Option<String>) {
        if self.watch.set_problem(about, problem.clone())
            && let Some(problem) = problem
        {
            tracing::warn!("{problem}");
        }
    }

    /// Looks names up, each in its own time, so that a slow one holds up no other.
    fn look(&self, myself: &ActorRef<Envelope<GossipMessage>>, state: &mut GossipState, now: Duration) {
        let is_alone = state.core.as_ref().is_none_or(Core::is_alone);
        let every = self.pace.probe_interval * if is_alone { LOOK.0 } else { LOOK.1 };
        if state.looked.is_some_and(|at| now.saturating_sub(at) < every) {
            return;
        }
        state.looked = Some(now);
        let names = &mut state.names;
        if let Some(looking) = names
            .own
            .as_mut()
            .and_then(|own| own.look(&self.threads, &self.name_service))
        {
            self.await_name(myself, looking, GossipMessage::SelfFound);
        }
        for (at, seed) in names.seeds.iter_mut().enumerate() {
            if let Some(looking) = seed.look(&self.threads, &self.name_service) {
                self.await_name(myself, looking, move |found| GossipMessage::SeedFound(at, found));
            }
        }
        self.watch.keep_names(names.clone());
    }

    /// Tells what comes of looking a name up, first that nothing does when it takes long.
    fn await_name(
        &self,
        myself: &ActorRef<Envelope<GossipMessage>>,
        mut looking: JoinHandle<Looked>,
        found: impl Fn(Looked) -> GossipMessage + Send + Sync + 'static,
    ) {
        let (myself, mailbox) = (myself.clone(), self.watch.mailbox.clone());
        tokio::spawn(async move {
            let tell = |looked| {
                // To this generation only: a successor looks by itself.
                let _ = myself.send_message(mailbox.envelope(found(looked)));
            };
            let ended = |looked: Result<Looked, _>| looked.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
            if let Ok(looked) = tokio::time::timeout(ANSWER_WITHIN, &mut looking).await {
                return tell(ended(looked));
            }
            tell(Err(io::Error::other("no answer of the name service")));
            tell(ended(looking.await));
        });
    }

    fn aside(
        &self,
        myself: &ActorRef<Envelope<GossipMessage>>,
        work: impl Future<Output = GossipMessage> + Send + 'static,
    ) {
        let (myself, mailbox) = (myself.clone(), self.watch.mailbox.clone());
        tokio::spawn(async move {
            let done = work.await;
            // To this generation only: a successor looks by itself.
            let _ = myself.send_message(mailbox.envelope(done));
        });
    }

    fn seed_found(&self, state: &mut GossipState, at: usize, looked: Looked) {
        let Some(seed) = state.names.seeds.get_mut(at) else {
            return;
        };
        let saw = seed.saw(looked, self.watch.bound.is_ipv4());
        if seed.is_news(saw.is_err()) {
            let seed = seed.as_str();
            match saw {
                Ok(()) => tracing::info!(seed, "gossip: a seed's name is found again"),
                Err(error) => tracing::warn!(seed, %error, "gossip: a seed's name is not found; it is looked up on"),
            }
        }
        self.watch.keep_names(state.names.clone());
        let seeds = state.names.found();
        if let Some(core) = &mut state.core {
            core.set_seeds(seeds);
        }
    }

    fn self_found(&self, state: &mut GossipState, looked: Looked) {
        let Some(own) = &mut state.names.own else {
            return;
        };
        if let Err(error) = own.saw(looked, self.watch.bound.is_ipv4()) {
            let name = own.as_str();
            let problem =
                format!("gossip: where this node is reached is not known: {name} (server.advertise_host): {error}");
            if state.core.is_none() && self.watch.set_problem(OWN_NAME, Some(problem.clone())) {
                tracing::warn!("{problem}");
            }
            return;
        }
        self.watch.set_problem(OWN_NAME, None);
        let addresses = own.found().to_vec();
        self.watch.keep_names(state.names.clone());
        let Some(first) = addresses.first().copied() else {
            return;
        };
        match &mut state.core {
            None => self.begin(state, first),
            // One of several names that means the same node is as good as another.
            Some(core) if addresses.contains(&core.own().address) => {}
            Some(core) => core.move_to(self.now(), first),
        }
    }

    fn read_keys(&self, myself: &ActorRef<Envelope<GossipMessage>>, state: &mut GossipState, now: Duration) {
        let every = READ_KEYS.min(self.pace.gossip_interval);
        let Some(file) = self.key_file.clone() else {
            return;
        };
        if state.is_reading || now.saturating_sub(state.read) < every {
            return;
        }
        (state.is_reading, state.read) = (true, now);
        let reading = self.threads.run(move || file.read());
        self.aside(myself, async move {
            let read = reading.await;
            GossipMessage::KeysRead(read.unwrap_or_else(|panicked| Err(format!("gossip.key_file: {panicked}"))))
        });
    }

    /// What cannot be read is told, and the keys that were read before are kept.
    fn keys_read(&self, state: &mut GossipState, read: Result<Keys, String>) {
        state.is_reading = false;
        match read {
            Ok(keys) => {
                self.watch.set_problem(KEYS, None);
                if !keys.are(&self.watch.keys()) {
                    tracing::info!(?keys, "gossip: the keys were changed");
                    self.watch.set_keys(keys);
                }
            }
            Err(why) => {
                if self
                    .watch
                    .set_problem(KEYS, Some(format!("{why}; the keys read before are kept")))
                {
                    tracing::error!(why, "gossip: the keys cannot be read again; those read before are kept");
                }
            }
        }
    }

    fn leave(&self, state: &mut GossipState) {
        self.watch.leave();
        if let Some(core) = &mut state.core {
            core.leave(self.now());
            self.watch.saw(core.members(), core.memory());
        }
    }

    /// Sends what is to be sent, and says what happened.
    fn flush(&self, state: &mut GossipState) {
        let Some(core) = &mut state.core else {
            return;
        };
        let keys = self.watch.keys();
        for (to, content) in core.take_packets() {
            // A queue that is full loses packets, as a network does.
            let sent = state.socket.try_send_to(&keys.seal(&content), to);
            let count = match sent {
                Ok(_) => &self.watch.counts.sent,
                Err(_) => &self.watch.counts.unsent,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        let now = self.now();
        for event in core.take_events() {
            state.has_events = true;
            match event {
                Event::Up(member) => {
                    tracing::info!(node_id = member.node_id.as_str(), address = %member.address, "a member is there");
                }
                Event::Down(member) => {
                    tracing::warn!(node_id = member.node_id.as_str(), address = %member.address, "a member is gone");
                }
                Event::Renewed(own) => {
                    tracing::info!(incarnation = own.incarnation, address = %own.address, "back among the members");
                }
                Event::Rival(rival) => {
                    state.rival_at = Some(now);
                    let problem = format!(
                        "gossip: {} says that it is this node: server.node_id = {} must be unique in the cluster",
                        rival.address, rival.node_id
                    );
                    if self.watch.set_problem(RIVAL, Some(problem.clone())) {
                        tracing::error!("{problem}");
                    }
                }
            }
        }
    }

    /// Tells the address book what members say that is new.
    fn learn(&self, told: &mut HashMap<CompactString, NodeAddress>, members: &[Seen]) {
        for member in members.iter().skip(1).filter(|member| member.life.is_there()) {
            let Some(heard) = &member.heard else {
                continue;
            };
            let (node_id, address) = (&member.identity.node_id, heard.record.address());
            if told.get(node_id) != Some(&address) && self.book.learn(node_id, address.clone()) {
                told.insert(node_id.clone(), address);
            }
        }
    }
}

/// Takes packets from the socket, and hands on those that were signed with a key: who floods the port without one costs this
/// task its time, and the actor nothing. What was signed once and is sent again costs the actor a look at whom it is from.
async fn receive(socket: &UdpSocket, watch: &GossipWatch) -> Infallible {
    // Room for one byte more than a packet may have, so that a longer one shows.
    let mut buffer = [0_u8; MAX_PACKET_BYTES + 1];
    loop {
        let length = match socket.recv_from(&mut buffer).await {
            Ok((length, _)) => length,
            Err(error) => {
                tracing::debug!(%error, "gossip: cannot receive");
                tokio::time::sleep(RECEIVE_PAUSE).await;
                continue;
            }
        };
        let packet = buffer.get(..length).unwrap_or_default();
        match watch.keys().open(packet) {
            Err(why) => watch.counts.refuse(why),
            Ok(content) => {
                let sent = watch
                    .mailbox
                    .send(GossipMessage::Received(content.to_vec()), content.len());
                match sent {
                    Ok(()) => {}
                    Err(Undelivered::Full(_)) => watch.counts.refuse(Refused::Full),
                    // As one that was lost on the way.
                    Err(Undelivered::Down(_)) => {}
                }
            }
        }
    }
}
