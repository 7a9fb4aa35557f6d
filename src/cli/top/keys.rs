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

const ESCAPE: u8 = 0x1b;

/// What all keys in `typed` want, in their order; a key without a meaning wants nothing.
pub(super) fn wishes(mut typed: &[u8]) -> Vec<Wish> {
    let mut wishes = Vec::new();
    while let Some((key, behind)) = typed.split_at_checked(length(typed)).filter(|(key, _)| !key.is_empty()) {
        let sequence = SEQUENCES.iter().find(|(sequence, _)| *sequence == key);
        wishes.extend(match (sequence, key) {
            (Some((_, wish)), _) => Some(*wish),
            (None, [key]) => of_key(*key),
            (None, _) => None,
        });
        typed = behind;
    }
    wishes
}

/// Bytes of the first key: of a key without a character they are several, and none of them is a key by itself (ECMA-48, 5.4:
/// parameters, then a final byte).
fn length(typed: &[u8]) -> usize {
    match typed {
        // F1 to F5 of Linux's console.
        [ESCAPE, b'[', b'[', b' '..=b'~', ..] => 4,
        [ESCAPE, b'[', rest @ ..] => {
            let parameters = rest.iter().take_while(|byte| matches!(byte, b' '..=b'?')).count();
            2 + parameters + usize::from(matches!(rest.get(parameters), Some(b'@'..=b'~')))
        }
        [ESCAPE, b'O', b' '..=b'~', ..] => 3,
        // With Alt.
        [ESCAPE, b' '..=b'~', ..] => 2,
        [] => 0,
        _ => 1,
    }
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

    #[test]
    fn what_a_sequence_is_made_of_is_no_key() {
        for (name, sequence) in [
            ("F2", "\x1bOQ"),
            ("F4", "\x1bOS"),
            ("F3 with Shift", "\x1b[1;2S"),
            ("F4 of the console", "\x1b[[q"),
            ("Alt-q", "\x1bq"),
            ("a sequence that is cut off", "\x1b[1;"),
            ("a report of the mouse", "\x1b[<0;5;5q"),
        ] {
            assert_eq!(wishes(sequence.as_bytes()), [], "{name}");
            let before_another = [b"g", sequence.as_bytes(), b"\x03"].concat();
            let wanted = [Wish::Scroll(Scroll::Top), Wish::Quit];
            assert_eq!(wishes(&before_another), wanted, "{name}, and Ctrl-C");
        }
    }
}
