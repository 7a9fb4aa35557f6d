//! A changed configuration on a running node.
//!
//! Owns: which keys take effect at once, and saying of all others that they do not. Does not own: when it happens (SIGHUP, see
//! [`crate::cli`]), or how each part changes. All that can fail is tried before anything of its part is changed.

use super::composition::{Parts, addresses, quota_settings, rate, thresholds};
use super::exposure::{self, Listening};
use crate::actors::address_book::AddressBook;
use crate::actors::disk::DiskWatch;
use crate::actors::quotas::Quotas;
use crate::actors::reloads::{Change, Outcome, Reload, ReloadWatch};
use crate::actors::trail::traces::Traces;
use crate::config::Config;
use crate::rpc::admin::SetLogLevel;
use crate::rpc::security::{Look, Security};
use crate::storage::compaction::jobs::Jobs;
use crate::storage::compaction::throttle::Throttle;
use crate::storage::time::Time;
use crate::telemetry::sampling;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// What changes on a running node.
pub struct Reloader {
    /// What is in force. Held by whoever changes that, so that a look at the files of before puts nothing back that a reload has
    /// replaced.
    running: Mutex<Config>,
    quotas: Arc<Quotas>,
    jobs: Arc<Jobs>,
    scrub: Arc<Throttle>,
    disk: Arc<DiskWatch>,
    traces: Arc<Traces>,
    book: AddressBook,
    security: Arc<Security>,
    set_log_level: SetLogLevel,
    watch: Arc<ReloadWatch>,
    time: Arc<dyn Time>,
    listening: Listening,
    /// What stood open when that was last told.
    told: Mutex<Vec<String>>,
    /// A configuration was taken over.
    reloaded: Notify,
}

/// Keys that take effect together.
struct Part {
    /// Each is a key, or a section of them.
    keys: &'static [&'static str],
    /// Has them take effect, from what was in force to what shall be; or says why it did not.
    apply: fn(&Reloader, &Config, &Config) -> Change,
    /// Takes them over into what is in force.
    adopt: fn(&mut Config, &Config),
}

const PARTS: [Part; 8] = [
    Part {
        keys: &["logging.level"],
        apply: |of, _, now| {
            let set = (of.set_log_level)(now.logging.level.as_str());
            set.map_or_else(Change::Failed, |_before| Change::Applied)
        },
        adopt: |running, now| running.logging.level = now.logging.level,
    },
    Part {
        keys: &["tenants"],
        apply: |of, _, now| {
            let (own, default) = quota_settings(now);
            of.quotas.replace(own, default);
            Change::Applied
        },
        adopt: |running, now| running.tenants = now.tenants.clone(),
    },
    Part {
        keys: &["compaction.throttle"],
        apply: |of, _, now| {
            of.jobs.set_pace(rate(now.compaction.throttle));
            Change::Applied
        },
        adopt: |running, now| running.compaction.throttle = now.compaction.throttle,
    },
    Part {
        keys: &["disk.scrub_throttle"],
        apply: |of, _, now| {
            of.scrub.set_rate(rate(now.disk.scrub_throttle));
            Change::Applied
        },
        adopt: |running, now| running.disk.scrub_throttle = now.disk.scrub_throttle,
    },
    Part {
        keys: &["disk.warn_usage", "disk.stop_usage", "storage.max_disk_usage"],
        apply: |of, _, now| {
            of.disk.set_thresholds(thresholds(now));
            Change::Applied
        },
        adopt: |running, now| {
            running.disk.warn_usage = now.disk.warn_usage;
            running.disk.stop_usage = now.disk.stop_usage;
            running.storage.max_disk_usage = now.storage.max_disk_usage;
        },
    },
    Part {
        keys: &["tracing.sample_ratio", "tracing.slow_request"],
        apply: |of, _, now| {
            of.traces.set_sampling(sampling(now));
            Change::Applied
        },
        adopt: |running, now| {
            running.tracing.sample_ratio = now.tracing.sample_ratio;
            running.tracing.slow_request = now.tracing.slow_request;
        },
    },
    Part {
        keys: &["cluster.nodes"],
        apply: |of, _, now| {
            of.book.reconfigure(&addresses(now));
            Change::Applied
        },
        adopt: |running, now| running.cluster.nodes = now.cluster.nodes.clone(),
    },
    Part {
        keys: &["security"],
        apply: |of, before, now| {
            if before.security.speaks_tls() != now.security.speaks_tls() {
                return Change::NeedsRestart;
            }
            let switched = of.security.switch(now.security.files());
            switched.map_or_else(|problems| Change::Failed(problems.join("; ")), |()| Change::Applied)
        },
        adopt: |running, now| running.security = now.security.clone(),
    },
];

impl Reloader {
    /// `told`: what stands open, which the log has.
    pub(super) fn new(
        config: &Config,
        parts: &Parts,
        (listening, told): (Listening, Vec<String>),
        set_log_level: SetLogLevel,
    ) -> Arc<Self> {
        Arc::new(Self {
            running: Mutex::new(config.clone()),
            quotas: Arc::clone(&parts.requests.quotas),
            jobs: Arc::clone(&parts.jobs),
            scrub: Arc::clone(&parts.scrub_throttle),
            disk: Arc::clone(&parts.health.disk),
            traces: Arc::clone(&parts.requests.handles.traces),
            book: parts.requests.peers.book.clone(),
            security: Arc::clone(&parts.security),
            set_log_level,
            watch: Arc::clone(&parts.health.reloads),
            time: Arc::clone(&parts.time),
            listening,
            told: Mutex::new(told),
            reloaded: Notify::new(),
        })
    }

