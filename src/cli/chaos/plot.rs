//! A page with throughput and latency over time, and each kill marked: one file, which needs nothing else.
//!
//! Owns: how it looks. Does not own: the numbers (see [`super::report`]).

use super::history::Moment;
use super::report::{COLUMN, Column, Report};
use std::fmt::Write;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 30.0;
/// Kills beyond this many are not marked one by one: the marks would cover everything.
const MOST_MARKS: usize = 2000;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pairdb-node chaos</title>\n<style>\n\
:root{color-scheme:light dark;--ink:#1b1b1b;--paper:#fff;--line:#0b62c4;--bad:#c2261c;--mark:#c2261c55;--grid:#8884}\n\
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#161616;--line:#6fb1ff;--bad:#ff7a70;--mark:#ff7a7066}}\n\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1320px;margin:2rem auto;padding:0 1rem}\n\
svg{width:100%;height:auto}text{fill:var(--ink);font-size:14px}.g{stroke:var(--grid)}.l{fill:none;stroke:var(--line);stroke-width:1.5}\n\
.f{fill:none;stroke:var(--bad);stroke-width:1.5}.k{stroke:var(--mark)}pre{font-size:14px;overflow-x:auto}\n\
</style></head><body>\n";

/// The page.
pub(super) fn page(report: &Report, columns: &[Column], kills: &[Moment]) -> String {
    let mut page = HEAD.to_owned();
    let verdict = if report.is_well() { "held" } else { "did not hold" };
    let _ = writeln!(
        page,
        "<h1>The node {verdict}</h1>\n<pre>{}</pre>",
        escaped(&report.text())
    );
    let per_second = 1e9 / COLUMN as f64;
    let rate = |column: &Column| column.done as f64 * per_second;
    let failed = |column: &Column| column.failed as f64 * per_second;
    let p99 = |column: &Column| column.p99_us as f64 / 1000.0;
    chart(
        &mut page,
        "Calls answered a second (red: answered UNAVAILABLE)",
        columns,
        kills,
        &[("l", &rate), ("f", &failed)],
    );
    chart(
        &mut page,
        "Latency, p99 of each tenth of a second, in ms",
        columns,
        kills,
        &[("l", &p99)],
    );
    page.push_str("<p>A vertical line is a kill.</p>\n</body></html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

type Value<'a> = &'a dyn Fn(&Column) -> f64;

fn chart(page: &mut String, title: &str, columns: &[Column], kills: &[Moment], lines: &[(&str, Value<'_>)]) {
    let highest = columns
        .iter()
        .flat_map(|column| lines.iter().map(|(_, value)| value(column)))
        .fold(1.0, f64::max);
    let step = WIDTH / columns.len().max(1) as f64;
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}\">\n<text x=\"{LEFT}\" y=\"18\">{title}</text>",
        right + 10.0,
        bottom + 30.0
    );
    for quarter in 0..=4 {
        let y = bottom - HEIGHT * f64::from(quarter) / 4.0;
        let value = highest * f64::from(quarter) / 4.0;
        let _ = writeln!(
            page,
            "<line class=\"g\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>",
            LEFT - 8.0,
            y + 5.0
        );
    }
    for kill in kills.iter().take(MOST_MARKS) {
        let x = LEFT + *kill as f64 / COLUMN as f64 * step;
        let _ = writeln!(
            page,
            "<line class=\"k\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"
        );
    }
    for (class, value) in lines {
        let points: String = columns
            .iter()
            .enumerate()
            .map(|(place, column)| {
                let x = LEFT + (place as f64 + 0.5) * step;
                format!("{x:.1},{:.1} ", bottom - HEIGHT * value(column) / highest)
            })
            .collect();
        let _ = writeln!(page, "<polyline class=\"{class}\" points=\"{points}\"/>");
    }
    let seconds = columns.len() as f64 * COLUMN as f64 / 1e9;
    for tenth in 0..=10 {
        let x = LEFT + WIDTH * f64::from(tenth) / 10.0;
        let at = seconds * f64::from(tenth) / 10.0;
        let _ = writeln!(
            page,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at:.0} s</text>",
            bottom + 20.0
        );
    }
    page.push_str("</svg>\n");
}
