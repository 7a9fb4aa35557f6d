//! The operations on a simulated disk: their trace, and which of them fail.
//!
//! Owns: numbering, faults and the loss of power. Does not own: what an operation does.

use std::io;
use std::path::{Path, PathBuf};

/// What a program asked of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// Make directories.
    CreateDir,
    /// Make a file.
    Create,
    /// Open a file to write to it.
    Open,
    /// Read a file.
    Read,
    /// Write to a file.
    Write,
    /// Have a part of a file go to the disk.
    WriteOut,
    /// Make a file's bytes durable.
    Sync,
    /// Cut a file.
    Truncate,
    /// List a directory.
    List,
    /// Rename a file.
    Rename,
    /// Give a file a second name.
    Link,
    /// Remove a file.
    Remove,
    /// Make a directory's names durable.
    SyncDir,
    /// Ask for the space left.
    Space,
    /// Lock a directory.
    Lock,
}

impl OperationKind {
    /// Whether it changes what programs see.
    #[must_use]
    pub fn is_change(self) -> bool {
        match self {
            Self::CreateDir
            | Self::Create
            | Self::Write
            | Self::Truncate
            | Self::Rename
            | Self::Link
            | Self::Remove => true,
            Self::Open
            | Self::Read
            | Self::WriteOut
            | Self::Sync
            | Self::List
            | Self::SyncDir
            | Self::Space
            | Self::Lock => false,
        }
    }

    /// Whether it makes something durable.
    #[must_use]
    pub fn is_sync(self) -> bool {
        matches!(self, Self::Sync | Self::SyncDir)
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub kind: OperationKind,
    /// Of which file or directory, by the name that it had then.
    pub path: PathBuf,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The device does not do it (EIO).
    Device,
    /// There is no space (ENOSPC).
    Full,
}

impl Failure {
    fn error(self) -> io::Error {
        const EIO: i32 = 5;
        const ENOSPC: i32 = 28;
        io::Error::from_raw_os_error(match self {
            Self::Device => EIO,
            Self::Full => ENOSPC,
        })
    }
}

/// Operations that are to fail. A write that fails has written the first half of its bytes; another operation that fails
/// has done nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind that fails; [`None`]: every kind.
    pub kind: Option<OperationKind>,
    /// How the path ends; empty: every path.
    pub suffix: String,
    /// How many of those operations still succeed.
    pub after: usize,
    /// How many fail after that.
    pub times: usize,
    /// How they fail.
    pub failure: Failure,
}

impl Fault {
    /// The operation behind the next `after`, of whatever kind, fails.
    #[must_use]
    pub fn at(after: usize, failure: Failure) -> Self {
        Self {
            kind: None,
            suffix: String::new(),
            after,
            times: 1,
            failure,
        }
    }

    /// The next operation of this kind fails on a path that ends with `suffix`.
    #[must_use]
    pub fn next(kind: OperationKind, suffix: &str, failure: Failure) -> Self {
        Self {
            kind: Some(kind),
            suffix: suffix.to_owned(),
            after: 0,
            times: 1,
            failure,
        }
    }

    fn strikes(&mut self, operation: &Operation) -> bool {
        let kind_matches = self.kind.is_none_or(|kind| kind == operation.kind);
        if !kind_matches || !operation.path.to_string_lossy().ends_with(&self.suffix) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        let strikes = self.times > 0;
        self.times = self.times.saturating_sub(1);
        strikes
    }
}

/// What becomes of an operation.
#[derive(Debug)]
pub(super) enum Fate {
    Done,
    Fails(io::Error),
    /// The power goes while it is under way.
    CutOff,
    /// The power has gone before it.
    Refused,
}

#[derive(Debug, Default)]
pub(super) struct Operations {
    pub(super) trace: Vec<Operation>,
    pub(super) faults: Vec<Fault>,
    /// Operations until the power goes; [`None`]: it stays.
    pub(super) until_power_off: Option<usize>,
    pub(super) power_is_off: bool,
}

impl Operations {
    pub(super) fn begin(&mut self, kind: OperationKind, path: &Path) -> Fate {
        if self.power_is_off {
            return Fate::Refused;
        }
        let operation = Operation {
            kind,
            path: path.to_path_buf(),
        };
        let failure = self
            .faults
            .iter_mut()
            .find_map(|f| f.strikes(&operation).then_some(f.failure));
        self.trace.push(operation);
        match &mut self.until_power_off {
            Some(0) => {
                self.power_is_off = true;
                return Fate::CutOff;
            }
            Some(left) => *left -= 1,
            None => {}
        }
        failure.map_or(Fate::Done, |failure| Fate::Fails(failure.error()))
    }
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}
