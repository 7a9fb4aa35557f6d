//! A page with what a run showed, throughput and latency over time, and each kill marked: one file, which needs nothing else.
//!
//! Owns: how it looks. Does not own: the numbers (see [`super::report`]).

use super::report::{COLUMN, Column, Report};
use super::schedule::Strike;
use std::fmt::Write;

const STYLE: &str = include_str!("plot.css");
const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 10.0;
/// Width of a mark: where there are many, they leave half of the room free between them, so that they are told apart when the
/// page is enlarged.
const MARK_WIDTHS: (f64, f64) = (0.02, 1.0);
/// How many digits of a mark's place behind the point: marks are so close that fewer would put one on another.
const MARK_DIGITS: usize = 2;
/// About so many moments are named below a chart.
const MOMENTS: f64 = 10.0;

/// The page.
pub(super) fn page(report: &Report, columns: &[Column], strikes: &[Strike]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>pairdb-node chaos</title>\n<style>\n{STYLE}</style></head><body>\n"
    );
    head(&mut page, report);
    let per_second = 1e9 / COLUMN as f64;
    let rate = |column: &Column| Some(column.done as f64 * per_second);
    let failed = |column: &Column| Some(column.failed as f64 * per_second);
    // Of no calls there is no latency.
    let p99 = |column: &Column| (column.p99_us > 0).then_some(column.p99_us as f64 / 1000.0);
    chart(
        &mut page,
        (
            "Calls per second",
            "<span class=\"key\">answered</span><span class=\"key of-failed\">answered UNAVAILABLE</span>",
        ),
        columns,
        strikes,
        &[("line", &rate), ("failed", &failed)],
    );
    chart(
        &mut page,
        (
            "Latency in ms",
            "<span class=\"key\">p99 of each tenth of a second</span>",
        ),
        columns,
        strikes,
        &[("line", &p99)],
    );
    kills_by_actor(&mut page, report);
    page.push_str("</body></html>\n");
    page
}

/// The verdict, and the numbers behind it.
fn head(page: &mut String, report: &Report) {
    let (verdict, class) = if report.is_well() {
        ("The node held", "held")
    } else {
        ("The node did not hold", "broken")
    };
    // A write into a string does not fail.
    let _ = writeln!(
        page,
        "<h1 class=\"{class}\">{verdict}</h1>\n<p>{:.1} s, seed {}{}</p>\n<div class=\"tiles\">",
        report.seconds,
        report.seed,
        if report.process_killed {
            "; in the end the process was killed under load and started again"
        } else {
            ""
        }
    );
    let back = (
        report.unavailable_p50_ms,
        report.unavailable_p99_ms,
        report.unavailable_max_ms,
    );
    tile(
        page,
        "Violations",
        &report.violations.to_string(),
        "of what clients may see",
        report.violations > 0,
    );
    tile(
        page,
        "Without an answer",
        &report.hung.to_string(),
        "calls",
        report.hung > 0,
    );
    let operations = format!("{} in all", report.operations);
    tile(
        page,
        "Operations per second",
        &format!("{:.0}", report.ops_per_s),
        &operations,
        false,
    );
    if let (Some(rate), Some(ratio)) = (report.undisturbed_ops_per_s, report.ratio) {
        let beside = format!("of {rate:.0} per second without faults");
        tile(page, "Rate kept", &format!("{:.1} %", ratio * 100.0), &beside, false);
    }
    let restarts = format!(
        "{} at points, {} pairs; {} restarts of actors",
        report.kills_at_points, report.pairs, report.restarts
    );
    tile(page, "Kills", &report.kills.to_string(), &restarts, false);
    tile(
        page,
        "Answered UNAVAILABLE",
        &report.unavailable.to_string(),
        "calls",
        false,
    );
    let others = format!("median; p99 {:.1} ms, longest {:.1} ms", back.1, back.2);
    tile(
        page,
        "Without a call that succeeds",
        &format!("{:.1} ms", back.0),
        &others,
        false,
    );
    page.push_str("</div>\n");
    if !report.is_well() {
        page.push_str("<ul class=\"card violations\">\n");
        for violation in report.violated.iter().chain(&report.missed) {
            let _ = writeln!(page, "<li>{}</li>", escaped(violation));
        }
        page.push_str("</ul>\n");
    }
}

fn tile(page: &mut String, name: &str, number: &str, note: &str, is_bad: bool) {
    let class = if is_bad { "card bad" } else { "card" };
    let _ = writeln!(
        page,
        "<div class=\"{class}\"><h2>{name}</h2><b>{number}</b><p>{note}</p></div>"
    );
}

