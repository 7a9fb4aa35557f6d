//! Logs: what is logged, and in which form.
//!
//! Of the libraries only what is wrong is ever logged: what they carry is the users'. A line that belongs to a request has the
//! ids of its trace and its span.
//!
//! A thread of its own writes the lines. Whoever reads them may be slow, or not read at all: nobody waits for that, and what the
//! queue has no room for is dropped and counted.

use crate::actors::trail;
use crate::config::{LogFormat, Logging};
use parking_lot::Mutex;
use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{DefaultFields, FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

/// The program's own part of all that may be logged.
const OWN: &str = "pairdb_node";

/// Most bytes of a filter: each line that may be logged is held against all of its parts.
const MOST_FILTER: usize = 4096;

/// Lines that wait to be written: more than a node in trouble logs in a second, and of the longest some megabytes.
const QUEUE: usize = 2048;
/// How long the end of a process waits for its last words to be taken.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What is logged now. There is one log in a process.
static CHANGE: OnceLock<Change> = OnceLock::new();

struct Change {
    filter: reload::Handle<Targets, Registry>,
    text: Mutex<String>,
    dropped: ErrorCounter,
}

/// The log of this process. When this is dropped what is queued is written, as far as anybody takes it.
#[must_use]
#[derive(Debug)]
pub struct Log(Option<WorkerGuard>);

impl Drop for Log {
    fn drop(&mut self) {
        // The guard complains on standard output when the queue stays full, and perhaps nobody reads that either.
        let guard = self.0.take();
        last_words(move || drop(guard));
    }
}

/// Has `say` write what a process has to say at its end. Returns when that is done, but also when nobody takes it for some
/// seconds: the process must end all the same, so that it can be started again.
pub fn last_words(say: impl FnOnce() + Send + 'static) {
    let (done, said) = mpsc::channel::<()>();
    let work = move || {
        say();
        drop(done);
    };
    // Without a thread nothing is said, and nobody waits.
    if std::thread::Builder::new()
        .name("pairdb-end".to_owned())
        .spawn(work)
        .is_ok()
    {
        let _ = said.recv_timeout(LAST_WORDS);
    }
}

/// Sends logs to standard error from here on, for the whole process, until what this returns is dropped.
///
/// # Errors
/// When it was done before.
pub fn init(logging: &Logging) -> Result<Log, TryInitError> {
    let level = logging.level.as_str();
    let (filter, change) = reload::Layer::new(filter(level).unwrap_or_default());
    let (lines, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUE)
        .thread_name("pairdb-lines")
        .finish(std::io::stderr());
    let (log, dropped) = (Log(Some(guard)), lines.error_counter());
    let layer = match logging.format {
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .map_event_format(Json)
            .with_writer(lines)
            .boxed(),
        LogFormat::Console => tracing_subscriber::fmt::layer()
            .fmt_fields(Console(DefaultFields::new()))
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(lines)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()?;
    // Set once: a second call has failed above.
    let text = Mutex::new(level.to_owned());
    let _ = CHANGE.set(Change {
        filter: change,
        text,
        dropped,
    });
    Ok(log)
}

/// Lines that were dropped since nobody took them in time.
#[must_use]
pub fn dropped_lines() -> u64 {
    CHANGE.get().map_or(0, |change| change.dropped.dropped_lines() as u64)
}

/// Changes what is logged: a level, and others for parts of the program, as in `info,pairdb_node::actors::wal=trace`. Returns
/// what it was before.
///
/// # Errors
/// In words, when it is nothing of the kind, or this process writes no log.
pub fn set_level(text: &str) -> Result<String, String> {
    let wanted = filter(text)?;
    let change = CHANGE.get().ok_or("this process writes no log")?;
    let mut current = change.text.lock();
    change.filter.reload(wanted).map_err(|error| error.to_string())?;
    tracing::info!(from = *current, to = text, "what is logged was changed");
    Ok(std::mem::replace(&mut *current, text.to_owned()))
}

/// What a filter lets through. Of the libraries, whatever it says, only what is wrong; ractor also opens a span for each actor
/// that never ends.
fn filter(text: &str) -> Result<Targets, String> {
    let length = text.len();
    if length > MOST_FILTER {
        return Err(format!(
            "a filter of {length} bytes; it must have at most {MOST_FILTER}"
        ));
    }
    let level_of = |word: &str| {
        // It takes nothing at all for a level.
        let level = Some(word.trim()).filter(|word| !word.is_empty());
        let level = level.and_then(|word| word.parse::<LevelFilter>().ok());
        level.ok_or_else(|| format!("{word:?} is no level; it must be trace, debug, info, warn, error or off"))
    };
    let (mut level, mut parts) = (LevelFilter::INFO, Vec::new());
    for part in text.split(',') {
        match part.split_once('=') {
            None => level = level_of(part)?,
            Some((target, word)) => {
                let target = target.trim();
                let below = target.strip_prefix(OWN);
                if !below.is_some_and(|below| below.is_empty() || below.starts_with("::")) {
                    return Err(format!(
                        "{target:?} is no part of {OWN}, as {OWN}::actors::wal is; libraries may log what they carry"
                    ));
                }
                parts.push((target.to_owned(), level_of(word)?));
            }
        }
    }
    let all = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(OWN, level)
        .with_target("ractor", LevelFilter::OFF);
    Ok(all.with_targets(parts))
}

/// Lines for people, with the ids of a request behind the other fields.
struct Console(DefaultFields);

impl<'w> FormatFields<'w> for Console {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let ids = trail::current_context();
        let mut own = String::new();
        if let Some(ids) = ids {
            own = format!(" trace_id={:032x} span_id={:016x}", ids.trace, ids.span);
        }
        self.0.format_fields(writer.by_ref(), fields)?;
        writer.write_str(&own)
    }
}

/// Lines for programs, with the ids of a request beside the other fields.
struct Json<F>(F);

impl<S, N, F> FormatEvent<S, N> for Json<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(ids) = trail::current_context() else {
            return self.0.format_event(ctx, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        let open = line.strip_suffix('}').unwrap_or(line);
        let (trace, span) = (ids.trace, ids.span);
        writeln!(
            writer,
            "{open},\"trace_id\":\"{trace:032x}\",\"span_id\":\"{span:016x}\"}}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level as At;

    #[test]
    fn a_filter_is_of_this_program_alone() {
        let lets = |text: &str, target: &str, level: At| filter(text).unwrap().would_enable(target, &level);
        assert!(lets("debug", "pairdb_node::actors", At::DEBUG));
        assert!(!lets("debug", "pairdb_node::actors", At::TRACE));
        assert!(lets(
            "info,pairdb_node::actors::wal=trace",
            "pairdb_node::actors::wal",
            At::TRACE
        ));
        assert!(!lets(
            "info,pairdb_node::actors::wal=trace",
            "pairdb_node::actors::cache",
            At::DEBUG
        ));
        for library in ["h2::proto", "tonic", "hyper"] {
            assert!(!lets("trace", library, At::INFO), "{library}");
            assert!(lets("trace", library, At::WARN), "{library}");
        }
        assert!(!lets("off", "h2::proto", At::ERROR));
        for bad in [
            "",
            "loud",
            "h2=trace",
            "pairdb_nodes=info",
            "info,pairdb_node::rpc=much",
        ] {
            assert!(filter(bad).is_err(), "{bad}");
        }
        let parts = |count| ["pairdb_node=info"; 300][..count].join(",");
        assert!(filter(&parts(100)).is_ok());
        assert!(filter(&parts(300)).unwrap_err().contains("at most 4096"));
    }
}
