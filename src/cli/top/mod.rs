//! `top`: how a running node is, live in a terminal.
//!
//! Owns: what happens when: answers, keys, a terminal of another size, the end. Does not own: the terminal (`terminal`), what
//! is shown (`screen`), or asking (`asking`).

mod asking;
mod cluster;
mod keys;
mod line;
mod screen;
mod terminal;
mod view;

use super::{Failure, Running};
use clap::Args;
use screen::{Known, screen};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use terminal::Terminal;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use view::{View, Wish};

/// Shortest time between two questions.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    node: Running,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
}

pub(super) async fn run(args: &TopArgs) -> Result<ExitCode, Failure> {
    if args.interval < LEAST_INTERVAL {
        return Err(format!("--interval {:?}: must be at least {LEAST_INTERVAL:?}", args.interval).into());
    }
    let socket = args.node.socket()?;
    // Caught before the terminal is another one: each would leave it so.
    let (mut resized, mut ended) = (signal(SignalKind::window_change())?, signal(SignalKind::terminate())?);
    let (mut interrupted, mut hung_up) = (signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let mut quit = signal(SignalKind::quit())?;
    let terminal = Terminal::take()?;
    let (told, mut answers) = mpsc::channel(1);
    let asking = tokio::spawn(asking::ask(socket, args.interval, told));
    let (typed, mut keys) = mpsc::channel(16);
    // Not awaited: it may be at a read that ends with the process alone.
    tokio::spawn(read_keys(typed));
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut top = Top::new(terminal);
    loop {
        top.draw()?;
        tokio::select! {
            Some(answer) = answers.recv() => top.heard(answer),
            typed = keys.recv() => match typed {
                Some(typed) => if top.typed(&typed) { break },
                // The terminal is gone.
                None => break,
            },
            _ = resized.recv() => {}
            // How old the numbers are goes on.
            _ = second.tick() => {}
            _ = ended.recv() => break,
            _ = interrupted.recv() => break,
            _ = hung_up.recv() => break,
            _ = quit.recv() => break,
        }
    }
    asking.abort();
    Ok(ExitCode::SUCCESS)
}

async fn read_keys(typed: mpsc::Sender<Vec<u8>>) {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 256];
    while let Ok(read @ 1..) = input.read(&mut buffer).await {
        let keys = buffer.get(..read).unwrap_or_default().to_vec();
        if typed.send(keys).await.is_err() {
            return;
        }
    }
}

struct Top {
    terminal: Terminal,
    known: Known,
    /// Why the node does not answer.
    silent: Option<String>,
    heard_at: Instant,
    view: View,
    /// Actors that the screen has room for.
    page: usize,
    colours: bool,
}

impl Top {
    fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            known: Known::default(),
            silent: None,
            heard_at: Instant::now(),
            view: View::default(),
            page: 1,
            // https://no-color.org
            colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    fn heard(&mut self, answer: Result<crate::rpc::admin_pb::StatusResponse, Failure>) {
        match answer {
            Ok(status) => {
                self.known.status = Some(status);
                self.heard_at = Instant::now();
                self.silent = None;
            }
            Err(Failure(why)) => self.silent = Some(why),
        }
    }

    /// Says whether to quit.
    fn typed(&mut self, typed: &[u8]) -> bool {
        let wishes = keys::wishes(typed);
        let actors = self.known.status.as_ref().map_or(0, |status| status.actors.len());
        for wish in &wishes {
            self.view.follow(*wish, actors, self.page);
        }
        wishes.contains(&Wish::Quit)
    }

    fn draw(&mut self) -> std::io::Result<()> {
        let old_ms = u64::try_from(self.heard_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.known.away = self.silent.clone().map(|why| (why, old_ms));
        let size = self.terminal.size();
        let (lines, page) = screen(&self.known, self.view, size);
        self.page = page;
        let lines: Vec<String> = lines
            .iter()
            .take(size.1)
            .map(|line| line.for_terminal(size.0, self.colours))
            .collect();
        self.terminal.show(&lines)
    }
}
