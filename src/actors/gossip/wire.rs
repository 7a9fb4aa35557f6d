//! Who may speak: a packet counts when it was signed with a key that the nodes of the cluster share.
//!
//! A packet is `PG`, a version, the key's id (4 bytes), a tag (16 bytes: HMAC-SHA256 over the cluster's name, the id and the
//! rest), and what it says. Nothing is encrypted: health and addresses are no secrets. That no packet counts twice is
//! [`super::window`]'s business.
//!
//! Owns: the keys, which may be several, so that they can be changed while all nodes run: the first signs, all are
//! accepted. Does not own: where keys come from, or what packets say.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::fmt;

const MAGIC: [u8; 3] = *b"PG\x01";
const ID_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
/// What a packet has before what it says.
const HEAD_BYTES: usize = MAGIC.len() + ID_BYTES + TAG_BYTES;
/// Longest packet, in bytes: with its headers less than the 1500 of Ethernet, also through a tunnel. Where less fits (IPv6 promises
/// no more than 1280) long ones travel in pieces, and one lost piece loses the packet: the gossip bears that.
pub const MAX_PACKET_BYTES: usize = 1400;
/// Longest that it may say.
pub const MAX_CONTENT_BYTES: usize = MAX_PACKET_BYTES - HEAD_BYTES;
/// Keys that are accepted at a time.
const MOST_KEYS: usize = 8;
/// Bytes of a key.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// Why a packet does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is none of ours.
    Malformed,
    /// It names a key that this node does not have.
    UnknownKey,
    /// Its tag is wrong: it was changed on the way, or is of another cluster.
    Forged,
    /// What it says cannot be understood.
    Undecodable,
    /// It came before, or too late.
    Replayed,
    /// Its sender is of a life that is over.
    Superseded,
    /// It is for another node, which was here before, or for an earlier life of this one.
    Misdirected,
    /// It says that it is from this node.
    OwnId,
    /// There is no room for it.
    Full,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::UnknownKey,
        Self::Forged,
        Self::Undecodable,
        Self::Replayed,
        Self::Superseded,
        Self::Misdirected,
        Self::OwnId,
        Self::Full,
    ];

    /// In a word, for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Forged => "forged",
            Self::Undecodable => "undecodable",
            Self::Replayed => "replayed",
            Self::Superseded => "superseded",
            Self::Misdirected => "misdirected",
            Self::OwnId => "own_id",
            Self::Full => "full",
        }
    }
}

#[derive(Clone)]
struct Key {
    id: [u8; ID_BYTES],
    /// That has the key and the cluster's name already.
    mac: Hmac<Sha256>,
}

/// The keys, the one that signs first.
#[derive(Clone)]
pub struct Keys {
    first: Key,
    others: Vec<Key>,
    /// Whether everybody knows them.
    are_nobodys: bool,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.others.len() + 1)
    }
}

impl Keys {
    /// Keys as a file has them: each a line in base64, of 16 to 64 bytes; empty lines and those with `#` first are none.
    ///
    /// # Errors
    /// Which line is wrong, and what would be right, without what it says.
    pub fn parse(text: &str, cluster: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys = lines.map(|(number, line)| {
            let key = STANDARD.decode(line).ok().filter(|key| KEY_BYTES.contains(&key.len()));
            key.and_then(|key| Key::new(&key, cluster)).ok_or_else(|| {
                format!(
                    "line {} is no key: a key is 16 to 64 random bytes in base64, as of `openssl rand -base64 32`",
                    number + 1
                )
            })
        });
        let mut keys = keys.collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() || keys.len() > MOST_KEYS {
            return Err(format!(
                "there must be 1 to {MOST_KEYS} keys, a line each, and there are {}",
                keys.len()
            ));
        }
        let first = keys.remove(0);
        Ok(Self {
            first,
            others: keys,
            are_nobodys: false,
        })
    }

    /// Those of a cluster without a key, which everybody knows: they keep apart clusters that do not want each other, and
    /// nothing else.
    ///
    /// # Errors
    /// None for a key of this length; the library has them.
    pub fn of_nobody(cluster: &str) -> Result<Self, String> {
        let key = Sha256::digest(b"a cluster of PairDB without a key");
        let first = Key::new(&key, cluster).ok_or("the library takes no key of 32 bytes")?;
        Ok(Self {
            first,
            others: Vec::new(),
            are_nobodys: true,
        })
    }

