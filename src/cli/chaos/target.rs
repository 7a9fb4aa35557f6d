//! The node that is broken: one that runs, or one of its own that is started for it.
//!
//! Owns: that process and its directory. Does not own: what is done to its actors.

use crate::cli::Failure;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Longest time until it answers.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A node of its own. It ends, and its data go, when this is dropped.
pub(super) struct OwnNode {
    dir: PathBuf,
    port: u16,
    admin_port: u16,
    process: Child,
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn serve(dir: &Path, port: u16, admin_port: u16) -> Result<Child, Failure> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("node.log"))?;
    let process = Command::new(std::env::current_exe()?)
        .arg("serve")
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .env("PAIRDB__ADMIN__FAULT_INJECTION", "true")
        .env("PAIRDB__ADMIN__PORT", admin_port.to_string())
        // So many ends in so short a time are wanted here.
        .env("PAIRDB__SUPERVISOR__MAX_RESTARTS", "100000")
        .env("PAIRDB__LOGGING__LEVEL", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    Ok(process)
}

impl OwnNode {
    pub(super) async fn start() -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("pairdb-chaos-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let (port, admin_port) = (free_port()?, free_port()?);
        let process = serve(&dir, port, admin_port)?;
        let mut node = Self {
            dir,
            port,
            admin_port,
            process,
        };
        node.wait().await?;
        Ok(node)
    }

    pub(super) fn addr(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn admin_addr(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin_port)
    }

    /// Kills the process as it stands, and starts it again.
    pub(super) async fn kill_and_start(&mut self) -> Result<(), Failure> {
        self.process.kill().await?;
        self.process = serve(&self.dir, self.port, self.admin_port)?;
        self.wait().await
    }

    /// Until it takes calls, and faults.
    async fn wait(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        for port in [self.port, self.admin_port] {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                if let Some(status) = self.process.try_wait()? {
                    let said = std::fs::read_to_string(self.dir.join("node.log")).unwrap_or_default();
                    return Err(format!("the node ended ({status}): {said}").into());
                }
                if begun.elapsed() > START_WITHIN {
                    return Err("the node does not answer".into());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        // What is left of it is found in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
