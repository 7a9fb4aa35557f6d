//! The simulated machine: its clock, and the configuration of the node on it.

use bytesize::ByteSize;
use pairdb_node::actors::gossip::names::NameService;
use pairdb_node::actors::threads::Threads;
use pairdb_node::config::Config;
use pairdb_node::node::Machine;
use pairdb_node::storage::fs::SimFs;
use pairdb_node::storage::time::Time;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The name by which the node signs writes without a clock.
pub const NODE: &str = "simulated";
/// Longest time that a call may take.
pub const CALL_WITHIN: Duration = Duration::from_secs(5);

/// The runtime's clock, which a test has paused: it moves when everybody waits.
#[derive(Debug)]
struct SimTime {
    origin: Instant,
    /// What the machine's clock showed at the origin.
    before: Duration,
    /// Who sleeps on the only thread there is cannot wait for it to get on.
    slept: Mutex<Duration>,
}

impl Time for SimTime {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).expect("a time of our days")
    }

    fn elapsed(&self) -> Duration {
        self.before + self.origin.elapsed() + *self.slept.lock()
    }

    fn sleep(&self, time: Duration) {
        *self.slept.lock() += time;
    }
}

/// A machine on which `before` has passed already. To be called in its runtime.
pub fn machine(fs: &SimFs, before: Duration, seed: u64) -> Machine {
    Machine {
        fs: Arc::new(fs.clone()),
        time: Arc::new(SimTime {
            origin: Instant::now(),
            before,
            slept: Mutex::default(),
        }),
        threads: Threads::simulated(seed),
        name_service: NameService::system(),
    }
}

/// A node with little room everywhere, so that everything happens often.
pub fn config(chance: &mut SmallRng) -> Config {
    let mut config = Config::default();
    config.metrics.enabled = false;
    config.server.node_id = NODE.to_owned();
    config.server.port = 0;
    config.server.read_timeout = CALL_WITHIN;
    config.server.write_timeout = CALL_WITHIN;
    config.admin.port = 0;
    config.admin.fault_injection = true;
    config.storage.data_dir = PathBuf::from("/simulated/data");
    config.mem_table.flush_threshold = ByteSize::kib(chance.random_range(8..=32));
    config.mem_table.max_size = ByteSize::kib(256);
    config.mem_table.num_mem_tables = chance.random_range(2..=3);
    config.commit_log.segment_size = ByteSize::kib(chance.random_range(16..=64));
    config.commit_log.buffer_size = ByteSize::b(chance.random_range(500..=8000));
    config.commit_log.max_age = Duration::from_secs(chance.random_range(1..=60));
    config.compaction.l0_trigger = chance.random_range(2..=4);
    config.compaction.workers = chance.random_range(1..=2);
    config.compaction.throttle = 0;
    config.disk.scrub_interval = Duration::ZERO;
    config.supervisor.max_restarts = 100_000;
    config.supervisor.stuck_after = Duration::from_secs(2);
    // With no room for anything, every read is one of the view. In between, what is evicted follows from hashes that no
    // seed determines.
    if chance.random_ratio(1, 4) {
        config.cache.max_size = ByteSize::b(0);
    }
    config
}
