//! Logs: level and format. Nothing here ever sees a value or a secret.

use crate::config::{Level, LogFormat, Logging};
use std::io::IsTerminal;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

/// Sends logs to standard error from here on, for the whole process.
///
/// # Errors
/// When it was done before.
pub fn init(logging: &Logging) -> Result<(), TryInitError> {
    let level = match logging.level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    };
    // Of the libraries only what is wrong; ractor also opens a span for each actor that never ends.
    let filter = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("pairdb_node", level)
        .with_target("ractor", LevelFilter::OFF);
    let layer = match logging.format {
        LogFormat::Json => fmt::layer().json().with_writer(std::io::stderr).boxed(),
        LogFormat::Console => fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
}
