//! The storage engine: a synchronous log-structured merge tree of versions with vector clocks.
//!
//! Knows no async runtime, actor or RPC; touches files only through [`fs::FileSystem`], and the clock through [`time::Time`]. Usable alone
//! (see [`store::Store`]); the node puts actors between its parts.

pub mod backup;
pub mod cache;
pub mod clock;
pub mod codec;
pub mod compaction;
pub mod digest;
pub mod drain_mark;
pub mod error;
pub mod fs;
pub mod histogram;
pub mod idempotency;
pub mod key;
pub mod levels;
pub mod limits;
pub mod log;
pub mod looked;
pub mod lost;
pub mod manifest;
pub mod memtable;
pub mod merger;
pub mod priority;
pub mod progress;
pub mod published;
pub mod recovery;
pub mod remembered;
mod reopen;
pub mod replay;
pub mod ring;
pub mod scan;
pub mod scrub;
pub mod space;
pub mod store;
pub mod stream_records;
pub mod sync;
pub mod table;
pub mod tables;
pub mod time;
pub mod verify;
pub mod version;
pub mod view;
