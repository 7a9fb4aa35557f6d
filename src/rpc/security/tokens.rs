//! Bearer tokens, by tenant. Of a token only its SHA-256 is kept: whoever reads the file, or the memory, cannot show it.
//!
//! A file has a line for each: a tenant and the digest of a token in hexadecimal, as `pairdb-node token` makes it. A tenant may
//! have several, so that an old one goes when the new one is everywhere; `*` stands for all tenants, and for what concerns the
//! node itself.
//!
//! Owns: the file's format, and whom a token stands for. Does not own: what is allowed to whom (see [`super::Rights`]).

use crate::storage::limits;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use subtle::ConstantTimeEq;

/// Stands for all tenants.
const ALL: &str = "*";
/// Least bytes of a token: shorter ones can be guessed.
pub const LEAST_TOKEN_BYTES: usize = 16;

/// The SHA-256 of a token.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of a token.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        let digits = text.as_bytes().chunks(2);
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, digits) in digest.iter_mut().zip(digits) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(digest))
    }

    /// Where to look for it. That this takes its time tells nothing of a token: only of its digest.
    fn place(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// In hexadecimal.
impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// Whom a token stands for.
struct Grant {
    digest: Digest,
    tenants: BTreeSet<String>,
    is_for_all: bool,
}

/// All tokens of a file.
pub struct Tokens(HashMap<u64, Vec<Grant>>);

impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} tokens", self.0.len())
    }
}

impl Tokens {
    /// Of a file's content.
    ///
    /// # Errors
    /// The first line that is none, and what would be right.
    pub(super) fn of(files: &[Vec<u8>]) -> Result<Self, String> {
        let content = files.first().map(Vec::as_slice).unwrap_or_default();
        let text = std::str::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())?;
        let mut tokens = Self(HashMap::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // The line itself is not told: somebody may have put a token there.
            let wrong = |why: &str| {
                format!(
                    "line {}: {why}; it must be a tenant (or * for all) and the SHA-256 of a token in 64 hexadecimal digits, as \
                     `pairdb-node token new` prints it",
                    number + 1
                )
            };
            let (tenant, digest) = line.rsplit_once(char::is_whitespace).ok_or_else(|| wrong("one word"))?;
            let digest = Digest::parse(digest).ok_or_else(|| wrong("no digest"))?;
            let tenant = tenant.trim();
            limits::check_tenant(tenant).map_err(|_| wrong("no tenant"))?;
            tokens.add(tenant, digest);
        }
        if tokens.0.is_empty() {
            return Err("there is no token in it: nobody could call the node".to_owned());
        }
        Ok(tokens)
    }

    fn add(&mut self, tenant: &str, digest: Digest) {
        let grants = self.0.entry(digest.place()).or_default();
        if let Some(known) = grants.iter_mut().find(|grant| grant.digest.0 == digest.0) {
            known.is_for_all |= tenant == ALL;
            known.tenants.insert(tenant.to_owned());
            return;
        }
        grants.push(Grant {
            digest,
            tenants: BTreeSet::from([tenant.to_owned()]),
            is_for_all: tenant == ALL,
        });
    }

    fn grant(&self, digest: &Digest) -> Option<&Grant> {
        let grants = self.0.get(&digest.place())?;
        grants.iter().find(|grant| grant.digest.0.ct_eq(&digest.0).into())
    }

    /// Whether there is such a token.
    #[must_use]
    pub fn knows(&self, digest: &Digest) -> bool {
        self.grant(digest).is_some()
    }

    /// Whether it stands for this tenant.
    #[must_use]
    pub fn is_of(&self, digest: &Digest, tenant: &str) -> bool {
        let stands = |grant: &Grant| grant.is_for_all || grant.tenants.contains(tenant);
        self.grant(digest).is_some_and(stands)
    }

    /// Whether it stands for all tenants.
    #[must_use]
    pub fn is_of_all(&self, digest: &Digest) -> bool {
        self.grant(digest).is_some_and(|grant| grant.is_for_all)
    }
}

/// The token in a file that has nothing else.
///
/// # Errors
/// In words, without the token.
pub fn read_token(content: &[u8]) -> Result<&str, String> {
    let token = std::str::from_utf8(content)
        .map_err(|_| "is not UTF-8".to_owned())?
        .trim();
    if token.len() < LEAST_TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "is no token, which has one line of at least {LEAST_TOKEN_BYTES} letters, digits and signs"
        ));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Tokens, String> {
        Tokens::of(&[text.as_bytes().to_vec()])
    }

    #[test]
    fn a_token_stands_for_the_tenants_of_its_lines() {
        let (one, two, all) = (Digest::of(b"one"), Digest::of(b"two"), Digest::of(b"all"));
        let text = format!("# of today\n\nacme {one}\n  Big Corp\t{one}\nacme {two}\r\n* {all}\n");
        let tokens = of(&text).unwrap();
        for (digest, tenant, stands) in [
            (one, "acme", true),
            (one, "Big Corp", true),
            (two, "acme", true),
            (two, "Big Corp", false),
            (all, "anybody", true),
            (Digest::of(b"other"), "acme", false),
        ] {
            assert_eq!(tokens.is_of(&digest, tenant), stands, "{tenant}");
        }
        assert!(tokens.is_of_all(&all) && !tokens.is_of_all(&one));
        assert!(tokens.knows(&two) && !tokens.knows(&Digest::of(b"")));
        assert!(!format!("{tokens:?}").contains(&one.to_string()));
    }

    #[test]
    fn a_digest_that_begins_alike_is_another() {
        let mut near = Digest::of(b"one");
        near.0[31] ^= 1;
        let tokens = of(&format!("acme {}", Digest::of(b"one"))).unwrap();
        assert!(!tokens.knows(&near));
    }

    #[test]
    fn what_is_no_line_is_refused_without_being_told() {
        let digest = Digest::of(b"one").to_string();
        for (text, expected) in [
            ("".to_owned(), "there is no token"),
            ("# only this\n".to_owned(), "there is no token"),
            (format!("acme {digest}\nsecret\n"), "line 2"),
            ("acme secret-that-somebody-put-here".to_owned(), "line 1"),
            (format!("acme {}", &digest[1..]), "line 1"),
            (format!("acme é{}", &digest[2..]), "line 1"),
            (format!("a:b {digest}"), "no tenant"),
            (format!(" {digest}"), "one word"),
        ] {
            let error = of(&text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(Tokens::of(&[vec![0xff]]).is_err());
    }
}
