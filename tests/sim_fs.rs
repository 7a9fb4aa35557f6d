//! The simulated disk does what its model says: no less, or the tests on it would prove nothing, and no more, or they would
//! find faults that no disk has.

use pairdb_node::storage::fs::{Failure, Fault, FileSystem, OperationKind, SimFs, Survival, WriteFile};
use std::collections::BTreeSet;
use std::path::Path;

const SECTOR: usize = 512;

fn dir() -> &'static Path {
    Path::new("/dir")
}

/// A disk with a synced file of `len` ones, open.
fn disk_with_file(len: usize) -> (SimFs, Box<dyn WriteFile>) {
    let disk = SimFs::default();
    let mut file = disk.create(&dir().join("file")).unwrap();
    file.write_at(0, &vec![1; len]).unwrap();
    file.sync().unwrap();
    disk.sync_dir(dir()).unwrap();
    (disk, file)
}

/// What is left of a disk after each of many crashes.
fn after_crashes<T: Ord>(disk: &SimFs, look: impl Fn(&SimFs) -> T) -> BTreeSet<T> {
    let crashed = |seed| {
        let disk = disk.copied();
        disk.crash_with(Survival::Random(seed));
        look(&disk)
    };
    (0..500).map(crashed).collect()
}

fn content(disk: &SimFs) -> Vec<u8> {
    disk.read(&dir().join("file")).unwrap().to_vec()
}

fn names(disk: &SimFs) -> Vec<String> {
    let mut names = disk.list(dir()).unwrap();
    names.sort();
    names
}

#[test]
fn each_sector_is_old_or_new_independently_of_the_others() {
    let (disk, mut file) = disk_with_file(3 * SECTOR);
    file.write_at(0, &[2; 3 * SECTOR]).unwrap();
    let states = after_crashes(&disk, content);
    assert_eq!(states.len(), 8, "three sectors, each with or without the write");
    for state in states {
        for sector in state.chunks(SECTOR) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is mixed");
        }
    }
}

#[test]
fn a_sector_written_twice_is_in_one_of_its_states_and_never_has_the_later_write_alone() {
    let (disk, mut file) = disk_with_file(SECTOR);
    file.write_at(0, &[2; 100]).unwrap();
    file.write_at(100, &[3; 100]).unwrap();
    let states = after_crashes(&disk, |disk| {
        let content = content(disk);
        (content[0], content[100], content[200])
    });
    assert_eq!(states, [(1, 1, 1), (2, 1, 1), (2, 3, 1)].into());
}

#[test]
fn behind_the_durable_length_are_the_bytes_or_zeros_or_nothing() {
    let (disk, mut file) = disk_with_file(SECTOR);
    file.write_at(SECTOR as u64, &[2; 10]).unwrap();
    let tails = after_crashes(&disk, |disk| content(disk).split_off(SECTOR));
    assert_eq!(tails, [vec![], vec![0; 10], vec![2; 10]].into());
}

#[test]
fn a_cut_may_be_lost() {
    let (disk, mut file) = disk_with_file(SECTOR + 10);
    file.truncate(5).unwrap();
    let lengths = after_crashes(&disk, |disk| content(disk).len());
    assert_eq!(lengths, [5, SECTOR + 10].into());
    file.sync().unwrap();
    assert_eq!(after_crashes(&disk, content), [vec![1; 5]].into());
}

#[test]
fn what_was_synced_survives_every_crash() {
    let (disk, mut file) = disk_with_file(2 * SECTOR);
    file.write_at(700, &[2; 1000]).unwrap();
    disk.open(&dir().join("file")).unwrap().sync().unwrap();
    let whole = content(&disk);
    assert_eq!(after_crashes(&disk, content), [whole].into());
}

#[test]
fn a_rename_is_kept_or_lost_and_the_file_is_never_without_a_name() {
    let (disk, _file) = disk_with_file(10);
    disk.rename(&dir().join("file"), &dir().join("other")).unwrap();
    let states = after_crashes(&disk, names);
    assert_eq!(states, [vec!["file".to_owned()], vec!["other".to_owned()]].into());
    disk.sync_dir(dir()).unwrap();
    assert_eq!(after_crashes(&disk, names).len(), 1);
}

#[test]
fn names_that_have_nothing_to_do_with_each_other_survive_in_any_subset() {
    let (disk, _file) = disk_with_file(10);
    disk.link(&dir().join("file"), &dir().join("link")).unwrap();
    drop(disk.create(&dir().join("new")).unwrap());
    disk.remove(&dir().join("file")).unwrap();
    assert_eq!(after_crashes(&disk, names).len(), 8);
}

#[test]
fn a_change_of_a_name_survives_only_with_those_before_it() {
    let (disk, _file) = disk_with_file(10);
    drop(disk.create(&dir().join("new.tmp")).unwrap());
    disk.rename(&dir().join("new.tmp"), &dir().join("new")).unwrap();
    disk.remove(&dir().join("new")).unwrap();
    let states = after_crashes(&disk, names);
    let with = |name: &str| vec!["file".to_owned(), name.to_owned()];
    assert_eq!(states, [vec!["file".to_owned()], with("new.tmp"), with("new")].into());
}

