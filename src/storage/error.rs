//! The errors of the storage engine: rich inside, a few kinds outside that say what the caller must do.

use std::io;
use std::path::{Path, PathBuf};

/// Result of a storage operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in the storage engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("cannot {op} {path}: {source}", path = path.display())]
    Io {
        /// What was tried ("write", "sync", …).
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file holds bytes that the node did not write, or lacks some that it did.
    #[error("damage in {file} at byte {offset}: {detail}", file = file.display())]
    Corruption {
        /// The damaged file.
        file: PathBuf,
        /// Where in the file, in bytes from its start.
        offset: u64,
        /// What was found.
        detail: String,
    },
    /// A file was written by another format version, or is not of the kind that its name says.
    #[error("{file} is not a file that this version can read: {detail}", file = file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What was found, and what this version reads.
        detail: String,
    },
    /// Another process holds the directory.
    #[error("{dir} is in use by another process; stop it, or give this node another directory", dir = dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A sync of the log failed earlier: what it holds is unknown, so it takes no more writes.
    #[error("the commit log is latched after a failed sync ({cause}); check the disk, then restart the node")]
    Latched {
        /// The failure that latched it.
        cause: String,
    },
    /// Compaction has not kept up for so long that reads would become too slow.
    #[error(
        "L0 has {l0_tables} tables, and compaction does not keep up: writes are refused with more than {l0_most}, deletes \
         with more than {l0_most_for_deletes}; see why it fails, or raise compaction.workers or compaction.throttle"
    )]
    Behind {
        /// Tables of L0.
        l0_tables: usize,
        /// With so many, writes are still taken.
        l0_most: usize,
        /// With so many, deletes are still taken.
        l0_most_for_deletes: usize,
    },
    /// A writer of an earlier generation tried to write after its successor took over.
    #[error("the commit log has a newer writer")]
    Fenced,
}

/// What the caller of a failed operation can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Free disk space; the operation can then be repeated.
    DiskFull,
    /// Restore the damaged data from a replica or a backup.
    Corruption,
    /// Repeat the operation later: there is more to do than gets done. Nothing was stored.
    Overloaded,
    /// Look at the machine; restart when it is well.
    Failed,
    /// Repeat the operation: the component is being replaced.
    Retry,
}

impl Error {
    /// Wraps the operating system's answer with what was tried and where.
    pub fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Reports damage in `file` at `offset` (bytes).
    pub fn corruption(file: &Path, offset: u64, detail: impl Into<String>) -> Self {
        Self::Corruption {
            file: file.to_path_buf(),
            offset,
            detail: detail.into(),
        }
    }

    /// The same error for another who waited for the same thing.
    #[must_use]
    pub fn shared(&self) -> Self {
        match self {
            Self::Io { op, path, source } => Self::Io {
                op,
                path: path.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            },
            Self::Corruption { file, offset, detail } => Self::Corruption {
                file: file.clone(),
                offset: *offset,
                detail: detail.clone(),
            },
            Self::Format { file, detail } => Self::Format {
                file: file.clone(),
                detail: detail.clone(),
            },
            Self::Locked { dir } => Self::Locked { dir: dir.clone() },
            Self::Latched { cause } => Self::Latched { cause: cause.clone() },
            Self::Behind {
                l0_tables,
                l0_most,
                l0_most_for_deletes,
            } => Self::Behind {
                l0_tables: *l0_tables,
                l0_most: *l0_most,
                l0_most_for_deletes: *l0_most_for_deletes,
            },
            Self::Fenced => Self::Fenced,
        }
    }

    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if is_disk_full(source) => ErrorKind::DiskFull,
            Self::Corruption { .. } | Self::Format { .. } => ErrorKind::Corruption,
            Self::Behind { .. } => ErrorKind::Overloaded,
            Self::Fenced => ErrorKind::Retry,
            Self::Io { .. } | Self::Locked { .. } | Self::Latched { .. } => ErrorKind::Failed,
        }
    }
}

/// Whether the operating system ran out of space or quota.
#[must_use]
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