    /// The ids, which every packet shows, in hexadecimal, that of the key that signs first; none in a cluster without a key. An
    /// id is the first four bytes of the SHA-256 of `id of a gossip key` and the key: it says nothing of the key.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let keys = self.all().filter(|_| !self.are_nobodys);
        keys.map(|key| format!("{:08x}", u32::from_be_bytes(key.id))).collect()
    }

    /// Whether both are the same, in the same order.
    #[must_use]
    pub fn are(&self, other: &Self) -> bool {
        let ids = |keys: &Self| -> Vec<_> { keys.all().map(|key| key.id).collect() };
        ids(self) == ids(other)
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Makes a packet of what is to be said.
    #[must_use]
    pub fn seal(&self, content: &[u8]) -> Vec<u8> {
        let key = &self.first;
        let tag = key.mac.clone().chain_update(content).finalize().into_bytes();
        let tag = tag.iter().take(TAG_BYTES).copied();
        let mut packet = Vec::with_capacity(HEAD_BYTES + content.len());
        packet.extend_from_slice(&MAGIC);
        packet.extend_from_slice(&key.id);
        packet.extend(tag);
        packet.extend_from_slice(content);
        packet
    }

    /// What a packet says, if it counts.
    ///
    /// # Errors
    /// Why it does not.
    pub fn open<'a>(&self, packet: &'a [u8]) -> Result<&'a [u8], Refused> {
        if packet.len() > MAX_PACKET_BYTES {
            return Err(Refused::Malformed);
        }
        let rest = packet.strip_prefix(&MAGIC).ok_or(Refused::Malformed)?;
        let (id, rest) = rest.split_first_chunk::<ID_BYTES>().ok_or(Refused::Malformed)?;
        let (tag, content) = rest.split_first_chunk::<TAG_BYTES>().ok_or(Refused::Malformed)?;
        let key = self.all().find(|key| key.id == *id).ok_or(Refused::UnknownKey)?;
        let mac = key.mac.clone().chain_update(content);
        // In the same time whichever byte is wrong.
        mac.verify_truncated_left(tag).map_err(|_| Refused::Forged)?;
        Ok(content)
    }
}

impl Key {
    fn new(key: &[u8], cluster: &str) -> Option<Self> {
        let hash = Sha256::new()
            .chain_update(b"id of a gossip key")
            .chain_update(key)
            .finalize();
        let id = *hash.first_chunk()?;
        let length = u64::try_from(cluster.len()).ok()?.to_le_bytes();
        let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        let mac = mac.chain_update(MAGIC).chain_update(length).chain_update(cluster);
        Some(Self {
            id,
            mac: mac.chain_update(id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[u8]) -> Keys {
        let lines: Vec<_> = keys.iter().map(|key| STANDARD.encode([*key; 32])).collect();
        Keys::parse(&format!("# of the cluster\n\n{}\n", lines.join("\n")), "c").unwrap()
    }

    #[test]
    fn a_packet_counts_whole_and_with_a_key_of_the_cluster_alone() {
        let sealed = keys(&[1]).seal(b"word");
        assert_eq!(keys(&[1]).open(&sealed), Ok(&b"word"[..]));
        assert_eq!(keys(&[2]).open(&sealed), Err(Refused::UnknownKey));
        let another = Keys::parse(&STANDARD.encode([1; 32]), "another").unwrap();
        assert_eq!(another.open(&sealed), Err(Refused::Forged));
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(keys(&[1]).open(&changed).is_err(), "byte {place}");
            assert!(keys(&[1]).open(&sealed[..place]).is_err(), "{place} bytes");
        }
        assert_eq!(keys(&[1]).open(&vec![0; 1401]), Err(Refused::Malformed));
    }

    #[test]
    fn keys_are_changed_in_three_steps_without_a_moment_in_which_two_nodes_do_not_understand_each_other() {
        let steps = [keys(&[1]), keys(&[1, 2]), keys(&[2, 1]), keys(&[2])];
        for pair in steps.windows(2) {
            assert!(pair[0].open(&pair[1].seal(b"word")).is_ok());
            assert!(pair[1].open(&pair[0].seal(b"word")).is_ok());
        }
        assert!(steps[0].open(&steps[2].seal(b"word")).is_err(), "steps are not skipped");
    }

    #[test]
    fn keys_are_told_by_their_ids_the_one_that_signs_first_and_what_everybody_knows_is_no_key() {
        // Of 32 bytes of 1 and of 2, by `(printf 'id of a gossip key'; printf '\1%.0s' $(seq 32)) | sha256sum`.
        assert_eq!(keys(&[1, 2]).ids(), ["b4242e3d", "302933b0"]);
        assert_eq!(keys(&[2, 1]).ids(), ["302933b0", "b4242e3d"]);
        assert_eq!(Keys::of_nobody("c").unwrap().ids(), [""; 0]);
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_line_and_without_its_content() {
        for (text, expected) in [
            ("", "there are 0"),
            ("# none\n", "there are 0"),
            ("\nsecret!", "line 2"),
            ("c2hvcnQ=", "line 1"),
        ] {
            let why = Keys::parse(text, "c").unwrap_err();
            assert!(why.contains(expected) && !why.contains("secret"), "{why}");
        }
        let many = format!("{}\n", STANDARD.encode([7; 32])).repeat(9);
        assert!(Keys::parse(&many, "c").unwrap_err().contains("there are 9"));
    }
}
