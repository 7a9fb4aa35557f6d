//! What a node tells the others of itself.
//!
//! Owns: its content, its versions, and what of it is news. Does not own: how it is measured (see [`super::measuring`]) or
//! spread (see [`super::records`]).

use crate::actors::address_book::NodeAddress;
use crate::actors::health::Status;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// Layout of a record. One with another number is for those who know it, and is neither read nor passed on.
const FORMAT: u8 = 1;
/// Longest version of the program that is believed.
const MAX_VERSION_BYTES: usize = 64;

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// In a word.
    pub status: Status,
    /// Its log takes no writes any more.
    pub is_latched: bool,
    /// It was told to drain, and takes no writes until that is taken back.
    pub is_draining: bool,
    /// Its disk is so full that writes are refused.
    pub is_disk_full: bool,
    /// It stops, in order.
    pub is_leaving: bool,
    /// Share of the machine's processors that it used in the last minute; of the memory that it may have, and of its fullest
    /// disk, what is used now: 0 to 1.
    pub cpu: f32,
    /// See `cpu`.
    pub memory: f32,
    /// See `cpu`.
    pub disk: f32,
    /// Reads and writes a second.
    pub requests_per_s: f32,
    /// Share of them that failed, 0 to 1.
    pub error_rate: f32,
    /// Share of the cache's answers that were hits, 0 to 1.
    pub cache_hit_rate: f32,
}

impl Report {
    /// Whether it says something after `before` for which nobody should wait. Numbers alone do not.
    #[must_use]
    pub fn is_news_after(&self, before: &Self) -> bool {
        let words = |report: &Self| {
            (
                report.status,
                report.is_latched,
                report.is_draining,
                report.is_disk_full,
                report.is_leaving,
            )
        };
        words(self) != words(before)
    }

    /// With shares that are shares, and numbers that are numbers: what is not one is 0.
    fn sound(mut self) -> Self {
        for share in [
            &mut self.cpu,
            &mut self.memory,
            &mut self.disk,
            &mut self.error_rate,
            &mut self.cache_hit_rate,
        ] {
            *share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        }
        let rate = self.requests_per_s;
        self.requests_per_s = if rate.is_finite() { rate.max(0.0) } else { 0.0 };
        self
    }
}

/// A report with who says it. The later one of a node counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    format: u8,
    /// Who says it.
    pub node_id: CompactString,
    /// In which life (see [`super::identity::Identity`]).
    pub incarnation: u64,
    /// The how manieth of that life.
    pub number: u64,
    host: CompactString,
    port: u16,
    /// Of the program.
    pub version: CompactString,
    /// What is said.
    pub report: Report,
}

impl Record {
    /// What the node says that is reached at `address`.
    #[must_use]
    pub fn new(
        (node_id, incarnation): (CompactString, u64),
        number: u64,
        address: &NodeAddress,
        version: &str,
        report: Report,
    ) -> Self {
        Self {
            format: FORMAT,
            node_id,
            incarnation,
            number,
            host: address.host.as_str().into(),
            port: address.port,
            version: version.into(),
            report,
        }
    }

    /// Where the node answers gRPC.
    #[must_use]
    pub fn address(&self) -> NodeAddress {
        NodeAddress {
            host: self.host.to_string(),
            port: self.port,
        }
    }

    /// Which of two of a node is the later one.
    #[must_use]
    pub fn order(&self) -> (u64, u64) {
        (self.incarnation, self.number)
    }

    /// As it travels.
    ///
    /// # Errors
    /// None for what there is; the encoder has them.
    pub fn encode(&self) -> postcard::Result<Vec<u8>> {
        postcard::to_allocvec(self)
    }

    /// Reads one; [`None`]: it is none, or of another layout, or no node can say so.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.first() != Some(&FORMAT) {
            return None;
        }
        let (mut record, _) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        let address = record.address();
        let fits = NodeAddress::parse(&address.to_string()).as_ref() == Some(&address)
            && !record.node_id.is_empty()
            && record.version.len() <= MAX_VERSION_BYTES
            && !record.version.chars().any(char::is_control);
        record.report = record.report.sound();
        fits.then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            status: Status::Healthy,
            is_latched: false,
            is_draining: false,
            is_disk_full: false,
            is_leaving: false,
            cpu: 0.5,
            memory: f32::NAN,
            disk: 7.0,
            requests_per_s: f32::INFINITY,
            error_rate: -1.0,
            cache_hit_rate: 0.25,
        }
    }

    fn record(host: &str, version: &str) -> Record {
        let address = NodeAddress {
            host: host.into(),
            port: 50_052,
        };
        Record::new(("n1".into(), 5), 1, &address, version, report())
    }

    #[test]
    fn a_record_arrives_as_it_was_sent_but_for_numbers_that_are_none() {
        let sent = record("10.0.0.1", "1.2");
        let read = Record::decode(&sent.encode().unwrap()).unwrap();
        assert_eq!((read.address(), read.order()), (sent.address(), (5, 1)));
        let report = read.report;
        assert_eq!((report.cpu, report.memory, report.disk), (0.5, 0.0, 1.0));
        assert_eq!((report.requests_per_s, report.error_rate), (0.0, 0.0));
    }

    #[test]
    fn what_no_node_can_say_is_refused_at_every_length_and_in_every_layout() {
        let sent = record("10.0.0.1", "1.2").encode().unwrap();
        for length in 0..sent.len() {
            assert!(Record::decode(&sent[..length]).is_none(), "{length} bytes");
        }
        let mut other = sent.clone();
        other[0] = FORMAT + 1;
        assert!(Record::decode(&other).is_none());
        for bad in [
            record("", "1"),
            record("a b", "1"),
            record("h", "1\n2"),
            record("h", &"1".repeat(65)),
        ] {
            assert!(Record::decode(&bad.encode().unwrap()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn words_are_news_and_numbers_are_not() {
        let before = report();
        let mut numbers = before;
        numbers.cpu = 0.9;
        assert!(!numbers.is_news_after(&before));
        let mut words = before;
        words.is_draining = true;
        assert!(words.is_news_after(&before));
    }
}
