//! What is typed, as what is wanted.
//!
//! Owns: which key does what. Does not own: doing it.

use super::view::{Scroll, Wish};

/// Sequences that a terminal sends for keys without a character, in both their forms.
const SEQUENCES: [(&[u8], Wish); 10] = [
    (b"\x1b[A", Wish::Scroll(Scroll::Lines(-1))),
    (b"\x1bOA", Wish::Scroll(Scroll::Lines(-1))),
    (b"\x1b[B", Wish::Scroll(Scroll::Lines(1))),
    (b"\x1bOB", Wish::Scroll(Scroll::Lines(1))),
    (b"\x1b[5~", Wish::Scroll(Scroll::Pages(-1))),
    (b"\x1b[6~", Wish::Scroll(Scroll::Pages(1))),
    (b"\x1b[H", Wish::Scroll(Scroll::Top)),
    (b"\x1b[1~", Wish::Scroll(Scroll::Top)),
    (b"\x1b[F", Wish::Scroll(Scroll::Bottom)),
    (b"\x1b[4~", Wish::Scroll(Scroll::Bottom)),
];
/// Ctrl-C and Ctrl-D, which are keys while the terminal sends them as they are.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;

/// What all keys in `typed` want, in their order; a key without a meaning wants nothing.
pub(super) fn wishes(mut typed: &[u8]) -> Vec<Wish> {
    let mut wishes = Vec::new();
    while let Some((first, rest)) = typed.split_first() {
        let sequence = SEQUENCES.iter().find(|(sequence, _)| typed.starts_with(sequence));
        let (wish, behind) = match sequence {
            Some((sequence, wish)) => (Some(*wish), typed.get(sequence.len()..).unwrap_or_default()),
            None => (of_key(*first), rest),
        };
        wishes.extend(wish);
        typed = behind;
    }
    wishes
}

fn of_key(key: u8) -> Option<Wish> {
    match key {
        b'q' | b'Q' | CTRL_C | CTRL_D => Some(Wish::Quit),
        b's' => Some(Wish::Sort { forward: true }),
        b'S' => Some(Wish::Sort { forward: false }),
        b'k' => Some(Wish::Scroll(Scroll::Lines(-1))),
        b'j' => Some(Wish::Scroll(Scroll::Lines(1))),
        b' ' => Some(Wish::Scroll(Scroll::Pages(1))),
        b'b' => Some(Wish::Scroll(Scroll::Pages(-1))),
        b'g' => Some(Wish::Scroll(Scroll::Top)),
        b'G' => Some(Wish::Scroll(Scroll::Bottom)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_sequences_of_keys() {
        let all = wishes(b"s\x1b[Bx\x1bOA\x1b[99zG\x03");
        let wanted = [
            Wish::Sort { forward: true },
            Wish::Scroll(Scroll::Lines(1)),
            Wish::Scroll(Scroll::Lines(-1)),
            Wish::Scroll(Scroll::Bottom),
            Wish::Quit,
        ];
        assert_eq!(all, wanted);
        assert_eq!(wishes(b"\x1b"), [], "Escape alone quits nothing");
    }
}
