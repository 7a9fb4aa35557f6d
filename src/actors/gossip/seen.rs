//! A node, as another one sees it.
//!
//! Owns: what its life is called. Does not own: how it is found out (foca).

use super::identity::Identity;
use super::records::Heard;
use foca::State;
use std::time::Duration;

/// What is known of whether a member lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It answers.
    Alive,
    /// It does not answer one of the others.
    Suspect,
    /// It is taken for dead.
    Down,
    /// It stopped in order.
    Left,
}

impl Life {
    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        }
    }

    /// Whether the member counts as one that is there.
    #[must_use]
    pub fn is_there(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A node, as this one sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Who it is.
    pub identity: Identity,
    /// Whether it lives.
    pub life: Life,
    /// What it said last of itself.
    pub heard: Option<Heard>,
    /// When something came last from it, or of it, by [`crate::storage::time::Time::elapsed`].
    pub heard_at: Option<Duration>,
}

pub(super) fn life(member: &foca::Member<Identity>, heard: Option<&Heard>) -> Life {
    let said_so = |heard: &Heard| heard.record.report.is_leaving && heard.record.incarnation == member.id().incarnation;
    match member.state() {
        State::Alive => Life::Alive,
        State::Suspect => Life::Suspect,
        State::Down if heard.is_some_and(said_so) => Life::Left,
        State::Down => Life::Down,
    }
}
