//! The manifest: which tables exist, and up to where the log is in them.
//!
//! A header frame, then frames of one edit each: CRC32C over length and payload (u32), length (u32), payload
//! (MessagePack). Version 2 knows size and key range of each table. Each open writes a fresh manifest aside that holds the state as one edit, and renames it over the old
//! one, so a tail that a crash tore is never appended to.
//!
//! Owns: that file and the state that it records. Does not own: the tables themselves.

use crate::storage::codec::{FRAME_BYTES, FileKind, Reader, has_hole};
use crate::storage::error::{Error, Result};
use crate::storage::fs::{Faults, FileSystem, WriteFile};
use crate::storage::levels::LEVELS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The frame at the start of a manifest.
pub(crate) const HEADER: FileKind = FileKind {
    magic: *b"PDBMANIF",
    version: 2,
    oldest: 1,
    name: "manifest",
};
/// Name of the file.
pub const NAME: &str = "MANIFEST";
const EDIT_HEADER_BYTES: usize = 8;
const MAX_EDIT_BYTES: usize = 256 << 20;
/// Edits after which the manifest is written anew.
const EDITS_BEFORE_REWRITE: usize = 4096;

/// In place of a level: the table is damaged, and stands aside.
pub const QUARANTINE: u8 = u8::MAX;

/// What the manifest says of a table, so that it can be spoken of even when it cannot be read. The order of the fields
/// is the format; version 1 had the first two alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Its number.
    pub id: u64,
    /// Its level, or [`QUARANTINE`].
    pub level: u8,
    /// Bytes of its file.
    #[serde(default)]
    pub size: u64,
    /// Its lowest key.
    #[serde(default)]
    pub first_key: String,
    /// Its highest key; empty when it is not known.
    #[serde(default)]
    pub last_key: String,
}

/// One change of the set of tables. The order of the fields is the format; version 1 had the first three.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// Tables that now exist.
    pub added: Vec<TableRecord>,
    /// Tables that no longer do, or that are added again at another level.
    pub removed: Vec<u64>,
    /// Everything up to this sequence number is in tables.
    pub flushed_seq: u64,
    /// No table had this number or a higher one: numbers are never used again, so that a backup knows a table by its own.
    #[serde(default)]
    pub next_id: u64,
}

/// The set of tables that all edits together describe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The tables, by number.
    pub tables: BTreeMap<u64, TableRecord>,
    /// Everything up to this sequence number is in tables.
    pub flushed_seq: u64,
    /// No table had this number or a higher one.
    pub next_id: u64,
}

impl State {
    /// Makes an edit's change.
    ///
    /// # Errors
    /// When the edit does not fit the state, in words for a person; part of it may then have been made.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), String> {
        for id in &edit.removed {
            if self.tables.remove(id).is_none() {
                return Err(format!("it removes table {id}, which does not exist"));
            }
        }
        for table in &edit.added {
            let (id, level) = (table.id, table.level);
            if usize::from(level) >= LEVELS && level != QUARANTINE {
                return Err(format!("it puts table {id} at level {level}; there are {LEVELS}"));
            }
            if self.tables.insert(id, table.clone()).is_some() {
                return Err(format!("it adds table {id} twice"));
            }
            self.next_id = self.next_id.max(id.saturating_add(1));
        }
        self.flushed_seq = self.flushed_seq.max(edit.flushed_seq);
        self.next_id = self.next_id.max(edit.next_id);
        Ok(())
    }

    fn as_edit(&self) -> Edit {
        Edit {
            added: self.tables.values().cloned().collect(),
            removed: Vec::new(),
            flushed_seq: self.flushed_seq,
            next_id: self.next_id,
        }
    }

    /// Writes the state as a manifest of its own into `dir`, where there is none, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_to(&self, fs: &dyn FileSystem, dir: &Path) -> Result<()> {
        write(fs, dir, self).map(drop)
    }
}

/// The open manifest.
#[derive(Debug)]
pub struct Manifest {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    /// [`None`] after a failure: what the file holds is unknown, so the next edit writes it anew.
    file: Option<Box<dyn WriteFile>>,
    /// Bytes of the file.
    len: u64,
    edits: usize,
    state: State,
}

