//! What stands in a packet, once it is known to be of the cluster: a number that its sender gives out once, and either a
//! message of foca or a word of ours.
//!
//! Owns: that layout. Does not own: signatures (see [`super::wire`]), or what follows from a packet.

use super::identity::Identity;
use compact_str::CompactString;
use foca::{Header, Message};
use serde::{Deserialize, Serialize};

const PROTOCOL: u8 = 0;
const WORD: u8 = 1;
/// Kind and number.
pub(super) const HEAD_BYTES: usize = 9;

/// What nodes say to each other beside foca's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// Whoever reads this is suspected: it did not answer in time. `refutations` is how often it was suspected before.
    Suspected { of: Identity, refutations: u16 },
    /// Whoever reads this is not believed: of its node id, `by` is known, which counts more.
    Superseded { by: Identity },
    /// A record for which nobody should wait. Beside foca's queue: when a large cluster starts, that is long.
    News(Vec<u8>),
    /// Whoever reads this announced itself to one that does not know it, and is to say `question` back.
    AreYouThere { question: u64 },
    /// It does, and still announces itself.
    Here { question: u64 },
}

impl Word {
    /// Whether it is for a node whatever its life: these say which one they are about, to a node that may have begun another.
    pub(super) fn is_for_any_life(&self) -> bool {
        matches!(self, Self::Suspected { .. } | Self::Superseded { .. })
    }
}

/// Whom a word is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receiver {
    node_id: CompactString,
    incarnation: u64,
}

impl Receiver {
    /// Whether that is `own`, in this life; with `in_any_life`, in another.
    pub(super) fn is(&self, own: &Identity, in_any_life: bool) -> bool {
        self.node_id == own.node_id && (in_any_life || self.incarnation == own.incarnation)
    }
}

impl From<&Identity> for Receiver {
    fn from(identity: &Identity) -> Self {
        Self {
            node_id: identity.node_id.clone(),
            incarnation: identity.incarnation,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Said {
    word: Word,
    from: Identity,
    to: Receiver,
}

/// A packet that was read.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) number: u64,
    pub(super) from: Identity,
    pub(super) content: Content<'a>,
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    /// For foca.
    Protocol {
        message: &'a [u8],
        /// The id of the node that it is for; [`None`]: whoever is there.
        to: Option<CompactString>,
        /// It is an announcement.
        is_call: bool,
    },
    Word {
        word: Word,
        to: Receiver,
    },
}

/// A message of foca as a packet.
pub(super) fn protocol(number: u64, message: &[u8]) -> Vec<u8> {
    [&[PROTOCOL], number.to_le_bytes().as_slice(), message].concat()
}

/// A word as a packet.
///
/// # Errors
/// None for what there is; the encoder has them.
pub(super) fn word(number: u64, from: Identity, to: &Identity, word: Word) -> postcard::Result<Vec<u8>> {
    let to = Receiver::from(to);
    let said = postcard::to_allocvec(&Said { word, from, to })?;
    Ok([&[WORD], number.to_le_bytes().as_slice(), said.as_slice()].concat())
}

/// Reads a packet; [`None`]: it is none.
pub(super) fn read(packet: &[u8]) -> Option<Packet<'_>> {
    let (kind, rest) = packet.split_first()?;
    let (number, rest) = rest.split_first_chunk()?;
    let number = u64::from_le_bytes(*number);
    let (from, content) = match *kind {
        PROTOCOL => {
            let (header, _) = postcard::take_from_bytes::<Header<Identity>>(rest).ok()?;
            let to = header.dst.node_id;
            let content = Content::Protocol {
                message: rest,
                is_call: header.message == Message::Announce,
                to: Some(to).filter(|to| !to.is_empty()),
            };
            (header.src, content)
        }
        WORD => {
            let Said { word, from, to } = postcard::from_bytes(rest).ok()?;
            (from, Content::Word { word, to })
        }
        _ => return None,
    };
    Some(Packet { number, from, content })
}
