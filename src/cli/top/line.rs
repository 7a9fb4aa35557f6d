//! A line of the screen: texts, each with its paint, cut where the terminal ends.
//!
//! Owns: how wide texts are, and the terminal's codes for paint. Does not own: what stands in the line.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What a text looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Faint,
    Strong,
    Good,
    Warn,
    Bad,
    Head,
}

impl Paint {
    /// The terminal's own colours, so that they fit its background.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Faint => "\x1b[2m",
            Self::Strong => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[1;33m",
            Self::Bad => "\x1b[1;31m",
            Self::Head => "\x1b[7m",
        }
    }
}

/// One line.
#[derive(Debug, Clone, Default)]
pub(super) struct Line(Vec<(String, Paint)>);

impl Line {
    pub(super) fn of(text: impl Into<String>, paint: Paint) -> Self {
        Self(vec![(text.into(), paint)])
    }

    pub(super) fn add(&mut self, text: impl Into<String>, paint: Paint) {
        self.0.push((text.into(), paint));
    }

    /// Adds all of another line.
    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Makes all of it faint: it is old.
    pub(super) fn fade(&mut self) {
        for (_, paint) in self.0.iter_mut().filter(|(_, paint)| *paint != Paint::Head) {
            *paint = Paint::Faint;
        }
    }

    /// Columns that it takes.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(text, _)| text.width()).sum()
    }

    /// What a terminal is sent for it; without colours when they are not wanted.
    pub(super) fn for_terminal(&self, columns: usize, colours: bool) -> String {
        let mut room = columns;
        let mut sent = String::new();
        for (text, paint) in &self.0 {
            let text = cut(text, room);
            room = room.saturating_sub(text.width());
            let code = if colours || *paint == Paint::Head {
                paint.code()
            } else {
                ""
            };
            sent.push_str(code);
            sent.push_str(&text);
            if !code.is_empty() {
                sent.push_str("\x1b[0m");
            }
        }
        sent
    }
}

/// As much of a text as fits into so many columns; the last says that there was more.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut room = columns.saturating_sub(1);
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= room;
        room = room.saturating_sub(width);
        fits
    };
    let mut short: String = text.chars().take_while(fits).collect();
    if columns > 0 {
        short.push('…');
    }
    short
}

/// A text that takes exactly so many columns.
pub(super) fn padded(text: &str, columns: usize) -> String {
    let text = cut(text, columns);
    let gap = columns.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(gap))
}
