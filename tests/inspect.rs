//! `inspect` and `verify`: what a person reads of a data directory, and that no damage escapes them.

mod common;

use bytes::Bytes;
use common::*;
use pairdb_node::storage::compaction::debt::LevelOptions;
use pairdb_node::storage::fs::{FileSystem, RealFs};
use pairdb_node::storage::key::Key;
use pairdb_node::storage::recovery::Options;
use pairdb_node::storage::store::Store;
use pairdb_node::storage::verify::{Verification, verify};
use pairdb_node::storage::version::Value;
use predicates::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn pairdb(args: &[&str]) -> assert_cmd::Command {
    assert_cmd::Command::from_std(binary(args))
}

fn inspect(path: &Path, flags: &[&str]) -> assert_cmd::assert::Assert {
    pairdb(&[&["inspect", path.to_str().unwrap()], flags].concat()).assert()
}

fn key(n: u64) -> Key {
    Key::new("tenant", &format!("key{n:03}")).unwrap()
}

fn value(n: u64) -> Bytes {
    Bytes::from(format!("secret {n}\n").repeat(8))
}

fn options(data: &Path) -> Options {
    let mut options = Options::at(data);
    options.log.segment_size = 700;
    options.table.block_size = 256;
    options.levels = LevelOptions {
        l0_trigger: 2,
        ..LevelOptions::default()
    };
    options
}

/// A data directory with tables in L0 and L1, a log of several segments, and a manifest of several edits.
struct Bed {
    dir: TempDir,
}

impl Bed {
    fn new() -> Self {
        Self::ended(true)
    }

    /// In order or not: then the log has no closing mark, and zeros at its end.
    fn ended(in_order: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bed = Self { dir };
        bed.open(|store| {
            for round in 0..3 {
                for n in 0..30 {
                    let clock = [("n1", round * 100 + n + 1), ("n2", 7)].into_iter().collect();
                    store.write(&key(n), Value::Live(value(n)), Some(clock)).unwrap();
                }
                store.write(&key(500), Value::Tombstone, None).unwrap();
                store.flush().unwrap();
                if round == 1 {
                    while store.compact().unwrap() {}
                }
            }
            for n in 40..60 {
                store.write(&key(n), Value::Live(value(n)), None).unwrap();
            }
            if in_order {
                store.close().unwrap();
            }
        });
        bed
    }

    fn open(&self, then: impl FnOnce(&Store)) {
        let fs: Arc<dyn FileSystem> = Arc::new(RealFs);
        let store = Store::open(&fs, options(&self.data()), "node").unwrap();
        then(&store);
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn manifest(&self) -> PathBuf {
        self.data().join("sstables/MANIFEST")
    }

    fn files(&self, dir: &str, suffix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.data().join(dir)).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.to_str().unwrap().ends_with(suffix));
        files.sort();
        files
    }

    fn tables(&self) -> Vec<PathBuf> {
        self.files("sstables", ".sst")
    }

    fn segments(&self) -> Vec<PathBuf> {
        self.files("commitlog", ".log")
    }

    fn verify(&self) -> Verification {
        verify(&RealFs, &options(&self.data()), |_bytes| Ok(())).unwrap()
    }

    fn run_verify(&self, flags: &[&str]) -> assert_cmd::assert::Assert {
        let data = self.data();
        pairdb(&[&["verify", "--data-dir", data.to_str().unwrap()], flags].concat()).assert()
    }

    /// Names and contents of all files.
    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = walkdir::WalkDir::new(self.data()).sort_by_file_name();
        let files = entries.into_iter().map(|entry| entry.unwrap().into_path());
        files
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }
}

fn contains(text: &str) -> predicates::str::ContainsPredicate {
    predicate::str::contains(text)
}

