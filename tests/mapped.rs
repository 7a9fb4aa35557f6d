//! A page of a mapped file that cannot be read: what stands in it is lost and is told, and nothing else is.
//!
//! A test that meets SIGBUS runs in a process of its own, which it would otherwise end for all.

use bytes::Bytes;
use pairdb_node::storage::error::{Error, ErrorKind};
use pairdb_node::storage::fs::{DirLock, Faults, FileSystem, RealFs, Space, WriteFile};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::log::reader::Segment;
use pairdb_node::storage::log::record::RawRecord;
use pairdb_node::storage::looked::Looked;
use pairdb_node::storage::manifest;
use pairdb_node::storage::store::{Store, StoreOptions};
use pairdb_node::storage::table::block::{self, Compression};
use pairdb_node::storage::table::{Cursor, Layout, ReadCounts, Table};
use pairdb_node::storage::version::Value;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Whole pages, whatever size the system's have.
const PAGES: u64 = 64 << 10;
/// How long such a process may take.
const SECONDS: u32 = 60;
const CHILD: &str = "PAIRDB_TEST_CHILD";
const KEYS: u32 = 6000;

/// Runs this test again in a process of its own; [`None`] in that process.
fn own_process(test: &str) -> Option<Output> {
    if std::env::var_os(CHILD).is_some() {
        // SAFETY: it ends this process, and nothing else. A signal that nobody heeds comes again and again.
        unsafe { libc::alarm(SECONDS) };
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    Some(command.args(["--exact", test]).env(CHILD, "yes").output().unwrap())
}

fn in_own_process(test: &str, body: impl FnOnce()) {
    match own_process(test) {
        None => body(),
        Some(Output { status, stdout, stderr }) => {
            let said = [stdout, stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(status.success() && said.contains("1 passed"), "{status}: {said}");
        }
    }
}

fn cut(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn key(n: u32) -> Key {
    Key::new("tenant", &format!("key{n:06}")).unwrap()
}

fn value(n: u32) -> Bytes {
    let mut bytes = vec![0; 200];
    StdRng::seed_from_u64(u64::from(n)).fill(&mut bytes[..100]);
    Bytes::from(bytes)
}

fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::at(dir);
    options.engine.flush_threshold = usize::MAX;
    options.sync_writes = false;
    options
}

fn open(fs: &Arc<dyn FileSystem>, options: &StoreOptions) -> Result<Store, Error> {
    Store::open(fs, options.clone(), "node")
}

fn real() -> Arc<dyn FileSystem> {
    Arc::new(RealFs)
}

fn fill(store: &Store) {
    for n in 0..KEYS {
        store.write(&key(n), Value::Live(value(n)), None).unwrap();
    }
}

/// The keys that answer with damage in `path`. All others must have their value.
fn lost(store: &Store, path: &Path) -> Vec<u32> {
    let is_lost = |n: &u32| match store.get(&key(*n)) {
        Ok(found) => {
            let found = found.winner().and_then(|winner| winner.value.live().cloned());
            assert_eq!(found, Some(value(*n)), "key {n}");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corruption);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            true
        }
    };
    (0..KEYS).filter(is_lost).collect()
}

fn only_table(store: &Store) -> PathBuf {
    let view = store.published().load();
    view.tables.all().next().unwrap().path().to_path_buf()
}

#[test]
fn a_table_that_loses_its_end_while_it_is_mapped_loses_the_keys_there_alone() {
    in_own_process(
        "a_table_that_loses_its_end_while_it_is_mapped_loses_the_keys_there_alone",
        || {
            for compression in [Compression::None, Compression::Lz4] {
                for read_before in [false, true] {
                    lose_the_end(compression, read_before);
                }
            }
        },
    );
}

fn lose_the_end(compression: Compression, read_before: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.engine.table.compression = compression;
    let store = open(&real(), &options).unwrap();
    fill(&store);
    store.flush().unwrap();
    let path = only_table(&store);
    if read_before {
        // Every block is then known to be well, and not verified again.
        assert!(lost(&store, &path).is_empty());
    }
    let whole = fs::read(&path).unwrap();
    cut(&path, 4 * PAGES);
    let (store, path) = (&store, path.as_path());
    let answers: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(move || lost(store, path))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let first = answers[0][0];
    assert!((KEYS / 10..KEYS * 9 / 10).contains(&first), "from key {first} on");
    for answer in answers {
        assert!(
            answer.into_iter().eq(first..KEYS),
            "all that lie behind the cut, and no other"
        );
    }
    // A scan comes as far, and says so.
    let mut scanned: Vec<_> = store.scan(&Key::least()).collect();
    let end = scanned.pop().unwrap().unwrap_err();
    assert_eq!(end.kind(), ErrorKind::Corruption, "{end}");
    for (n, item) in (0..first).zip(&scanned) {
        let (found, versions) = item.as_ref().unwrap();
        assert_eq!(
            (found, versions.winner().unwrap().value.live()),
            (&key(n), Some(&value(n)))
        );
    }
    assert_eq!(scanned.len(), first as usize);
    store.compact().unwrap();
    let view = store.published().load();
    assert_eq!(view.tables.quarantine().len(), 1, "it stands aside");
    assert!(lost(store, path).into_iter().eq(first..KEYS));
    store.write(&key(KEYS), Value::Live(value(KEYS)), None).unwrap();
    store.flush().unwrap();
    assert!(!store.get(&key(KEYS)).unwrap().is_empty());
    // Put back, it is read again; not in place, where the map would see it.
    let aside = dir.path().join("whole");
    fs::write(&aside, whole).unwrap();
    fs::rename(&aside, path).unwrap();
    let path = path.to_path_buf();
    drop(view);
    let again = dir.path().join("again");
    copy(dir.path(), &again, &["sstables", "commitlog"]);
    let mut options = options.clone();
    options.engine.data_dir.clone_from(&again);
    options.engine.sstable_dir = again.join("sstables");
    options.engine.log.dir = again.join("commitlog");
    let store = open(&real(), &options).unwrap();
    assert!(store.published().load().tables.quarantine().is_empty());
    assert!(lost(&store, &path).is_empty());
}

/// Has the system read nothing any more of a part of a map, as if its sectors were bad.
fn lose(content: &Bytes, at: u64, len: u64) {
    let empty = tempfile::tempfile().unwrap();
    // SAFETY: the place is a part of a map of a file, and becomes one of another; what stands there was lost on purpose.
    let mapped = unsafe {
        libc::mmap(
            content.as_ptr().add(at as usize).cast_mut().cast(),
            len as usize,
            libc::PROT_READ,
            libc::MAP_SHARED | libc::MAP_FIXED,
            empty.as_raw_fd(),
            0,
        )
    };
    assert_ne!(mapped, libc::MAP_FAILED);
}

fn get(table: &Table, key: &Key) -> Result<Option<Bytes>, Error> {
    let found = table.get(key.as_bytes(), key.hash64(), &mut Looked::default())?;
    Ok(found.winner().and_then(|winner| winner.value.live().cloned()))
}

#[test]
fn a_block_that_was_well_when_it_was_read_first_is_not_trusted_when_it_loses_its_beginning() {
    let test = "a_block_that_was_well_when_it_was_read_first_is_not_trusted_when_it_loses_its_beginning";
    in_own_process(test, || {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        // Of a compressed block not even the trailer would look well.
        options.engine.table.compression = Compression::None;
        let store = open(&real(), &options).unwrap();
        fill(&store);
        store.flush().unwrap();
        let path = only_table(&store);
        let fresh = || {
            let content = RealFs.read(&path).unwrap();
            Table::read(path.clone(), 1, content.clone(), &Arc::default()).map(|(table, _)| (Arc::new(table), content))
        };
        // The block that begins in what is lost, and ends behind it.
        let (table, _) = fresh().unwrap();
        let end = 4 * PAGES;
        let begins_before = |number: &usize| table.block_place(*number).unwrap().offset < end;
        let number = (0..table.blocks()).take_while(begins_before).last().unwrap();
        let place = table.block_place(number).unwrap();
        assert!(place.offset + place.length > end + 9, "{place:?}");
        let entries = table.entries(number).unwrap();
        assert!(entries.len() > 10);
        let mut refused = 0;
        for (name, _) in &entries {
            let wanted = Key::from_stored(std::str::from_utf8(name).unwrap()).unwrap();
            let (table, content) = fresh().unwrap();
            let well = get(&table, &wanted).unwrap().unwrap();
            lose(&content, end - PAGES, PAGES);
            // The page goes while the block is read, and is gone when it is read again. Where nothing of it is needed, the
            // answer is right.
            for _ in 0..2 {
                match get(&table, &wanted) {
                    Ok(found) => assert_eq!(found, Some(well.clone()), "zeros pass for data"),
                    Err(error) => {
                        assert!(error.to_string().contains("checksum"), "{error}");
                        refused += 1;
                    }
                }
            }
            let mut walk = Cursor::over(&table, name);
            assert!(walk.advance().is_err(), "a walk comes to {:?}", walk.key());
            assert!(table.is_damaged());
            // What is not lost is read as before.
            let before = (0..KEYS).map(key).find(|k| get(&table, k).is_err()).unwrap();
            assert!(before > key(0) && get(&table, &key(KEYS - 1)).unwrap() == Some(value(KEYS - 1)));
        }
        assert!(refused > 2, "{refused}");
    });
}

fn copy(from: &Path, to: &Path, dirs: &[&str]) {
    for dir in dirs {
        fs::create_dir_all(to.join(dir)).unwrap();
        for entry in fs::read_dir(from.join(dir)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), to.join(dir).join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn compaction_sets_aside_a_table_that_loses_its_end_and_writes_no_zeros() {
    in_own_process(
        "compaction_sets_aside_a_table_that_loses_its_end_and_writes_no_zeros",
        || {
            let dir = tempfile::tempdir().unwrap();
            let mut options = options(dir.path());
            options.engine.levels.l0_trigger = 2;
            let store = open(&real(), &options).unwrap();
            fill(&store);
            store.flush().unwrap();
            let path = only_table(&store);
            assert!(lost(&store, &path).is_empty());
            for n in [0, KEYS + 1] {
                store.write(&key(n), Value::Live(value(n)), None).unwrap();
            }
            store.flush().unwrap();
            cut(&path, 4 * PAGES);
            let error = store.compact().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert_eq!(store.published().load().tables.quarantine().len(), 1);
            assert!(!lost(&store, &path).is_empty());
        },
    );
}

/// The files of the system, of which one is cut under its map.
#[derive(Debug)]
struct Cutting {
    file: PathBuf,
    keep: u64,
    /// As soon as it is mapped; otherwise when the first table is begun, and the log was walked to its end.
    at_once: bool,
    walked: Arc<Walked>,
}

/// Whether the log was walked to its end.
#[derive(Debug, Default)]
struct Walked {
    is_it: Mutex<bool>,
    changed: Condvar,
}

/// The last segment, which a recovery writes once more, and syncs, when it has walked it.
#[derive(Debug)]
struct Rewritten {
    file: Box<dyn WriteFile>,
    walked: Arc<Walked>,
}

impl WriteFile for Rewritten {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }

    fn write_out(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.file.write_out(offset, length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        *self.walked.is_it.lock().unwrap() = true;
        self.walked.changed.notify_all();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

impl Cutting {
    fn fs(file: PathBuf, keep: u64, at_once: bool) -> Arc<dyn FileSystem> {
        Arc::new(Self {
            file,
            keep,
            at_once,
            walked: Arc::default(),
        })
    }
}

impl FileSystem for Cutting {
    fn create_dir_all(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealFs.create_dir_all(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.remove_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        if !self.at_once && path.to_string_lossy().ends_with(".sst.tmp") {
            let walked = self.walked.is_it.lock().unwrap();
            let timeout = Duration::from_secs(20);
            let (walked, _) = self
                .walked
                .changed
                .wait_timeout_while(walked, timeout, |walked| !*walked)
                .unwrap();
            assert!(*walked, "the log is not walked to its end");
            cut(&self.file, self.keep);
        }
        RealFs.create(path)
    }

    fn read(&self, path: &Path) -> io::Result<Bytes> {
        let content = RealFs.read(path)?;
        if self.at_once && path == self.file {
            cut(path, self.keep);
        }
        Ok(content)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let (file, walked) = (RealFs.open(path)?, Arc::clone(&self.walked));
        Ok(Box::new(Rewritten { file, walked }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFs.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFs.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        RealFs.space(dir)
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<DirLock> {
        RealFs.lock_dir(dir)
    }
}

fn assert_refused(fs: &Arc<dyn FileSystem>, options: &StoreOptions, file: &Path, keep: u64) {
    let error = open(fs, options)
        .err()
        .expect("what cannot be read passed for a torn end");
    match &error {
        Error::Corruption {
            file: named, offset, ..
        } => assert_eq!((named.as_path(), *offset), (file, keep)),
        other => panic!("{other}"),
    }
}

#[test]
fn a_log_that_cannot_be_read_to_its_end_is_refused_not_shortened() {
    in_own_process("a_log_that_cannot_be_read_to_its_end_is_refused_not_shortened", || {
        for at_once in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let mut options = options(dir.path());
            fill(&open(&real(), &options).unwrap());
            let log = dir.path().join("commitlog/commitlog-000000000001.log");
            let keep = 4 * PAGES;
            assert!(fs::metadata(&log).unwrap().len() > 2 * keep);
            // Later than the walk, a table is made of most of it: its values are read then.
            options.engine.flush_threshold = 1_500_000;
            assert_refused(&Cutting::fs(log.clone(), keep, at_once), &options, &log, keep);
            if at_once {
                // Nor does any other walk pass over it.
                cut(&log, 2 * keep);
                let fs = Cutting::fs(log.clone(), keep, at_once);
                let segment = Segment::open(fs.as_ref(), log.parent().unwrap(), 1).unwrap();
                let error = segment.replay(0, 0, None, |_| Ok(())).unwrap_err();
                assert!(
                    matches!(error, Error::Corruption { offset, .. } if offset == keep),
                    "{error}"
                );
            }
            let manifest = manifest::load(&RealFs, &dir.path().join("sstables")).unwrap();
            assert!(manifest.tables.is_empty(), "no table of it counts");
        }
    });
}

#[test]
fn a_manifest_that_cannot_be_read_to_its_end_is_refused_not_shortened() {
    in_own_process(
        "a_manifest_that_cannot_be_read_to_its_end_is_refused_not_shortened",
        || {
            let dir = tempfile::tempdir().unwrap();
            let options = options(dir.path());
            let store = open(&real(), &options).unwrap();
            // Long keys make long edits.
            for n in 0..60 {
                let key = Key::new("tenant", &format!("{n:01000}")).unwrap();
                store.write(&key, Value::Live(value(n)), None).unwrap();
                store.flush().unwrap();
            }
            drop(store);
            let manifest = dir.path().join("sstables/MANIFEST");
            assert!(fs::metadata(&manifest).unwrap().len() > PAGES * 3 / 2);
            assert_refused(&Cutting::fs(manifest.clone(), PAGES, true), &options, &manifest, PAGES);
        },
    );
}

#[test]
fn a_fault_is_told_of_its_map_alone() {
    in_own_process("a_fault_is_told_of_its_map_alone", || {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..2100).map(|n| dir.path().join(n.to_string())).collect();
        for file in &files {
            fs::File::create(file).unwrap().set_len(3 * PAGES).unwrap();
        }
        // More than once: places of maps that are gone are taken again.
        for victim in [1500, 3] {
            let maps: Vec<Bytes> = files.iter().map(|file| RealFs.read(file).unwrap()).collect();
            cut(&files[victim], PAGES);
            for map in maps.iter().rev() {
                for at in [2 * PAGES + 5, PAGES, 0] {
                    assert_eq!(map[at as usize], 0);
                }
            }
            for (n, map) in maps.iter().enumerate() {
                let expected = (n == victim).then_some(PAGES);
                let part = map.slice(100..);
                assert_eq!(
                    (Faults::of(map).first(), Faults::of(&part).first()),
                    (expected, expected),
                    "map {n}"
                );
            }
            cut(&files[victim], 3 * PAGES);
        }
        assert_eq!(Faults::of(&[0; 100]).first(), None);
    });
}

/// How many maps the system counts where `content` lies.
fn maps_of(content: &[u8]) -> usize {
    let lies = content.as_ptr_range();
    let lies = lies.start.addr()..lies.end.addr();
    let begins_inside = |line: &&str| {
        let begin = line.split('-').next().unwrap();
        lies.contains(&usize::from_str_radix(begin, 16).unwrap())
    };
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(begins_inside).count()
}

#[test]
fn however_many_pages_a_map_loses_in_whatever_order_it_takes_few_maps_and_tells_each() {
    let test = "however_many_pages_a_map_loses_in_whatever_order_it_takes_few_maps_and_tells_each";
    in_own_process(test, || {
        let lost = 2000;
        let rising: Vec<u64> = (1..=lost).collect();
        let falling: Vec<u64> = rising.iter().rev().copied().collect();
        let mut mixed = rising.clone();
        mixed.shuffle(&mut StdRng::seed_from_u64(1));
        for order in [rising, falling, mixed] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            fs::write(&path, vec![7; PAGES as usize]).unwrap();
            // Its end is not that of a page.
            cut(&path, (lost + 1) * PAGES + 10);
            let (map, other) = (RealFs.read(&path).unwrap(), RealFs.read(&path).unwrap());
            cut(&path, PAGES);
            let mut first = u64::MAX;
            for n in order {
                first = first.min(n * PAGES);
                assert_eq!(map[(n * PAGES) as usize], 0);
                assert_eq!(Faults::of(&map).first(), Some(first));
            }
            assert_eq!(map[map.len() - 1], 0);
            assert!((2..=2 * 64 + 2).contains(&maps_of(&map)), "{} maps", maps_of(&map));
            assert_eq!(
                (map[0], map[PAGES as usize - 1]),
                (7, 7),
                "what lies before is as it was"
            );
            assert_eq!((Faults::of(&other).first(), maps_of(&other)), (None, 1));
        }
    });
}

#[test]
fn behind_many_lost_pages_of_a_table_nothing_is_read_and_no_zeros_pass_for_data() {
    let test = "behind_many_lost_pages_of_a_table_nothing_is_read_and_no_zeros_pass_for_data";
    in_own_process(test, || {
        // SAFETY: it asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        options.engine.table.compression = Compression::None;
        let store = open(&real(), &options).unwrap();
        // Each takes 200 bytes at least.
        let keys = (400 * page / 200) as u32;
        for n in 0..keys {
            store.write(&key(n), Value::Live(value(n)), None).unwrap();
        }
        store.flush().unwrap();
        let path = only_table(&store);
        let content = RealFs.read(&path).unwrap();
        let (table, _) = Table::read(path, 1, content.clone(), &Arc::default()).unwrap();
        let numbers = 0..table.blocks();
        assert!(numbers.clone().all(|number| table.entries(number).is_ok()));
        // One page in four, with well ones between; from the 65th on, the well ones are lost as well.
        let lost_pages: Vec<u64> = (32..320).step_by(4).map(|n| n * page).collect();
        for at in &lost_pages {
            lose(&content, *at, page);
        }
        let (mut well_between, mut lost_behind) = (0, 0);
        for number in numbers {
            let place = table.block_place(number).unwrap();
            let (begin, end) = (place.offset, place.offset + place.length);
            let meets_one = lost_pages.iter().any(|at| begin < at + page && end > *at);
            let is_lost = meets_one || end > lost_pages[64];
            well_between += u32::from(!is_lost && begin > lost_pages[0]);
            lost_behind += u32::from(is_lost && !meets_one);
            assert_eq!(table.entries(number).is_err(), is_lost, "{place:?}");
        }
        assert!(well_between > 10 && lost_behind > 10, "{well_between}, {lost_behind}");
        let answers: Vec<bool> = (0..keys)
            .map(|n| match get(&table, &key(n)) {
                Ok(found) => found == Some(value(n)) || panic!("key {n} is {found:?}"),
                Err(error) => error.kind() != ErrorKind::Corruption,
            })
            .collect();
        assert!(answers[0] && !answers[keys as usize - 1]);
    });
}

#[test]
fn a_fault_elsewhere_ends_the_process() {
    if let Some(output) = own_process("a_fault_elsewhere_ends_the_process") {
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, vec![1; PAGES as usize]).unwrap();
    let ours = RealFs.read(&path).unwrap();
    // SAFETY: it is cut on purpose.
    let foreign = unsafe { memmap2::Mmap::map(&fs::File::open(&path).unwrap()).unwrap() };
    cut(&path, 0);
    assert_eq!((ours[0], Faults::of(&ours).first()), (0, Some(0)));
    println!("{}", foreign[0]);
}

#[test]
fn zeros_pass_for_nothing() {
    let path = Path::new("zeros");
    for len in (0..200).chain([512, 4096, 8192, 65_536, 1 << 20]) {
        let zeros = Bytes::from(vec![0; len]);
        assert!(block::verify(&zeros).is_err(), "{len} zeros pass for a block");
        assert!(Layout::read(path, &zeros).is_err(), "{len} zeros pass for a table");
        assert!(Table::read(path.into(), 1, zeros.clone(), &Arc::new(ReadCounts::default())).is_err());
        assert!(
            Segment::read(path.into(), zeros.clone()).is_err(),
            "{len} zeros pass for a segment"
        );
        assert!(
            manifest::edits::<Error>(path, &zeros, |_, _| Ok(())).is_err(),
            "{len} zeros pass for a manifest"
        );
        for salt in [0, 1, u32::MAX, 0x8a91_36aa] {
            assert!(RawRecord::read(&zeros, salt).is_err(), "{len} zeros pass for a record");
        }
    }
}
