//! The faults: which, when, and to whom, by a seed.
//!
//! Owns: the choice, and the record of what was struck. Does not own: what becomes of it (the node's).

use super::history::Moment;
use super::load::Shared;
use crate::actors::faults::DISK_IO;
use crate::cli::Failure;
use crate::cli::client::{FaultClient, explain};
use crate::rpc::admin_pb as pb;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Of a hundred strikes, those that kill two actors at once …
const PAIRS: u32 = 20;
/// … and those that wait for an actor at a point of its work.
const AT_POINTS: u32 = 30;
/// Longest stall.
const STALL_MS: u64 = 50;

pub(super) type Node = FaultClient;

/// A strike that broke something at once.
#[derive(Debug, Clone)]
pub(super) struct Strike {
    /// When.
    pub(super) moment: Moment,
    /// Who ended.
    pub(super) actors: Vec<String>,
}

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Struck {
    /// Actors killed, or broken at a point.
    pub(super) kills: u64,
    /// By actor.
    pub(super) by_actor: BTreeMap<String, u64>,
    /// Those that struck at once, in their order.
    pub(super) strikes: Vec<Strike>,
}

/// Chooses what to break.
pub(super) struct Schedule {
    random: SmallRng,
    targets: Vec<pb::Target>,
    pub(super) struck: Struck,
}

/// The actors of a node.
pub(super) async fn targets(node: &mut Node) -> Result<Vec<pb::Target>, Failure> {
    let answer = node.actors(pb::ActorsRequest {}).await;
    let mut targets = answer.map_err(|status| explain(&status))?.into_inner().targets;
    targets.retain(|target| target.actor != DISK_IO);
    Ok(targets)
}

/// Moments within `during`, from `from` on, as far apart as strikes, at which nobody is struck.
pub(super) fn moments(per_second: f64, from: Moment, during: Duration) -> Vec<Strike> {
    let times = (1..).map(|number| f64::from(number) / per_second);
    let within = times.take_while(|time| *time < during.as_secs_f64());
    let strike = |time| Strike {
        moment: from + (time * 1e9) as Moment,
        actors: Vec::new(),
    };
    within.map(strike).collect()
}

impl Schedule {
    pub(super) fn new(seed: u64, targets: Vec<pb::Target>) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            targets,
            struck: Struck::default(),
        }
    }

    /// Strikes so often a second until `until`.
    pub(super) async fn run(
        &mut self,
        node: &mut Node,
        per_second: f64,
        shared: &Arc<Shared>,
        until: Instant,
    ) -> Result<(), Failure> {
        let pause = Duration::from_secs_f64(1.0 / per_second);
        let mut next = Instant::now() + pause;
        while next < until && !shared.stop.load(Ordering::Relaxed) {
            tokio::time::sleep_until(next.into()).await;
            match self.random.random_range(0..100) {
                chance if chance < AT_POINTS => self.strike_at_point(node, pause).await?,
                chance if chance < AT_POINTS + PAIRS => self.kill(node, 2, shared).await?,
                _ => self.kill(node, 1, shared).await?,
            }
            next = (next + pause).max(Instant::now());
        }
        Ok(())
    }

    async fn kill(&mut self, node: &mut Node, count: usize, shared: &Shared) -> Result<(), Failure> {
        let actors: Vec<String> = self
            .targets
            .choose_multiple(&mut self.random, count)
            .map(|target| target.actor.clone())
            .collect();
        let mut strike = Strike {
            moment: shared.now(),
            actors: Vec::new(),
        };
        for actor in actors {
            let request = pb::InjectRequest {
                actor: actor.clone(),
                fault: "kill".to_owned(),
                ..pb::InjectRequest::default()
            };
            let answer = node.inject(request).await.map_err(|status| explain(&status))?;
            if answer.into_inner().struck {
                self.count(actor.clone());
                strike.actors.push(actor);
            }
        }
        if !strike.actors.is_empty() {
            self.struck.strikes.push(strike);
        }
        Ok(())
    }

    /// Breaks an actor when it comes by a point, if it does before the next strike.
    async fn strike_at_point(&mut self, node: &mut Node, within: Duration) -> Result<(), Failure> {
        let Some(target) = self.targets.choose(&mut self.random).cloned() else {
            return Ok(());
        };
        let point = target.points.choose(&mut self.random).cloned().unwrap_or_default();
        let faults: &[&str] = match point.as_str() {
            "message" | "hand-off" => &["panic", "kill", "error", "stall", "drop"],
            _ => &["panic", "kill", "stall"],
        };
        let mut fault = faults.choose(&mut self.random).copied().unwrap_or("panic");
        if fault == "drop" && target.actor == crate::actors::faults::SUPERVISOR {
            fault = "kill";
        }
        let request = pb::InjectRequest {
            actor: target.actor.clone(),
            point,
            fault: fault.to_owned(),
            stall_ms: self.random.random_range(1..=STALL_MS),
            after: self.random.random_range(0..20),
            ..pb::InjectRequest::default()
        };
        let answer = node.inject(request).await.map_err(|status| explain(&status))?;
        tokio::time::sleep(within).await;
        let id = answer.into_inner().id;
        let cleared = node.clear(pb::ClearRequest { id }).await;
        if cleared.map_err(|status| explain(&status))?.into_inner().cleared == 0 && fault != "stall" && fault != "drop"
        {
            self.count(target.actor);
        }
        Ok(())
    }

    fn count(&mut self, actor: String) {
        self.struck.kills += 1;
        *self.struck.by_actor.entry(actor).or_default() += 1;
    }
}
