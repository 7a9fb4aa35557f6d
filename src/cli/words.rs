//! Numbers and texts as a person reads them in a terminal.
//!
//! Owns: their units, and that no text does anything to a terminal but stand there. Does not own: what is shown.

use bytesize::ByteSize;
use std::time::Duration;

pub(super) fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

/// Microseconds in the unit that fits; a dash for 0, which says that there were none.
pub(super) fn micros(us: f64) -> String {
    match us {
        us if us <= 0.0 => "–".to_owned(),
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e5 => format!("{:.1} ms", us / 1e3),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A number a second, with a decimal where that matters.
pub(super) fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

/// Milliseconds, to the second.
pub(super) fn duration(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms / 1000)).to_string()
}

/// A text of the node as a terminal may have it: a character that would move the cursor, change colours or turn the direction
/// of the text is shown as one that does nothing.
pub(super) fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    text.chars()
        .map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_unit_that_fits() {
        let times = [0.0, 38.2, 999.4, 1500.0, 99_940.0, 245_000.0, 1_980_000.0].map(micros);
        assert_eq!(times, ["–", "38 µs", "999 µs", "1.5 ms", "99.9 ms", "245 ms", "1.98 s"]);
        assert_eq!(
            [0.0, 0.25, 9.9, 12.3, 12_345.0].map(rate),
            ["0", "0.2", "9.9", "12", "12345"]
        );
        assert_eq!(duration(3_601_999), "1h 1s");
    }

    #[test]
    fn a_hostile_text_only_stands_there() {
        let evil = "a\x1b[2J\x1b]0;title\x07\r\nb\u{9b}31m\u{202e}c\u{200b}";
        let shown = printable(evil);
        assert_eq!(
            shown,
            "a\u{fffd}[2J\u{fffd}]0;title\u{fffd}\u{fffd}\u{fffd}b\u{fffd}31m\u{fffd}c\u{fffd}"
        );
        assert_eq!(printable("größer als 界 🦀"), "größer als 界 🦀");
    }
}
