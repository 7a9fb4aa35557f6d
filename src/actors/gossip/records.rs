//! What the nodes have said of themselves: the latest of each, which is what is passed on.
//!
//! Owns: that nothing old replaces what is newer, or is spread again. Does not own: how often it is passed on (foca).

use super::record::{Record, Report};
use compact_str::CompactString;
use foca::{BroadcastHandler, Invalidates};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Most nodes whose words are remembered: what others say must not fill the memory.
const MOST: usize = 10_000;

/// A record, and when it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// What was said.
    pub record: Arc<Record>,
    /// When, by [`crate::storage::time::Time::elapsed`].
    pub at: Duration,
}

impl Heard {
    /// The same with another report: what was measured since.
    pub(super) fn with(&self, report: Report) -> Self {
        let mut record = Record::clone(&self.record);
        record.report = report;
        Self {
            record: Arc::new(record),
            at: self.at,
        }
    }
}

#[derive(Debug)]
pub(super) struct Records {
    own: CompactString,
    latest: HashMap<CompactString, Heard>,
    pub(super) now: Duration,
    /// What came last was more than numbers.
    pub(super) has_news: bool,
}

impl Records {
    pub(super) fn new(own: CompactString, now: Duration) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            own,
            latest: HashMap::new(),
            now,
            has_news: false,
        }))
    }

    pub(super) fn get(&self, node_id: &str) -> Option<&Heard> {
        self.latest.get(node_id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Heard> {
        self.latest.values()
    }

    /// Puts back what was heard before.
    pub(super) fn restore(&mut self, heard: Heard) {
        self.latest.insert(heard.record.node_id.clone(), heard);
    }

    /// Forgets those of whom `keep` says no.
    pub(super) fn retain(&mut self, keep: impl Fn(&str, Duration) -> bool) {
        self.latest.retain(|node_id, heard| keep(node_id, heard.at));
    }

    /// Takes a record in, unless it is old. Says whether it did.
    fn take(&mut self, record: Record) -> bool {
        let before = self.latest.get(&record.node_id);
        if before.is_some_and(|before| before.record.order() >= record.order())
            || before.is_none() && self.latest.len() >= MOST
        {
            return false;
        }
        self.has_news |= before.is_none_or(|before| record.report.is_news_after(&before.record.report));
        let heard = Heard {
            record: Arc::new(record),
            at: self.now,
        };
        self.latest.insert(heard.record.node_id.clone(), heard);
        true
    }
}

/// What foca asks of them.
pub(super) struct Spread(pub(super) Arc<Mutex<Records>>);

/// Which record something in foca's queue is.
pub(super) struct Which {
    node_id: CompactString,
    order: (u64, u64),
}

impl Invalidates for Which {
    fn invalidates(&self, other: &Self) -> bool {
        self.node_id == other.node_id && self.order >= other.order
    }
}

impl<T> BroadcastHandler<T> for Spread {
    type Key = Which;
    type Error = Infallible;

    fn receive_item(&mut self, data: &[u8], sender: Option<&T>) -> Result<Option<Which>, Infallible> {
        let Some(record) = Record::decode(data) else {
            return Ok(None);
        };
        let mut records = self.0.lock();
        // Nobody else knows better what this node is.
        if sender.is_some() && record.node_id == records.own {
            return Ok(None);
        }
        let which = Which {
            node_id: record.node_id.clone(),
            order: record.order(),
        };
        Ok(records.take(record).then_some(which))
    }
}
