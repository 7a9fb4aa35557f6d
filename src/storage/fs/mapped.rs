//! Mapped files, of which a page may turn out to be unreadable.
//!
//! A page that the device cannot read, or that lies behind the end of a file which somebody has cut, is met as SIGBUS, and
//! by itself that ends the process. So that a bad sector costs what stands in it and no more, a handler puts a page of
//! zeros in its place and takes note of it. Zeros pass no checksum; but what was checked before the page was lost counts
//! no longer, and a log or a manifest that ends in zeros would pass for one that a crash tore. Whoever reads therefore
//! asks the map's [`Faults`] *after* he has read.
//!
//! A page that is replaced splits the map, and a process may have some 65,000 maps (vm.max_map_count), which a large file
//! on a bad disk would use up. A map that has lost many pages therefore loses, with the next, all that lies behind it, at
//! once and in one piece. So behind the first lost page nothing counts but what was checked since it was read.
//!
//! Owns: the list of maps and the handler. Does not own: opening files, or what follows from a lost page. A SIGBUS
//! elsewhere goes its way as if there were no handler.

use crate::storage::error::{Error, Result};
use bytes::Bytes;
use memmap2::Mmap;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::io;
use std::iter::successors;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

/// Pages of a map that are replaced each for itself, which takes up to two more of the maps that a process may have. The next
/// takes with it what is left of the map.
const LOST_FOR_THEMSELVES: usize = 64;

/// Where a map lies. The handler reads it without a lock; `end` is 0 while the slot is free or being changed.
#[derive(Debug)]
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    /// Where in the map the first lost page begins, in bytes; [`usize::MAX`] when none was lost.
    lost: AtomicUsize,
    /// Faults that were met.
    met: AtomicUsize,
}

impl Slot {
    const fn free() -> Self {
        Self {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            lost: AtomicUsize::new(usize::MAX),
            met: AtomicUsize::new(0),
        }
    }

    /// Where in the map `address` lies.
    fn offset_of(&self, address: usize) -> Option<usize> {
        let end = self.end.load(Ordering::SeqCst);
        let start = self.start.load(Ordering::SeqCst);
        // Read again: between the two, another map may have got the slot.
        let is_inside = (start..end).contains(&address) && self.end.load(Ordering::SeqCst) == end;
        is_inside.then(|| address - start)
    }
}

/// Slots are made in chunks that are never freed, each linked from the one before: the handler may walk them any time.
struct Chunk {
    slots: [Slot; SLOTS_IN_CHUNK],
    next: OnceLock<Box<Chunk>>,
}

const SLOTS_IN_CHUNK: usize = 1024;

static CHUNKS: OnceLock<Box<Chunk>> = OnceLock::new();

fn chunks() -> impl Iterator<Item = &'static Chunk> {
    successors(CHUNKS.get(), |chunk| chunk.next.get()).map(Box::as_ref)
}

/// What the handler need not know.
struct Registry {
    has_handler: bool,
    free: Vec<&'static Slot>,
    by_start: BTreeMap<usize, &'static Slot>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    has_handler: false,
    free: Vec::new(),
    by_start: BTreeMap::new(),
});

impl Registry {
    fn register(&mut self, map: &Mmap) -> io::Result<&'static Slot> {
        if !self.has_handler {
            install_handler()?;
            self.has_handler = true;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.grow(),
        };
        let start = map.as_ptr().addr();
        slot.lost.store(usize::MAX, Ordering::SeqCst);
        slot.met.store(0, Ordering::SeqCst);
        slot.start.store(start, Ordering::SeqCst);
        slot.end.store(start + map.len(), Ordering::SeqCst);
        self.by_start.insert(start, slot);
        Ok(slot)
    }

    /// Makes a chunk, and takes one slot of it.
    fn grow(&mut self) -> &'static Slot {
        let link = chunks().last().map_or(&CHUNKS, |last| &last.next);
        let chunk = link.get_or_init(|| {
            Box::new(Chunk {
                slots: [const { Slot::free() }; SLOTS_IN_CHUNK],
                next: OnceLock::new(),
            })
        });
        let [first, others @ ..] = &chunk.slots;
        self.free.extend(others);
        first
    }

    fn release(&mut self, slot: &'static Slot) {
        slot.end.store(0, Ordering::SeqCst);
        self.by_start.remove(&slot.start.load(Ordering::SeqCst));
        self.free.push(slot);
    }
}

