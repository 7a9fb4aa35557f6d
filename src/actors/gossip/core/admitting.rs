//! Whom this node listens to, and what it is told by whoever does not listen to it.
//!
//! What somebody sends again who has no key must change nothing. Packets of a life that this node knows are let in once
//! ([`super::super::window`]); those of an earlier life, and those for another node, are not. Nor is news that was for an earlier
//! life of this node: it has just begun, and cannot know how old that is (foca keeps its own messages apart in the same way). All
//! that is left are announcements, which are for whoever is at a place, of a life that this node does not know: one of a node that died long
//! ago looks like that of one that has just begun. Such a sender is asked first, and counts when it answers.
//!
//! Owns: that, and the later lives that follow from it. Does not own: what a packet that is believed does.

use super::super::contents::{Content, Packet, Word};
use super::super::identity::Identity;
use super::super::window::Window;
use super::super::wire::Refused;
use super::{Core, Event};
use bytes::BytesMut;
use foca::{Codec, Header, Message, PostcardCodec};
use std::time::Duration;

/// Time within which two renewals for the same cause are no chance.
const TWICE: Duration = Duration::from_secs(60);
/// Time in which questions to strangers are the same: an answer counts in this time, and in the next.
const ASKED_FOR: Duration = Duration::from_secs(60);

impl Core {
    /// Whether a packet is one to listen to. [`false`]: its sender was asked whether it is there, or may not be asked yet.
    ///
    /// # Errors
    /// Why it does not count.
    pub(super) fn admit(&mut self, packet: &Packet<'_>) -> Result<bool, Refused> {
        let (own, from) = (self.foca.identity(), &packet.from);
        if !from.is_possible() {
            return Err(Refused::Undecodable);
        }
        if from.node_id == own.node_id {
            if from.supersedes(own) {
                self.events.push(Event::Rival(from.clone()));
            }
            return Err(Refused::OwnId);
        }
        let is_for_this_node = match &packet.content {
            Content::Protocol { to, .. } => to.as_ref().is_none_or(|to| *to == own.node_id),
            Content::Word { word, to } => to.is(own, word.is_for_any_life()),
        };
        if !is_for_this_node {
            return Err(Refused::Misdirected);
        }
        let known = self.known(&from.node_id).map(foca::Member::id);
        let is_known = known == Some(from);
        if let Some(known) = known.filter(|known| known.supersedes(from)).cloned() {
            if self.may_answer(from) {
                self.say(from, Word::Superseded { by: known });
            }
            return Err(Refused::Superseded);
        }
        match &packet.content {
            Content::Protocol { is_call: true, .. } if !is_known => {
                if self.may_answer(from) {
                    let question = self.question();
                    self.say(from, Word::AreYouThere { question });
                }
                return Ok(false);
            }
            Content::Word {
                word: Word::Here { question },
                ..
            } if !self.has_asked(*question) => return Err(Refused::Replayed),
            _ => {}
        }
        let windows = &mut self.windows;
        if let Some(window) = windows.get_mut(&from.node_id) {
            return match window.admit(from.incarnation, packet.number) {
                true => Ok(true),
                false => Err(Refused::Replayed),
            };
        }
        windows.insert(from.node_id.clone(), Window::new(from.incarnation, packet.number));
        Ok(true)
    }

    /// Whether a packet may be answered that somebody may send again and again: one of each life in a probe interval.
    pub(super) fn may_answer(&mut self, from: &Identity) -> bool {
        let life = (from.node_id.clone(), from.incarnation);
        let before = self.answered.get(&life);
        let is_due = before.is_none_or(|at| self.now.saturating_sub(*at) >= self.pace.probe_interval);
        if is_due {
            self.answered.insert(life, self.now);
        }
        is_due
    }

    /// What strangers are asked now. It is no secret, and need not be one: who answers signs it.
    fn question(&self) -> u64 {
        self.secret.wrapping_add(self.now.as_secs() / ASKED_FOR.as_secs())
    }

    fn has_asked(&self, question: u64) -> bool {
        self.question().wrapping_sub(question) <= 1
    }

    /// One who announced itself, and was not known, is there: what it announced counts now.
    pub(super) fn is_there(&mut self, from: &Identity) {
        let header = Header {
            src: from.clone(),
            src_incarnation: 0,
            dst: self.foca.identity().clone(),
            message: Message::Announce,
        };
        let mut announcement = BytesMut::new();
        let encoded = PostcardCodec.encode_header(&header, &mut announcement);
        if encoded.is_ok() {
            // It was understood once.
            let _ = self.protocol(from, &announcement);
        }
    }

    /// The cluster knows this node's id in a later life, or somebody else by it.
    pub(super) fn superseded(&mut self, from: &Identity, by: &Identity) {
        let own = self.foca.identity().clone();
        // Two nodes of one id would drive each other on.
        let is_early = self
            .renewed_at
            .is_some_and(|at| self.now.saturating_sub(at) < self.pace.probe_interval);
        let Some(incarnation) = by.incarnation.checked_add(1) else {
            return;
        };
        if by.node_id != own.node_id || !by.supersedes(&own) || is_early {
            return;
        }
        let is_again = self.renewed_at.is_some_and(|at| self.now.saturating_sub(at) < TWICE);
        if is_again && by.address != own.address {
            self.events.push(Event::Rival(by.clone()));
        }
        self.renewed_at = Some(self.now);
        self.renew(Identity::new(own.node_id, own.address, incarnation));
        self.announce(from.clone());
    }

    pub(super) fn renew(&mut self, identity: Identity) {
        let changed = self.foca.change_identity(identity, &mut self.runtime);
        debug_assert!(changed.is_ok(), "{changed:?}");
        self.come_back();
        self.settle();
    }

    /// After a change of identity: foca waits for a packet before it goes on, and the record of the life before is old.
    pub(super) fn come_back(&mut self) {
        self.is_connected = false;
        self.events.push(Event::Renewed(self.foca.identity().clone()));
        let resumed = self.foca.apply_many(std::iter::empty(), false, &mut self.runtime);
        debug_assert!(resumed.is_ok(), "{resumed:?}");
        self.told = 0;
        if let Some((_, report)) = self.last_told.take() {
            self.tell(report, true);
        }
    }
}
