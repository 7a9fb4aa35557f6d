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