/// A map for as long as anybody reads it.
struct Held {
    map: Mmap,
    slot: &'static Slot,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before the memory can become something else's.
        REGISTRY.lock().release(self.slot);
    }
}

/// The content of a map whose lost pages are zeros, and are told by [`Faults`].
///
/// # Errors
/// When the handler cannot be installed.
pub(super) fn hold(map: Mmap) -> io::Result<Bytes> {
    let slot = REGISTRY.lock().register(&map)?;
    Ok(Bytes::from_owner(Held { map, slot }))
}

/// What could not be read of the content of one file. It tells of that file only as long as the content is held.
#[derive(Debug, Clone, Copy)]
pub struct Faults(Option<&'static Slot>);

impl Faults {
    /// The faults of the map that `content` is, or is a part of. Memory that is no map has none.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        let address = content.as_ptr().addr();
        let registry = REGISTRY.lock();
        let before = registry.by_start.range(..=address).next_back();
        Self(before.and_then(|(_, slot)| slot.offset_of(address).map(|_| *slot)))
    }

    /// Where in the file the first page begins that could not be read, in bytes: of what lies behind it, anything may be
    /// lost as well. [`None`]: everything that was read before this call is what the file holds.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        let slot = self.0?;
        // The handler takes note before there are zeros: who has read them finds the note from here on.
        fence(Ordering::Acquire);
        let lost = slot.lost.load(Ordering::Acquire);
        (lost != usize::MAX).then_some(lost as u64)
    }

    /// Whether everything that was read of `file` before this call is what it holds.
    ///
    /// # Errors
    /// [`Error::Corruption`] with the first place that could not be read.
    pub fn check(&self, file: &Path) -> Result<()> {
        match self.first() {
            None => Ok(()),
            Some(at) => Err(Error::corruption(file, at, "the system cannot read the file here")),
        }
    }
}

/// What was to happen on SIGBUS before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

fn install_handler() -> io::Result<()> {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the pointers are to whole structures of this frame, for which zeros are valid, and the mask is initialised.
    // The handler calls only what may be called in one, and what it reads is initialised before it is installed.
    #[allow(unsafe_code)]
    unsafe {
        let page_bytes = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).map_err(io::Error::other)?;
        PAGE_BYTES.store(page_bytes, Ordering::SeqCst);
        if libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        PREVIOUS.get_or_init(|| previous.assume_init());
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        if libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Runs in place of whatever met the signal: no lock, no allocation, no panic.
extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the system hands over a valid structure, as SA_SIGINFO asks for.
    #[allow(unsafe_code)]
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    // What another process sent has a code of 0 or less, and no address.
    if code > 0 && replace_lost(address) {
        return;
    }
    // SAFETY: these may be called in a handler. What was installed before then meets the same fault again, or the same
    // signal when there was no fault.
    #[allow(unsafe_code)]
    unsafe {
        match PREVIOUS.get() {
            Some(previous) => libc::sigaction(signal, ptr::from_ref(previous), ptr::null_mut()),
            None => libc::signal(signal, libc::SIG_DFL) as c_int,
        };
        if code <= 0 {
            libc::raise(signal);
        }
    }
}

/// Puts zeros in place of the page at `address`, and of all behind it once many were lost, and takes note of it, when it is
/// a page of a map of ours.
fn replace_lost(address: usize) -> bool {
    let mut slots = chunks().flat_map(|chunk| &chunk.slots);
    let Some((slot, offset)) = slots.find_map(|slot| Some((slot, slot.offset_of(address)?))) else {
        return false;
    };
    let page_bytes = PAGE_BYTES.load(Ordering::SeqCst);
    // A map begins with a page.
    let into_page = offset % page_bytes.max(1);
    slot.lost.fetch_min(offset - into_page, Ordering::SeqCst);
    let at = address - into_page;
    let bytes = if slot.met.fetch_add(1, Ordering::SeqCst) < LOST_FOR_THEMSELVES {
        page_bytes
    } else {
        // The system counts the last page of the map as a whole one.
        slot.end.load(Ordering::SeqCst).saturating_sub(at)
    };
    let page = ptr::without_provenance_mut(at);
    // SAFETY: the pages belong to a map that is registered, and so held by whoever met the fault: nothing else lies there.
    // Who reads them takes what he sees for the file's content only when there is no note of a fault afterwards. A call
    // that succeeds leaves errno alone.
    #[allow(unsafe_code)]
    let mapped = unsafe {
        libc::mmap(
            page,
            bytes,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    mapped == page
}
