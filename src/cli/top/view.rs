//! What the person who looks has chosen: the order of the actors, and from which on they are shown.
//!
//! Owns: those choices, and the order. Does not own: how it is drawn.

use crate::rpc::admin_pb as pb;
use std::cmp::Ordering;

/// What a key wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    /// The next order of the actors, or the one before.
    Sort {
        forward: bool,
    },
    Scroll(Scroll),
}

/// How far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scroll {
    Lines(isize),
    Pages(isize),
    Top,
    Bottom,
}

/// The order of the actors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// As they were started, children below their parent.
    #[default]
    Tree,
    Restarts,
    Depth,
    Queue,
    Work,
}

const SORTS: [Sort; 5] = [Sort::Tree, Sort::Restarts, Sort::Depth, Sort::Queue, Sort::Work];

impl Sort {
    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Restarts => "restarts",
            Self::Depth => "depth",
            Self::Queue => "queue p99",
            Self::Work => "work p99",
        }
    }

    fn next(self, forward: bool) -> Self {
        let at = SORTS.iter().position(|sort| *sort == self).unwrap_or(0);
        let next = if forward { at + 1 } else { at + SORTS.len() - 1 };
        SORTS.get(next % SORTS.len()).copied().unwrap_or_default()
    }

    /// The most first; those that are alike as they were started.
    fn compare(self, one: &pb::Actor, other: &pb::Actor) -> Ordering {
        let handling = |actor: &pb::Actor| actor.handling.unwrap_or_default();
        let depth = |actor: &pb::Actor| actor.mailbox.unwrap_or_default().messages;
        match self {
            Self::Tree => Ordering::Equal,
            Self::Restarts => other.restarts.cmp(&one.restarts),
            Self::Depth => depth(other).cmp(&depth(one)),
            Self::Queue => handling(other).queued_p99_us.total_cmp(&handling(one).queued_p99_us),
            Self::Work => handling(other).worked_p99_us.total_cmp(&handling(one).worked_p99_us),
        }
    }
}

/// The choices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) sort: Sort,
    /// Actors above the first that is shown.
    pub(super) above: usize,
}

impl View {
    /// Does what is wanted, of `actors` of which a page shows `page`; what quits is not this one's business.
    pub(super) fn follow(&mut self, wish: Wish, actors: usize, page: usize) {
        let most = actors.saturating_sub(page);
        let by = |lines: isize| self.above.min(most).saturating_add_signed(lines).min(most);
        let page = isize::try_from(page.max(1)).unwrap_or(1);
        match wish {
            Wish::Quit => {}
            Wish::Sort { forward } => {
                *self = Self {
                    sort: self.sort.next(forward),
                    above: 0,
                }
            }
            Wish::Scroll(Scroll::Lines(lines)) => self.above = by(lines),
            Wish::Scroll(Scroll::Pages(pages)) => self.above = by(pages.saturating_mul(page)),
            Wish::Scroll(Scroll::Top) => self.above = 0,
            Wish::Scroll(Scroll::Bottom) => self.above = most,
        }
    }

    /// The actors in their order, each with its depth in the tree.
    pub(super) fn ordered(self, actors: &[pb::Actor]) -> Vec<(&pb::Actor, usize)> {
        if self.sort != Sort::Tree {
            let mut ordered: Vec<_> = actors.iter().map(|actor| (actor, 0)).collect();
            ordered.sort_by(|(one, _), (other, _)| self.sort.compare(one, other));
            return ordered;
        }
        let is_child = |actor: &&pb::Actor| actors.iter().any(|parent| parent.name == actor.parent);
        let mut ordered = Vec::new();
        for root in actors.iter().filter(|actor| !is_child(actor)) {
            ordered.push((root, 0));
            let children = actors.iter().filter(|actor| actor.parent == root.name);
            ordered.extend(children.map(|child| (child, 1)));
        }
        ordered
    }
}
