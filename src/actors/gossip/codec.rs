//! How foca's headers and members are laid out in a packet: as postcard has it.
//!
//! Owns: that an announcement to whoever is at a place is one to the node that reads it, and that no member is taken in that
//! no node can be. Does not own: what else stands in a packet (see [`super::contents`]).

use super::identity::Identity;
use bytes::{Buf, BufMut};
use compact_str::CompactString;
use foca::{Header, Member, Message, PostcardCodec};

pub(super) struct Codec {
    /// The id of the node that reads.
    pub(super) own: CompactString,
}

impl foca::Codec<Identity> for Codec {
    type Error = postcard::Error;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), postcard::Error> {
        PostcardCodec.encode_header(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, postcard::Error> {
        let mut header: Header<Identity> = PostcardCodec.decode_header(buf)?;
        if header.message == Message::Announce && header.dst.node_id.is_empty() {
            let there = &header.dst;
            header.dst = Identity::new(self.own.clone(), there.address, there.incarnation);
        }
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), postcard::Error> {
        PostcardCodec.encode_member(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, postcard::Error> {
        let member: Member<Identity> = PostcardCodec.decode_member(buf)?;
        match member.id().is_possible() {
            true => Ok(member),
            false => Err(postcard::Error::DeserializeBadEncoding),
        }
    }
}
