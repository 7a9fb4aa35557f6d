//! The intervals of the gossip, and what follows from them and from the size of the cluster.
//!
//! Owns: what foca is told of it. Does not own: what is done at these intervals (see [`super::core`]).

use super::contents::HEAD_BYTES;
use super::wire::MAX_CONTENT_BYTES;
use foca::{Config, PeriodicParams};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// Members that are told something at once, and that are asked to probe another. With three, one lost probe in 130 would
/// raise a suspicion at 10 % loss; with four, one in 370.
pub(super) const FAN_OUT: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// How often a node passes something on, for each power of ten of nodes: of a hundred one is left out in one of a thousand times.
const TRANSMISSIONS: f64 = 6.0;
/// The least, for a small cluster.
const LEAST_TRANSMISSIONS: u8 = 5;
/// Records that go into a packet, more or less.
const RECORDS_A_PACKET: f64 = 16.0;
/// Copies of records that are made for each that packets have room for.
const COPIES_FOR_ROOM: f64 = 2.0;
/// Probe intervals from a suspicion to a death.
const SUSPICION: u32 = 10;
/// Probe intervals between two questions to one member whom else it knows, and between two to some who are dead.
const ASKING: u32 = 10;
/// The same of how many dead.
const ASKED_DEAD: NonZeroUsize = NonZeroUsize::new(2).unwrap();
/// How long the dead are remembered.
const DEAD_FOR: Duration = Duration::from_secs(24 * 3600);

/// The intervals of the gossip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two rounds in which a node passes on what it has.
    pub gossip_interval: Duration,
    /// Between two probes, each of another member.
    pub probe_interval: Duration,
    /// After this time without an answer others are asked to probe it, too. Shorter than the interval.
    pub probe_timeout: Duration,
}

impl Pace {
    pub(super) fn config(self, members: usize) -> Config {
        let times = |by: u32| self.probe_interval.saturating_mul(by);
        let every = |frequency, num_members| Some(PeriodicParams { frequency, num_members });
        Config {
            probe_period: self.probe_interval,
            probe_rtt: self.probe_timeout,
            num_indirect_probes: FAN_OUT,
            max_transmissions: transmissions(members),
            suspect_to_down_after: times(SUSPICION),
            remove_down_after: Some(DEAD_FOR),
            max_packet_size: NonZeroUsize::new(MAX_CONTENT_BYTES - HEAD_BYTES).unwrap_or(NonZeroUsize::MIN),
            notify_down_members: true,
            periodic_announce: every(times(ASKING), NonZeroUsize::MIN),
            periodic_announce_to_down_members: every(times(ASKING), ASKED_DEAD),
            periodic_gossip: every(self.gossip_interval, FAN_OUT),
        }
    }

    /// The time in which each of so many members may send a record anew: that soon, numbers are old. Packets have room for half as
    /// many copies of each as a node may make. The newest go first, so every node passes each record on some six times, which is
    /// enough for what comes again; what is news goes to members at once, and does not wait for room.
    pub(super) fn round_of_all(self, members: usize) -> Duration {
        let each = |interval: Duration| interval.as_secs_f64();
        let packets = 2.0 / each(self.probe_interval) + FAN_OUT.get() as f64 / each(self.gossip_interval);
        let copies = members as f64 * f64::from(transmissions(members).get());
        Duration::from_secs_f64(copies / (COPIES_FOR_ROOM * packets * RECORDS_A_PACKET))
    }
}

fn transmissions(members: usize) -> NonZeroU8 {
    // It fits for a cluster of any size: it is at most 116.
    let wanted = (TRANSMISSIONS * (members as f64 + 2.0).log10()).ceil() as u8;
    NonZeroU8::new(wanted.max(LEAST_TRANSMISSIONS)).unwrap_or(NonZeroU8::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interval_goes_where_foca_has_it() {
        let [gossip_interval, probe_interval, probe_timeout] = [3, 7, 2].map(Duration::from_secs);
        let pace = Pace {
            gossip_interval,
            probe_interval,
            probe_timeout,
        };
        let config = pace.config(100);
        assert_eq!((config.probe_period, config.probe_rtt), (probe_interval, probe_timeout));
        let passed_on = config.periodic_gossip.unwrap();
        assert_eq!((passed_on.frequency, passed_on.num_members), (gossip_interval, FAN_OUT));
        assert_eq!(config.suspect_to_down_after, 10 * probe_interval);
    }

    #[test]
    fn of_a_thousand_each_sends_its_numbers_as_often_as_the_readme_says() {
        let shipped = Pace {
            gossip_interval: Duration::from_secs(5),
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
        };
        assert_eq!(shipped.round_of_all(1000).as_secs(), 212);
    }
}