#[test]
fn a_lost_directory_takes_with_it_what_is_in_it() {
    let disk = SimFs::default();
    let below = Path::new("/a/b");
    disk.create_dir_all(below).unwrap();
    drop(disk.create(&below.join("file")).unwrap());
    disk.sync_dir(below).unwrap();
    disk.sync_dir(Path::new("/a")).unwrap();
    let there = |disk: &SimFs| disk.read(&below.join("file")).is_ok();
    assert_eq!(after_crashes(&disk, there), [false, true].into());
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(after_crashes(&disk, there), [true].into());
}

#[test]
fn a_file_whose_name_was_never_synced_may_be_gone_although_its_bytes_were() {
    let disk = SimFs::default();
    let mut file = disk.create(&dir().join("file")).unwrap();
    file.write_at(0, b"bytes").unwrap();
    file.sync().unwrap();
    assert_eq!(after_crashes(&disk, names), [vec![], vec!["file".to_owned()]].into());
}

#[test]
fn the_same_seed_leaves_the_same() {
    let (disk, mut file) = disk_with_file(20 * SECTOR);
    file.write_at(0, &[2; 20 * SECTOR]).unwrap();
    for seed in 0..50 {
        let copies = [disk.copied(), disk.copied()];
        copies.iter().for_each(|copy| copy.crash_with(Survival::Random(seed)));
        assert_eq!(content(&copies[0]), content(&copies[1]));
    }
}

#[test]
fn when_the_power_goes_the_operation_under_way_is_pending_and_no_other_follows() {
    let (disk, mut file) = disk_with_file(SECTOR);
    let before = disk.operations();
    disk.crash_after(1);
    disk.read(&dir().join("file")).unwrap();
    file.write_at(0, &[2; SECTOR]).unwrap_err();
    file.sync().unwrap_err();
    disk.list(dir()).unwrap_err();
    assert_eq!(disk.operations(), before + 2, "what comes too late is no operation");
    assert_eq!(after_crashes(&disk, |disk| content(disk)[0]), [1, 2].into());
    disk.crash_with(Survival::Nothing);
    assert_eq!(content(&disk), [1; SECTOR]);
    file.sync().unwrap_err();
}

#[test]
fn a_sync_that_the_power_loss_cuts_off_has_synced_any_part() {
    let (disk, mut file) = disk_with_file(2 * SECTOR);
    file.write_at(0, &[2; 2 * SECTOR]).unwrap();
    disk.crash_after(0);
    file.sync().unwrap_err();
    assert_eq!(after_crashes(&disk, content).len(), 4);
}

#[test]
fn operations_fail_by_number_and_by_what_they_are() {
    let (disk, mut file) = disk_with_file(10);
    disk.fail(Fault::at(1, Failure::Device));
    disk.list(dir()).unwrap();
    assert_eq!(disk.list(dir()).unwrap_err().raw_os_error(), Some(5));
    disk.list(dir()).unwrap();
    disk.fail(Fault::next(OperationKind::Write, "file", Failure::Full));
    drop(disk.create(&dir().join("other")).unwrap());
    let error = file.write_at(10, &[2; 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(content(&disk), [vec![1; 10], vec![2; 5]].concat(), "a short write");
    disk.fail(Fault::next(OperationKind::SyncDir, "", Failure::Device));
    disk.heal();
    disk.sync_dir(dir()).unwrap();
}

#[test]
fn a_failed_sync_makes_nothing_durable() {
    let (disk, mut file) = disk_with_file(10);
    file.write_at(0, &[2; 10]).unwrap();
    disk.fail_syncs(1);
    file.sync().unwrap_err();
    disk.crash_with(Survival::Nothing);
    assert_eq!(content(&disk), [1; 10]);
}

#[test]
fn a_flipped_bit_stays_flipped() {
    let (disk, _file) = disk_with_file(10);
    disk.flip(&dir().join("file"), 3, 0x80).unwrap();
    assert_eq!(content(&disk)[3], 0x81);
    disk.crash_with(Survival::Nothing);
    assert_eq!(content(&disk)[3], 0x81);
}

#[test]
fn the_sync_after_one_that_failed_makes_nothing_durable_until_something_changes() {
    let (disk, mut file) = disk_with_file(SECTOR);
    file.write_at(0, &[2; SECTOR]).unwrap();
    disk.rename(&dir().join("file"), &dir().join("other")).unwrap();
    disk.fail(Fault::next(OperationKind::Sync, "other", Failure::Device));
    file.sync().unwrap_err();
    disk.fail(Fault::next(OperationKind::SyncDir, "", Failure::Device));
    disk.sync_dir(dir()).unwrap_err();
    file.sync().unwrap();
    disk.sync_dir(dir()).unwrap();
    let look = |disk: &SimFs| {
        let name = names(disk).remove(0);
        let first = disk.read(&dir().join(&name)).unwrap()[0];
        (name, first)
    };
    let all = [("file", 1), ("file", 2), ("other", 1), ("other", 2)].map(|(name, first)| (name.to_owned(), first));
    assert_eq!(after_crashes(&disk, look), all.clone().into());
    file.write_at(SECTOR as u64, &[2; 1]).unwrap();
    file.sync().unwrap();
    disk.rename(&dir().join("other"), &dir().join("file")).unwrap();
    disk.rename(&dir().join("file"), &dir().join("other")).unwrap();
    disk.sync_dir(dir()).unwrap();
    assert_eq!(after_crashes(&disk, look), [all[3].clone()].into());
}
