//! How this node is, and the others: when that is told, and to whom.
//!
//! Owns: what is news, and that it reaches members at once. Does not own: what a node says (see
//! [`super::super::record`]).

use super::super::contents::Word;
use super::super::record::{Record, Report};
use super::Core;
use rand::seq::IteratorRandom;
use std::time::Duration;

/// Shortest time between two pieces of news of this node.
const BETWEEN_NEWS: Duration = Duration::from_millis(250);
/// Members to whom a node gives news on when it hears them first: that reaches all but one of 400, and so does the second time.
const PUSHES: usize = 6;
/// Longest time after which news are told once more, for those whom they did not reach.
const AGAIN: Duration = Duration::from_secs(2);

impl Core {
    /// Takes how the node is now, and spreads it if it is time to.
    pub fn report(&mut self, now: Duration, report: Report) {
        self.advance(now);
        self.measured = Some(report);
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

    /// Spreads how this node is.
    pub(super) fn tell(&mut self, report: Report, is_news: bool) {
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
    pub(super) fn pass_on(&mut self, record: Vec<u8>) {
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
}