    /// Has `now`, which was checked, take effect as far as it can, and reads the files of `[security]` again. Tells of each key
    /// that had changed what became of it. May block: it reads files.
    pub fn reload(&self, now: &Config) -> Vec<Outcome> {
        let mut running = self.running.lock();
        let mut changed = differing(&running, now);
        let mut outcomes = Vec::new();
        for part in &PARTS {
            let keys = take(&mut changed, part.keys);
            if keys.is_empty() {
                continue;
            }
            let change = (part.apply)(self, &running, now);
            if change == Change::Applied {
                (part.adopt)(&mut running, now);
            }
            let outcome = |key| Outcome {
                key,
                change: change.clone(),
            };
            outcomes.extend(keys.into_iter().map(outcome));
        }
        let others = changed.into_iter().map(|key| Outcome {
            key,
            change: Change::NeedsRestart,
        });
        outcomes.extend(others);
        let looked = self.security.look().into_iter().map(of_look);
        let news = looked.filter(|look| !outcomes.contains(look)).collect::<Vec<_>>();
        outcomes.extend(news);
        self.note(outcomes.clone(), None);
        self.reloaded.notify_one();
        self.tell_what_is_open(&running);
        outcomes
    }

    /// What was told before and is still so is not told again.
    fn tell_what_is_open(&self, running: &Config) {
        let mut told = self.told.lock();
        *told = exposure::tell(running, &self.listening, &told);
    }

    /// The rates in force of compaction and of the walk over all tables, in bytes a second.
    #[must_use]
    pub fn rates(&self) -> (u64, u64) {
        (self.jobs.pace(), self.scrub.bytes_per_second())
    }

    /// Takes note that a configuration was refused: nothing has changed.
    pub fn refused(&self, why: &str) {
        self.note(Vec::new(), Some(why.to_owned()));
    }

    /// Reads the files of `[security]` again, and has them take effect if they are others. Says when to look again. May block.
    fn look_at_files(&self) -> Duration {
        let running = self.running.lock();
        let outcomes: Vec<Outcome> = self.security.look().into_iter().map(of_look).collect();
        let told = outcomes.clone();
        if self.watch.note_look(self.time.now_ms(), outcomes) {
            tell(&told);
        }
        running.security.check_interval
    }

    fn note(&self, outcomes: Vec<Outcome>, refused: Option<String>) {
        if let Some(why) = &refused {
            tracing::error!(why, "the configuration was not reloaded; nothing has changed");
        } else if outcomes.is_empty() {
            tracing::info!("the configuration was reloaded: nothing had changed");
        }
        tell(&outcomes);
        self.watch.note(Reload {
            at_ms: self.time.now_ms(),
            outcomes,
            refused,
        });
    }
}

fn tell(outcomes: &[Outcome]) {
    for Outcome { key, change } in outcomes {
        match change {
            Change::Applied => tracing::info!(key, "reloaded"),
            Change::NeedsRestart => {
                tracing::warn!(key, "needs a restart: the running node keeps the value that it has");
            }
            Change::Failed(why) => tracing::error!(key, why, "not reloaded; what was in force stays"),
        }
    }
}

fn of_look(look: Look) -> Outcome {
    Outcome {
        key: look.key.to_owned(),
        change: look.problem.map_or(Change::Applied, Change::Failed),
    }
}

/// Looks at the files of `[security]` again and again, as long as there are any.
pub(super) async fn watch_files(reloader: Arc<Reloader>, mut every: Duration) {
    let mut files = reloader.security.files();
    while files.wait_for(|files| !files.is_empty()).await.is_ok() {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            // The interval may be another one.
            () = reloader.reloaded.notified() => {}
        }
        let reloader = Arc::clone(&reloader);
        match tokio::task::spawn_blocking(move || reloader.look_at_files()).await {
            Ok(next) => every = next,
            Err(error) => tracing::error!(%error, "a look at the files of [security] failed"),
        }
    }
}

/// The keys whose values differ.
fn differing(one: &Config, other: &Config) -> BTreeSet<String> {
    let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
    // A configuration that was read can be written.
    flatten("", &serde_json::to_value(one).unwrap_or_default(), &mut left);
    flatten("", &serde_json::to_value(other).unwrap_or_default(), &mut right);
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let differs = |key: &&String| left.get(*key) != right.get(*key);
    keys.into_iter().filter(differs).cloned().collect()
}

fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    let Value::Object(object) = value else {
        into.insert(path.to_owned(), value.clone());
        return;
    };
    for (name, value) in object {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        flatten(&path, value, into);
    }
}

/// Takes those that belong to one of `names`.
fn take(keys: &mut BTreeSet<String>, names: &[&str]) -> Vec<String> {
    let is_within = |key: &str| {
        let is_below = |name: &&str| {
            key.strip_prefix(*name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        names.iter().any(is_below)
    };
    let (taken, left) = std::mem::take(keys).into_iter().partition(|key| is_within(key));
    *keys = left;
    let taken: BTreeSet<String> = taken;
    taken.into_iter().collect()
}
