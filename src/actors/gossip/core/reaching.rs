//! Looking beyond those who are known, and forgetting who is no more.
//!
//! Owns: whom a node calls at that it has heard nothing of. Does not own: how members are probed (foca).

use super::super::identity::Identity;
use super::super::pace::FAN_OUT;
use super::super::seen::{Life, life};
use super::{Core, Task};
use rand::seq::IteratorRandom;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Probe intervals between two rounds in which a node looks beyond those that it knows …
const REACHING: u32 = 2;
/// … and rounds between two calls at a seed, for one that is not alone.
const ROUNDS_A_SEED: u64 = 8;
/// Seeds, and members known before, that a node calls at in a round while it is alone.
const CALLS: usize = 16;
/// How long something is remembered of a node that is no member: its record may come before it does.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// How long a node calls at many whom it lost, after the last one came or was lost: those who do not answer by then are gone.
const AWAY_FOR: Duration = Duration::from_secs(300);

impl Core {
    /// Looks beyond those who are known, and forgets what is of nobody.
    pub(super) fn reach(&mut self) {
        self.agenda
            .add(self.pace.probe_interval.saturating_mul(REACHING), Task::Reach);
        if self.has_left {
            return;
        }
        self.rounds += 1;
        self.forget();
        let own = self.foca.identity().clone();
        let is_new = |seed: &SocketAddr| {
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
        // While it pays: who came to a large cluster does not know all of it yet, and the last few are the slowest to be found.
        let grows = members > self.members_at_round;
        self.members_at_round = members;
        let lost = self.lost();
        // When so many were lost it is rather this node that was away: each of them has to hear from it.
        let is_recent = self.now.saturating_sub(self.changed_at) < AWAY_FOR;
        let was_away = is_recent && lost.len() * 4 > members;
        let wanted = match (is_alone || was_away, grows) {
            (true, _) => CALLS,
            (false, true) => FAN_OUT.get(),
            (false, false) => 0,
        };
        let others = if was_away {
            lost.into_iter().choose_multiple(&mut self.chance, wanted)
        } else {
            let known = self.foca.iter_membership_state().map(foca::Member::id);
            let others = known.filter(|other| other.node_id != own.node_id).cloned();
            others.choose_multiple(&mut self.chance, wanted)
        };
        for call in seeds.into_iter().chain(others) {
            self.announce(call);
        }
        let config = self.pace.config(members);
        if let Err(error) = self.foca.set_config(config) {
            tracing::debug!(%error, "gossip: the size of the cluster changes nothing");
        }
    }

    /// Those who are dead. Who left in order was not lost.
    fn lost(&self) -> Vec<Identity> {
        let records = self.records.lock();
        let is_lost = |member: &&foca::Member<Identity>| {
            let node_id = &member.id().node_id;
            life(member, records.get(node_id)) == Life::Down
        };
        let members = self.foca.iter_membership_state().filter(is_lost);
        members.map(|member| member.id().clone()).collect()
    }

    fn forget(&mut self) {
        let members = self.foca.iter_membership_state();
        let members: HashSet<_> = members.map(|member| member.id().node_id.as_str()).collect();
        let (own, now) = (self.foca.identity().node_id.as_str(), self.now);
        self.windows.retain(|node_id, _| members.contains(node_id.as_str()));
        self.heard_at.retain(|node_id, _| members.contains(node_id.as_str()));
        let interval = self.pace.probe_interval;
        self.answered.retain(|_, at| now.saturating_sub(*at) < interval);
        self.records
            .lock()
            .retain(|node_id, at| node_id == own || members.contains(node_id) || now.saturating_sub(at) < UNKNOWN_FOR);
    }
}
