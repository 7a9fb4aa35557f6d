//! What the node tells of itself as it goes: logs, and traces.
//!
//! Owns: how they are written and where they go. Does not own: what is noted for a trace, or which are kept (see
//! [`crate::actors::trail`]). Nothing here ever sees a value or a secret.

mod exporter;
mod logs;
mod panics;
mod spans;

pub use exporter::{Exporter, sampling, start};
pub use logs::{Log, dropped_lines, init, last_words, set_level};
pub use panics::log_panics;