impl Manifest {
    /// Reads the manifest of `dir`, or begins an empty one. Nothing is written before [`Manifest::settle`].
    ///
    /// # Errors
    /// When it is damaged.
    pub fn open(fs: Arc<dyn FileSystem>, dir: &Path) -> Result<Self> {
        let state = load(fs.as_ref(), dir)?;
        Ok(Self {
            fs,
            dir: dir.to_path_buf(),
            file: None,
            len: 0,
            edits: 0,
            state,
        })
    }

    /// Says what a manifest of version 1 did not say of a table. In memory alone: the next writing has it.
    pub fn describe(&mut self, record: TableRecord) {
        if let Some(known) = self.state.tables.get_mut(&record.id) {
            *known = record;
        }
    }

    /// The set of tables.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Bytes of the file that are durable and say what the state says; [`None`] after a failure that left that open.
    #[must_use]
    pub fn durable_len(&self) -> Option<u64> {
        self.file.as_ref().map(|_| self.len)
    }

    /// Makes the file say what the state says, after a failure that left that open.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn settle(&mut self) -> Result<()> {
        if self.file.is_none() {
            let written = write(self.fs.as_ref(), &self.dir, &self.state)?;
            self.go_on_in(written);
        }
        Ok(())
    }

    /// Records an edit, durably.
    ///
    /// # Errors
    /// When it does not fit the state, or cannot be made durable. The state is then as before, and the call can be
    /// repeated: it will write the whole manifest anew.
    pub fn record(&mut self, edit: &Edit) -> Result<()> {
        let path = self.dir.join(NAME);
        let mut next = self.state.clone();
        next.apply(edit)
            .map_err(|detail| Error::corruption(&path, 0, format!("refused an edit: {detail}")))?;
        if self.edits >= EDITS_BEFORE_REWRITE {
            self.file = None;
        }
        match self.file.take() {
            Some(file) => self.append(&path, edit, file)?,
            None => self.go_on_in(write(self.fs.as_ref(), &self.dir, &next)?),
        }
        // Only now, so that whatever ends this before leaves the state that the view has.
        self.state = next;
        Ok(())
    }

    fn append(&mut self, path: &Path, edit: &Edit, mut file: Box<dyn WriteFile>) -> Result<()> {
        let encoded = encode(path, edit)?;
        file.write_at(self.len, &encoded)
            .map_err(|e| Error::io("write", path, e))?;
        file.sync().map_err(|e| Error::io("sync", path, e))?;
        self.len += encoded.len() as u64;
        self.file = Some(file);
        self.edits += 1;
        Ok(())
    }

    /// Appends to a manifest of this length from now on, which was written anew.
    fn go_on_in(&mut self, (file, len): (Box<dyn WriteFile>, u64)) {
        self.file = Some(file);
        self.len = len;
        self.edits = 0;
    }
}

/// Reads the manifest of `dir`; one that does not exist is empty.
///
/// # Errors
/// When it is damaged, or missing although there are tables.
pub fn load(fs: &dyn FileSystem, dir: &Path) -> Result<State> {
    load_to_end(fs, dir).map(|(state, _end)| state)
}

/// As [`load`], and says how the file ended.
///
/// # Errors
/// As [`load`].
pub fn load_to_end(fs: &dyn FileSystem, dir: &Path) -> Result<(State, End)> {
    let names = fs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let path = dir.join(NAME);
    if names.iter().any(|name| name == NAME) {
        let content = fs.read(&path).map_err(|e| Error::io("read", &path, e))?;
        let mut state = State::default();
        let end = edits(&path, &content, |at, edit| {
            state
                .apply(edit)
                .map_err(|detail| Error::corruption(&path, at as u64, detail))
        })?;
        // What cannot be read are zeros, which would pass for a torn edit.
        Faults::of(&content).check(&path)?;
        return Ok((state, end));
    }
    match names.iter().find(|name| super::table::id_of(name).is_some()) {
        Some(table) => {
            let detail = format!("the manifest is missing, but there is a table {table}; restore the manifest");
            Err(Error::corruption(&path, 0, detail))
        }
        None => Ok((State::default(), End::default())),
    }
}