#[test]
fn a_segment_is_shown_record_by_record() {
    let bed = Bed::new();
    let before = bed.contents();
    let segment = &bed.segments()[1];
    let shown = inspect(segment, &[]).success();
    let text = String::from_utf8(shown.get_output().stdout.clone()).unwrap();
    for part in [
        "commit log segment",
        "base seq",
        "opened       20",
        "salt",
        "mark ",
        "write ",
        "\"tenant:key04",
        "{node:97}  80 bytes  20",
        "clean, where the next segment says",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.contains("secret"), "a value is shown:\n{text}");
    inspect(segment, &["--values"])
        .success()
        .stdout(contains("\"secret 4").and(contains("\\n")).and(contains("...")));
    inspect(segment, &["--limit", "1"]).success().stdout(
        contains("write")
            .not()
            .and(contains("more records"))
            .and(contains("end at")),
    );
    inspect(bed.segments().last().unwrap(), &[])
        .success()
        .stdout(contains(": clean; last seq 113"));
    assert!(bed.contents() == before, "looking changes nothing");
}

#[test]
fn a_table_is_shown_with_properties_and_entries() {
    let bed = Bed::new();
    let table = &bed.tables()[1];
    let shown = inspect(table, &[]).success();
    let text = String::from_utf8(shown.get_output().stdout.clone()).unwrap();
    for part in [
        "level        not in the file",
        "keys         31, \"tenant:key000\" to \"tenant:key500\"",
        "tombstones among them: 1",
        "filter bits  17.0 a key",
        "every block is well, 31 keys",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    inspect(table, &["--entries"]).success().stdout(
        contains("\"tenant:key007\"  seq ")
            .and(contains("{n1:208,n2:7}  72 bytes"))
            .and(contains("deleted"))
            .and(contains("secret").not()),
    );
    inspect(table, &["--entries", "--values", "--limit", "2"])
        .success()
        .stdout(
            contains("secret 1")
                .and(contains("secret 2").not())
                .and(contains("(more entries)")),
        );
}

#[test]
fn a_manifest_and_a_directory_are_shown_by_level() {
    let bed = Bed::new();
    inspect(&bed.manifest(), &[]).success().stdout(
        contains("adds to L0 table")
            .and(contains("removes tables"))
            .and(contains("flushed up to seq 93"))
            .and(contains("  L0: 1 table,"))
            .and(contains("  L1: 1 table,"))
            .and(contains(": clean")),
    );
    inspect(&bed.data(), &[]).success().stdout(
        contains("sstables/MANIFEST: manifest")
            .and(contains("changes behind seq"))
            .and(contains("table, L0"))
            .and(contains("table, L1"))
            .and(contains("31 keys \"tenant:key000\" to \"tenant:key500\"")),
    );
    // The kind is told by what is in a file, not by its name.
    let renamed = bed.dir.path().join("found.bin");
    fs::copy(bed.manifest(), &renamed).unwrap();
    inspect(&renamed, &[]).success().stdout(contains("manifest "));
    fs::write(&renamed, "something else").unwrap();
    inspect(&renamed, &[])
        .code(1)
        .stderr(contains("does not begin as a file of the node"));
    inspect(&bed.dir.path().join("nothing"), &[])
        .code(1)
        .stderr(contains("nothing"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let bed = Bed::new();
    let table = bed.tables()[0].clone();
    let mut child = binary(&["inspect", table.to_str().unwrap(), "--entries"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// Inspects the file with each content; returns the exit codes.
fn inspect_each(path: &Path, contents: impl Iterator<Item = Vec<u8>>) -> Vec<i32> {
    let whole = fs::read(path).unwrap();
    let mut codes = Vec::new();
    for content in contents {
        fs::write(path, &content).unwrap();
        for flags in [&[][..], &["--entries", "--values"]] {
            let output = binary(&[&["inspect", path.to_str().unwrap()], flags].concat())
                .output()
                .unwrap();
            let (text, why) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            let code = output.status.code().expect("no signal ends it");
            assert!(code == 0 || code == 1, "exit code {code}: {why}");
            if code == 1 {
                let named = format!("damage in {} at byte ", path.display());
                assert!(text.contains(&named), "{named:?} is not in:\n{text}\n{why}");
            }
            codes.push(code);
        }
    }
    fs::write(path, whole).unwrap();
    codes
}

/// About `count` places in a file, its ends among them.
fn places(len: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..len).filter(move |at| *at < 4 || len - at <= 4 || at % (len / count).max(1) == 0)
}

fn flipped(whole: &[u8], at: usize, flip: u8) -> Vec<u8> {
    let mut content = whole.to_vec();
    content[at] ^= flip;
    content
}

#[test]
fn no_damage_escapes_inspect_and_none_makes_it_panic() {
    let bed = Bed::new();
    let segments = bed.segments();
    for path in [bed.manifest(), bed.tables()[0].clone(), segments[1].clone()] {
        let whole = fs::read(&path).unwrap();
        let flips = places(whole.len(), 25).map(|at| flipped(&whole, at, 0x41));
        let codes = inspect_each(&path, flips);
        assert!(codes.iter().all(|code| *code == 1), "{}: {codes:?}", path.display());
        let cuts = places(whole.len(), 12).map(|len| whole[..len].to_vec());
        let codes = inspect_each(&path, cuts);
        // A manifest may be torn.
        let may_be_torn = path == bed.manifest();
        assert!(
            may_be_torn || codes.iter().all(|code| *code == 1),
            "{}: {codes:?}",
            path.display()
        );
    }
    let last = segments.last().unwrap();
    let whole = fs::read(last).unwrap();
    inspect_each(last, places(whole.len(), 15).map(|at| flipped(&whole, at, 0xff)));
    inspect_each(last, places(whole.len(), 15).map(|len| whole[..len].to_vec()));
    bed.run_verify(&[]).success();
}

#[test]
fn what_surrounds_damage_is_still_shown() {
    let bed = Bed::new();
    let table = &bed.tables()[1];
    let whole = fs::read(table).unwrap();
    fs::write(table, flipped(&whole, 600, 1)).unwrap();
    inspect(table, &["--entries"]).code(1).stdout(
        contains("block checksum mismatch")
            .and(contains("passed over"))
            .and(contains("\"tenant:key000\""))
            .and(contains("\"tenant:key500\"")),
    );
    inspect(&bed.data(), &[])
        .code(1)
        .stdout(contains("block checksum mismatch").and(contains("table, L1")));
    // Without filter and properties, every entry can still be read.
    let footer = whole.len() - 64 + 12;
    let filter = u64::from_le_bytes(whole[footer + 16..][..8].try_into().unwrap()) as usize;
    fs::write(table, flipped(&whole, filter + 3, 1)).unwrap();
    inspect(table, &["--entries"]).code(1).stdout(
        contains("filter checksum mismatch")
            .and(contains("\"tenant:key500\""))
            .and(contains("31 keys are well")),
    );
    let segment = &bed.segments()[0];
    let whole = fs::read(segment).unwrap();
    fs::write(segment, flipped(&whole, whole.len() - 1, 1)).unwrap();
    inspect(segment, &[])
        .code(1)
        .stdout(contains("write").and(contains("checksum does not match")));
}

#[test]
fn verify_says_nothing_of_a_clean_directory() {
    let bed = Bed::new();
    let before = bed.contents();
    let found = bed.verify();
    assert!(found.damage.is_empty() && found.notes.is_empty(), "{found:?}");
    assert_eq!(
        (found.tables, found.keys, found.changes > 20),
        (2, 62, true),
        "{found:?}"
    );
    let shown = bed.run_verify(&["--json"]).success();
    let text = String::from_utf8(shown.get_output().stdout.clone()).unwrap();
    let json: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(json["keys"], 62);
    assert_eq!(json["damage"], serde_json::json!([]));
    assert!(text.contains("no damage"), "{text}");
    assert!(bed.contents() == before, "verifying changes nothing");
}

#[test]
fn verify_finds_every_flipped_byte() {
    let bed = Bed::new();
    let segments = bed.segments();
    let closing_mark = 25;
    let files = [vec![bed.manifest()], bed.tables(), segments.clone()].concat();
    for path in files {
        let whole = fs::read(&path).unwrap();
        let is_last = Some(&path) == segments.last();
        for at in places(whole.len(), 400) {
            fs::write(&path, flipped(&whole, at, 1 << (at % 8))).unwrap();
            let found = bed.verify();
            // What nothing vouches for behind it is taken for a torn write, as a recovery does.
            if is_last && at >= whole.len() - closing_mark {
                assert!(found.damage.is_empty() && found.notes.len() == 1, "{at}: {found:?}");
                continue;
            }
            let named = found.damage.iter().any(|damage| damage.file == path);
            assert!(named, "a flip at {at} of {} escaped: {found:?}", path.display());
        }
        fs::write(&path, whole).unwrap();
    }
    let table = &bed.tables()[0];
    let whole = fs::read(table).unwrap();
    fs::write(table, flipped(&whole, 100, 1)).unwrap();
    bed.run_verify(&["--json"])
        .code(1)
        .stdout(contains(&format!("damage in {} at byte 16", table.display())).and(contains("\"offset\":16")))
        .stderr(contains("Restore the named files"));
}

#[test]
fn verify_finds_what_is_missing_and_notes_what_is_left() {
    let bed = Bed::new();
    let without = |path: &Path| {
        let whole = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        let found = bed.verify();
        fs::write(path, whole).unwrap();
        found.damage
    };
    let table = &bed.tables()[0];
    assert!(
        without(table)
            .iter()
            .any(|damage| damage.file == *table && damage.detail.contains("missing"))
    );
    assert!(
        without(&bed.manifest())
            .iter()
            .any(|damage| damage.detail.contains("missing"))
    );
    for segment in [&bed.segments()[0], &bed.segments()[2]] {
        assert!(
            without(segment).iter().any(|damage| damage.detail.contains("missing")),
            "{segment:?}"
        );
    }
    let stray = bed.data().join("sstables/000000000999.sst");
    fs::copy(table, &stray).unwrap();
    fs::write(bed.data().join("sstables/000000001000.sst.tmp"), "half").unwrap();
    fs::write(bed.data().join("commitlog/commitlog-000000000999.log.tmp"), "half").unwrap();
    let found = bed.verify();
    assert!(found.damage.is_empty(), "{found:?}");
    assert_eq!(found.notes.len(), 3, "{found:?}");
    inspect(&bed.data(), &[])
        .success()
        .stdout(contains("not named by the manifest"));
    let nowhere = bed.dir.path().join("nowhere");
    pairdb(&["verify", "--data-dir", nowhere.to_str().unwrap()])
        .assert()
        .code(1)
        .stderr(contains("there is no data directory"));
    assert!(!nowhere.exists());
}

#[test]
fn a_torn_tail_is_a_note() {
    let bed = Bed::ended(false);
    let segments = bed.segments();
    let last = segments.last().unwrap();
    let whole = fs::read(last).unwrap();
    let written = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    fs::write(last, &whole[..written - 3]).unwrap();
    let found = bed.verify();
    assert!(found.damage.is_empty(), "{found:?}");
    assert!(found.notes.iter().any(|note| note.file == *last), "{found:?}");
    bed.run_verify(&[])
        .success()
        .stdout(contains("note: ").and(contains("no damage")));
    inspect(last, &[]).success().stdout(contains("a torn tail of"));
}

#[test]
fn verify_leaves_a_running_node_alone() {
    let bed = Bed::new();
    bed.open(|_store| {
        bed.run_verify(&[]).code(1).stderr(contains("a node is running on"));
        inspect(&bed.data(), &[]).success();
    });
    bed.run_verify(&[]).success();
}
