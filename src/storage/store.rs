//! The engine without actors: one owner, synchronous calls. For use as a library, for tests and for benches.
//!
//! Owns: the order log → memtable → flush for a single caller. Does not own: anything that a file or a type of its own
//! owns; the node composes the same parts with actors between them.

use crate::storage::clock::VectorClock;
use crate::storage::error::{Error, Result};
use crate::storage::fs::{DirLock, FileSystem};
use crate::storage::key::Key;
use crate::storage::log::record::{Operation, encode_change};
use crate::storage::log::writer::{EncodedBatch, Log};
use crate::storage::recovery::{self, Options, Report};
use crate::storage::tables::Tables;
use crate::storage::version::{MAX_SIBLINGS, Value, Version, Versions};
use crate::storage::view::{Published, Scan};
use std::sync::Arc;

/// An open engine.
pub struct Store {
    node_id: String,
    options: Options,
    published: Arc<Published>,
    tables: Arc<Tables>,
    log: Log,
    epoch: u64,
    report: Report,
    next_memtable: u64,
    _locks: Vec<DirLock>,
}

impl Store {
    /// Opens a data directory. `node_id` is the clock entry of writes that come without a clock.
    ///
    /// # Errors
    /// As [`recovery::open`].
    pub fn open(fs: &Arc<dyn FileSystem>, options: Options, node_id: &str) -> Result<Self> {
        let mut recovered = recovery::open(fs, &options)?;
        let next_memtable = recovered.published.load().active.id() + 1;
        Ok(Self {
            node_id: node_id.to_owned(),
            options,
            epoch: recovered.log.take_over(),
            published: recovered.published,
            tables: recovered.tables,
            log: recovered.log,
            report: recovered.report,
            next_memtable,
            _locks: recovered.locks,
        })
    }

    /// What the recovery did.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report
    }

    /// What reads see.
    #[must_use]
    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// Writes a version of a key, durably. Without a clock it supersedes all that is there. Returns its clock joined
    /// with what memory knows of the key.
    ///
    /// # Errors
    /// When the log cannot take it; nothing is visible then.
    pub fn write(&mut self, key: &Key, value: Value, clock: Option<VectorClock>, now_ms: u64) -> Result<VectorClock> {
        let seq = self.log.last_seq() + 1;
        let clock = match clock {
            Some(clock) => clock,
            None => self.get(key)?.clock().with(&self.node_id, seq),
        };
        let operation = match value {
            Value::Live(_) => Operation::Write,
            Value::Tombstone => Operation::Delete,
        };
        let version = Version {
            clock,
            value,
            timestamp_ms: now_ms,
            seq,
        };
        let mut batch = EncodedBatch {
            bytes: Vec::new(),
            last_seq: seq,
        };
        encode_change(&mut batch.bytes, self.log.salt(), operation, key, &version)
            .map_err(|e| Error::io("encode for", &self.options.log.dir, std::io::Error::other(e)))?;
        self.log.append(self.epoch, &batch, self.published.applied(), now_ms)?;
        self.log.sync(self.epoch)?;
        let written = version.clock.clone();
        self.published.load().active.apply(key, version, MAX_SIBLINGS);
        self.published.set_applied(seq);
        let known = self.published.load().get_in_memory(key).clock();
        if self.published.load().active.bytes() >= self.options.flush_threshold {
            self.flush()?;
        }
        Ok(known.join(&written))
    }

    /// Everything that a key has.
    ///
    /// # Errors
    /// When a table that may hold it is damaged.
    pub fn get(&self, key: &Key) -> Result<Versions> {
        self.published.load().get(key)
    }

    /// Walks everything from `from` on, in key order, as it is now.
    #[must_use]
    pub fn scan(&self, from: &Key) -> Scan {
        self.published.load().scan(from, self.published.applied())
    }

    /// Writes what is in memory as a table, and deletes the log segments that are no longer needed.
    ///
    /// # Errors
    /// When the table cannot be written. Nothing is lost then, and the call can be repeated.
    pub fn flush(&mut self) -> Result<()> {
        if !self.published.load().active.is_empty() {
            let id = self.next_memtable;
            self.next_memtable += 1;
            self.published.update(|view| view.rotated(id));
        }
        while let Some(oldest) = self.published.load().sealed.first() {
            let flushed = self.tables.flush(oldest, &self.published)?;
            self.log.delete_flushed(flushed.seq)?;
        }
        Ok(())
    }

    /// Ends the log so that the next start can tell every later damage from a crash.
    ///
    /// # Errors
    /// When the log cannot be synced.
    pub fn close(mut self) -> Result<()> {
        self.log.close(self.epoch)
    }
}
