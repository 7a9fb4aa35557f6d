//! What is to be done when, by a clock that stands while the node did.
//!
//! A process that was stopped, or a machine that slept, finds all that it waited for overdue at once; what the others answered
//! meanwhile it has not read yet. Judged by the clock, they would be dead. So time in which nothing was done although it was
//! due does not count.
//!
//! Owns: the order, and that clock. Does not own: what is to be done.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Agenda<T> {
    entries: BinaryHeap<Reverse<Entry<T>>>,
    /// Entries so far: of two that are due at the same time the earlier comes first.
    made: u64,
    /// Longest that something may be overdue before that time does not count.
    patience: Duration,
    /// What does not count.
    paused: Duration,
    now: Duration,
}

#[derive(Debug)]
struct Entry<T> {
    due: Duration,
    number: u64,
    task: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl<T> Agenda<T> {
    pub(super) fn new(now: Duration, patience: Duration) -> Self {
        Self {
            entries: BinaryHeap::new(),
            made: 0,
            patience,
            paused: Duration::ZERO,
            now,
        }
    }

    /// It is `now`, by the clock that does not stand.
    pub(super) fn advance(&mut self, now: Duration) {
        let counted = now.saturating_sub(self.paused);
        let due = self.entries.peek().map_or(counted, |Reverse(entry)| entry.due);
        let overdue = counted.saturating_sub(due);
        if overdue > self.patience {
            self.paused += overdue;
        }
        self.now = self.now.max(now.saturating_sub(self.paused));
    }

    pub(super) fn add(&mut self, after: Duration, task: T) {
        self.made += 1;
        self.entries.push(Reverse(Entry {
            due: self.now.saturating_add(after),
            number: self.made,
            task,
        }));
    }

    /// The next that is due now.
    pub(super) fn take(&mut self) -> Option<T> {
        let is_due = self.entries.peek().is_some_and(|Reverse(entry)| entry.due <= self.now);
        is_due
            .then(|| self.entries.pop().map(|Reverse(entry)| entry.task))
            .flatten()
    }

    /// When the next is due, by the clock that does not stand.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let next = self.entries.peek()?;
        Some(next.0.due.saturating_add(self.paused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_due_comes_in_order_and_what_is_not_waits() {
        let mut agenda = Agenda::new(S, S);
        for (after, task) in [(3, "c"), (1, "a"), (1, "b"), (9, "d")] {
            agenda.add(after * S, task);
        }
        agenda.advance(2 * S);
        assert_eq!(
            (agenda.take(), agenda.take(), agenda.take()),
            (Some("a"), Some("b"), None)
        );
        agenda.advance(5 * S);
        assert_eq!((agenda.take(), agenda.take()), (Some("c"), None));
    }

    #[test]
    fn a_pause_makes_nothing_due_but_what_was_due_when_it_began() {
        let mut agenda = Agenda::new(Duration::ZERO, S);
        agenda.add(S, "next");
        agenda.add(10 * S, "verdict");
        agenda.advance(3600 * S);
        assert_eq!((agenda.take(), agenda.take()), (Some("next"), None));
        assert_eq!(agenda.next_due(), Some(3609 * S), "the rest of what it had to wait");
        agenda.advance(3609 * S);
        assert_eq!(agenda.take(), Some("verdict"));
    }
}