fn kills_by_actor(page: &mut String, report: &Report) {
    page.push_str("<div class=\"card\"><h2>Kills by actor</h2><dl class=\"kills\">\n");
    for (actor, kills) in &report.kills_by_actor {
        let _ = writeln!(page, "<div><dt>{}</dt><dd>{kills}</dd></div>", escaped(actor));
    }
    page.push_str("</dl></div>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

type Value<'a> = &'a dyn Fn(&Column) -> Option<f64>;

/// The next of 1, 2, 5, 10, 20, … that is not below `number`.
fn rounded_up(number: f64) -> f64 {
    let decade = 10_f64.powf(number.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|step| step * decade >= number);
    step.unwrap_or(10.0) * decade
}

/// The kinds of strikes that are told apart, and their words in the legend.
const KINDS: [(&str, &str); 3] = [
    ("kill", "a kill"),
    ("pair", "two at once"),
    ("point", "at a point of its work"),
];

fn kind(strike: &Strike) -> &'static str {
    match (&strike.point, strike.actors.len()) {
        (Some(_), _) => "point",
        (None, 2..) => "pair",
        (None, _) => "kill",
    }
}

/// Each strike as a line of full height: those of a kind are one path, which costs a few bytes a strike.
fn marks(strikes: &[Strike], step: f64) -> String {
    let (thinnest, widest) = MARK_WIDTHS;
    let width = (WIDTH / 2.0 / strikes.len().max(1) as f64).clamp(thinnest, widest);
    let mut text = String::new();
    for (class, _) in KINDS {
        let of_kind = strikes.iter().filter(|strike| kind(strike) == class);
        let place = |strike: &Strike| LEFT + strike.moment as f64 / COLUMN as f64 * step;
        let lines: String = of_kind
            .map(|strike| format!("M{:.MARK_DIGITS$} {TOP}v{HEIGHT}", place(strike)))
            .collect();
        if !lines.is_empty() {
            let _ = writeln!(
                text,
                "<path class=\"strike {class}\" stroke-width=\"{width:.2}\" d=\"{lines}\"/>"
            );
        }
    }
    text
}

fn chart(
    page: &mut String,
    (title, legend): (&str, &str),
    columns: &[Column],
    strikes: &[Strike],
    lines: &[(&str, Value<'_>)],
) {
    let numbers = columns
        .iter()
        .flat_map(|column| lines.iter().filter_map(|(_, value)| value(column)));
    let highest = rounded_up(numbers.fold(1.0, f64::max));
    let step = WIDTH / columns.len().max(1) as f64;
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    let kinds: String = KINDS
        .iter()
        .map(|(class, words)| format!("<span class=\"key of-strike {class}\">{words}</span>"))
        .collect();
    let _ = writeln!(
        page,
        "<div class=\"card\"><h2>{title}</h2><p>{legend}{kinds}</p><div class=\"scroll\">\n\
         <svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}\">",
        right + RIGHT,
        bottom + 26.0
    );
    page.push_str(&marks(strikes, step));
    for part in 0..=4 {
        let (y, value) = (bottom - HEIGHT * f64::from(part) / 4.0, highest * f64::from(part) / 4.0);
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 8.0,
            y + 5.0
        );
    }
    for (class, value) in lines {
        let point = |(place, column): (usize, &Column)| {
            let (x, value) = (LEFT + (place as f64 + 0.5) * step, value(column)?);
            Some(format!("{x:.1},{:.1} ", bottom - HEIGHT * value / highest))
        };
        let points: String = columns.iter().enumerate().filter_map(point).collect();
        let _ = writeln!(page, "<polyline class=\"{class}\" points=\"{points}\"/>");
    }
    let seconds = columns.len() as f64 * COLUMN as f64 / 1e9;
    let every = rounded_up((seconds / MOMENTS).max(1.0));
    for moment in 0..=(seconds / every).floor() as u32 {
        let at = f64::from(moment) * every;
        let _ = writeln!(
            page,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at} s</text>",
            LEFT + at * 1e9 / COLUMN as f64 * step,
            bottom + 20.0
        );
    }
    page.push_str("</svg></div></div>\n");
}

#[cfg(test)]
mod tests {
    use super::super::history::Moment;
    use super::*;

    fn strikes(count: u64, apart: Moment) -> Vec<Strike> {
        let strike = |number| Strike {
            moment: number * apart,
            until: Moment::MAX,
            actors: vec!["wal".to_owned(); if number % 3 == 1 { 2 } else { 1 }],
            point: (number % 3 == 2).then(|| ("before-sync".to_owned(), "panic")),
        };
        (0..count).map(strike).collect()
    }

    #[test]
    fn every_strike_is_marked_by_its_kind_however_many_there_are() {
        for count in [3, 2001, 30_000] {
            let text = marks(&strikes(count, COLUMN), WIDTH / count as f64);
            assert_eq!(text.lines().count(), KINDS.len());
            for ((class, _), line) in KINDS.iter().zip(text.lines()) {
                assert!(line.contains(&format!("class=\"strike {class}\"")), "{line}");
                assert_eq!(line.matches('M').count() as u64, count / 3, "{class}");
            }
        }
        let text = marks(&strikes(2, COLUMN), 100.0);
        let kill = "<path class=\"strike kill\" stroke-width=\"1.00\" d=\"M70.00 10v200\"/>\n";
        let pair = "<path class=\"strike pair\" stroke-width=\"1.00\" d=\"M170.00 10v200\"/>\n";
        assert_eq!(text, [kill, pair].concat());
        assert_eq!(marks(&[], 1.0), "");
    }

    #[test]
    fn the_page_of_the_long_form_is_small_enough_to_be_sent() {
        let column = Column {
            done: 1_234,
            failed: 56,
            p99_us: 78_901,
        };
        let strikes = strikes(25_000, COLUMN / 2);
        let page = page(&Report::default(), &vec![column; 12_500], &strikes);
        assert_eq!(page.matches(&format!("v{HEIGHT}")).count(), 2 * strikes.len());
        // All stand in the chart.
        assert!(page.contains("M70.00 10") && page.contains("M1269.95 10") && !page.contains("M1270.0"));
        assert!(page.len() < 2_000_000, "{}", page.len());
    }
}
