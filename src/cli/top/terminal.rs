//! The terminal while the live view has it.
//!
//! Owns: that it is one, its modes, its size, and that it is as before when the view ends, however that comes. Does not own:
//! what is shown.

use super::super::Failure;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, Write, stdin, stdout};
use std::panic;
use std::sync::Arc;

/// The other screen, no cursor, lines that are cut and not wrapped.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// All of it back.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Columns and rows of a terminal that does not say.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// The terminal; as before when this is dropped.
pub(super) struct Terminal {
    before: Arc<Termios>,
}

impl Terminal {
    /// Takes the terminal of standard input and output: keys come one by one, and are not shown.
    pub(super) fn take() -> Result<Self, Failure> {
        if !isatty(stdin()) || !isatty(stdout()) {
            return Err(Failure::from(
                "top needs a terminal, and standard input or output is none; `pairdb-node status` prints the same once",
            ));
        }
        let refused = |error| format!("cannot set the terminal's mode: {error}");
        let before = Arc::new(tcgetattr(stdin()).map_err(refused)?);
        let mut raw = Termios::clone(&before);
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw).map_err(refused)?;
        let terminal = Self { before };
        // What a panic says must stand where it is seen.
        let (hook, before) = (panic::take_hook(), Arc::clone(&terminal.before));
        panic::set_hook(Box::new(move |what| {
            restore(&before);
            hook(what);
        }));
        put(ENTER)?;
        Ok(terminal)
    }

    /// Columns and rows.
    #[allow(clippy::unused_self, reason = "who asks must have taken it")]
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => USUAL_SIZE,
        }
    }

    /// Shows lines in place of what was shown, from the top.
    #[allow(clippy::unused_self, reason = "who shows must have taken it")]
    pub(super) fn show(&self, lines: &[String]) -> io::Result<()> {
        // Each line takes the place of the old one, so that nothing flickers. What is below the last goes before it is shown: at
        // the right edge the cursor stands on its last character.
        let last = lines.len().saturating_sub(1);
        let clear = |at: usize| if at == last { "\x1b[J" } else { "\x1b[K" };
        let lines = lines.iter().enumerate();
        let lines: Vec<String> = lines.map(|(at, line)| format!("{}{line}\x1b[0m", clear(at))).collect();
        put(&format!("\x1b[H{}", lines.join("\r\n")))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Where it fails there is no terminal any more.
fn restore(before: &Termios) {
    let _ = put(LEAVE);
    let _ = tcsetattr(stdin(), OptionalActions::Flush, before);
}
