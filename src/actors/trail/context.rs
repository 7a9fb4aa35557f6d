//! Where a piece of work stands among all traces, as W3C Trace Context has it.
//!
//! Owns: the ids, and the header `traceparent`. Does not own: what is done with a trace.

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use std::cell::RefCell;
use std::fmt;

thread_local! {
    static CHANCE: RefCell<SmallRng> = RefCell::new(SmallRng::from_os_rng());
}

/// Bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// A span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace: u128,
    /// The span; never 0.
    pub span: u64,
    /// Whether whoever began the trace, or we, keep it.
    pub sampled: bool,
}

impl TraceContext {
    /// The first span of a new trace.
    #[must_use]
    pub fn root() -> Self {
        let trace =
            CHANCE.with_borrow_mut(|chance| u128::from(chance.next_u64()) << 64 | u128::from(chance.next_u64()));
        Self {
            trace: trace.max(1),
            span: span_id(),
            sampled: false,
        }
    }

    /// This span, if it is kept for certain. One that is not may be kept all the same, when its request fails or is slow, but
    /// that is only known at its end; and a link to what nobody has is worth nothing.
    #[must_use]
    pub fn if_sampled(self) -> Option<Self> {
        self.sampled.then_some(self)
    }

    /// A span below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span: span_id(),
            ..*self
        }
    }

    /// Reads a `traceparent`. One that is not as the standard has it is [`None`], as if there were none; of a later version
    /// only what version 00 has is read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = text.splitn(5, '-');
        let mut part = |length: usize| parts.next().filter(|part| part.len() == length && is_hex(part));
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        if version == "ff" || (version == "00" && text.len() != LENGTH) {
            return None;
        }
        let context = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace != 0 && context.span != 0).then_some(context)
    }

    /// Whether a share `ratio` of all traces has this one among it. Whoever asks for the same trace gets the same answer.
    #[must_use]
    pub fn is_in_ratio(&self, ratio: f64) -> bool {
        let place = (self.trace as u64) >> 1;
        (place as f64) < ratio * (1_u64 << 63) as f64
    }
}

/// As a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span, flags) = (self.trace, self.span, u8::from(self.sampled));
        write!(f, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

/// An id for a span.
#[must_use]
pub fn span_id() -> u64 {
    CHANCE.with_borrow_mut(SmallRng::next_u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_it_was_written() {
        for sampled in [false, true] {
            let context = TraceContext {
                sampled,
                ..TraceContext::root()
            };
            assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        }
        let known = TraceContext {
            trace: 0x4bf9,
            span: 0xf067,
            sampled: true,
        };
        let text = "00-00000000000000000000000000004bf9-000000000000f067-01";
        assert_eq!(known.to_string(), text);
    }

    #[test]
    fn what_is_no_traceparent_is_passed_over() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(TraceContext::parse(good).unwrap().sampled);
        let later = "42-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes";
        assert!(TraceContext::parse(later).is_some());
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_ratio_is_kept() {
        let kept = |ratio| (0..10_000).filter(|_| TraceContext::root().is_in_ratio(ratio)).count();
        assert_eq!((kept(0.0), kept(1.0)), (0, 10_000));
        let some = kept(0.1);
        assert!((800..1200).contains(&some), "{some}");
    }
}
