//! What a person sees while a run goes on, on standard error; nothing, where that is not a terminal.

use super::load::Shared;
use super::schedule::{Node, restarts, targets};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two updates of the display.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// Shows how it goes, until what is returned is finished. `before`: how often each actor of the node had been started.
pub(super) fn show(
    shared: &Arc<Shared>,
    duration: Duration,
    mut node: Node,
    before: HashMap<String, u64>,
) -> ProgressBar {
    let bar = ProgressBar::new(duration.as_secs());
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {bar:20} {msg}") {
        bar.set_style(style);
    }
    let (shown, shared) = (bar.clone(), Arc::clone(shared));
    tokio::spawn(async move {
        let (mut last, mut restarted) = (0, 0);
        while !shown.is_finished() {
            tokio::time::sleep(SHOW_EVERY).await;
            if let Ok(targets) = targets(&mut node).await {
                restarted = restarts(&before, &targets);
            }
            let done = shared.done.load(Ordering::Relaxed);
            let rate = (done - last) as f64 / SHOW_EVERY.as_secs_f64();
            last = done;
            shown.set_position(shared.origin.elapsed().as_secs());
            shown.set_message(message(&shared, rate, restarted));
        }
    });
    bar
}

fn message(shared: &Shared, rate: f64, restarts: u64) -> String {
    let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    format!(
        "{rate:.0} calls/s, {} kills, {restarts} restarts, {} unavailable, {} violations",
        count(&shared.kills),
        count(&shared.unavailable),
        count(&shared.violations)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_rate_kills_restarts_unavailability_and_violations() {
        let shared = Shared::new();
        shared.kills.store(3, Ordering::Relaxed);
        shared.unavailable.store(5, Ordering::Relaxed);
        shared.violations.store(1, Ordering::Relaxed);
        assert_eq!(
            message(&shared, 12_345.6, 4),
            "12346 calls/s, 3 kills, 4 restarts, 5 unavailable, 1 violations"
        );
    }
}