/// Writes a manifest that holds `state` as one edit aside, and renames it over the old one. Returns it open, and its length.
fn write(fs: &dyn FileSystem, dir: &Path, state: &State) -> Result<(Box<dyn WriteFile>, u64)> {
    let path = dir.join(NAME);
    let temporary = path.with_extension("tmp");
    // An earlier attempt may have left it.
    let _ = fs.remove(&temporary);
    let mut content = HEADER.frame(&[]);
    content.extend_from_slice(&encode(&path, &state.as_edit())?);
    let mut file = fs.create(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    file.write_at(0, &content)
        .map_err(|e| Error::io("write", &temporary, e))?;
    file.sync().map_err(|e| Error::io("sync", &temporary, e))?;
    fs.rename(&temporary, &path)
        .map_err(|e| Error::io("rename", &temporary, e))?;
    fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
    Ok((file, content.len() as u64))
}

fn encode(path: &Path, edit: &Edit) -> Result<Vec<u8>> {
    let payload = rmp_serde::to_vec(edit).map_err(|e| Error::io("encode", path, std::io::Error::other(e)))?;
    let mut covered = (payload.len() as u32).to_le_bytes().to_vec();
    covered.extend_from_slice(&payload);
    let mut out = crc32c::crc32c(&covered).to_le_bytes().to_vec();
    out.append(&mut covered);
    Ok(out)
}

/// How a manifest ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct End {
    /// Bytes of the file.
    pub len: u64,
    /// Bytes of it that hold whole edits.
    pub valid_len: u64,
    /// Whether what follows them is all there, and yet not what its checksum says. A torn write is cut off, or lacks a
    /// sector: this was whole once.
    pub was_whole: bool,
}

impl End {
    /// Bytes behind the last whole edit.
    #[must_use]
    pub fn torn_bytes(&self) -> u64 {
        self.len.saturating_sub(self.valid_len)
    }
}

/// Hands over all edits in order, each with its place in the file. A torn last one was never acted upon, and is passed
/// over; an unreadable one with a readable one behind it is damage.
///
/// # Errors
/// On damage, or when `each` fails.
pub fn edits<E: From<Error>>(
    path: &Path,
    content: &[u8],
    mut each: impl FnMut(usize, &Edit) -> Result<(), E>,
) -> Result<End, E> {
    HEADER.open(path, content, 0, 0)?;
    let mut at = FRAME_BYTES;
    while at < content.len() {
        let Some((payload, length)) = read_edit(content, at) else {
            let readable_behind = (at + 1..content.len()).any(|place| read_edit(content, place).is_some());
            // The first edit was synced before the file got its name: it cannot be torn.
            if readable_behind || at == FRAME_BYTES {
                return Err(Error::corruption(path, at as u64, "an edit's checksum does not match").into());
            }
            break;
        };
        let edit: Edit =
            rmp_serde::from_slice(payload).map_err(|e| Error::corruption(path, at as u64, e.to_string()))?;
        each(at, &edit)?;
        at += length;
    }
    if at == FRAME_BYTES {
        return Err(Error::corruption(path, at as u64, "the manifest has no edits").into());
    }
    Ok(End {
        len: content.len() as u64,
        valid_len: at as u64,
        was_whole: was_whole(content, at),
    })
}

/// Whether all of an edit is there from `at` to the end of the file: as many bytes as its length says, or, should that be
/// what is wrong, a payload that decodes.
fn was_whole(content: &[u8], at: usize) -> bool {
    let rest = content.get(at..).unwrap_or_default();
    let Some(payload) = rest.get(EDIT_HEADER_BYTES..) else {
        return false;
    };
    let mut header = Reader(rest);
    let length = header.u32().and_then(|_checksum| header.u32());
    let as_long_as_it_says = length.is_some_and(|length| length as usize == payload.len());
    let whole = as_long_as_it_says || rmp_serde::from_slice::<Edit>(payload).is_ok();
    whole && !has_hole(content, at, content.len())
}

fn read_edit(content: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let mut reader = Reader(content.get(at..)?);
    let checksum = reader.u32()?;
    let length = reader.u32()? as usize;
    if length == 0 || length > MAX_EDIT_BYTES {
        return None;
    }
    let payload = reader.bytes(length)?;
    let covered = content.get(at + 4..at + EDIT_HEADER_BYTES + length)?;
    (crc32c::crc32c(covered) == checksum).then_some((payload, EDIT_HEADER_BYTES + length))
}
