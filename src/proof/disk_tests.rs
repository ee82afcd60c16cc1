//! A simulated disk that lies is worse than none: each thing that it claims to do, alone.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk as _, DiskFile, read_exact_at};

use super::disk::{Call, Fault, ReadFault, Rng, SimDisk};
use super::sectors::SECTOR;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn disk_with(path: &Path, bytes: &[u8]) -> (SimDisk, Box<dyn DiskFile>) {
    let disk = SimDisk::default();
    disk.create_parents();
    disk.put(path, bytes.to_vec());
    let file = disk.open(path, true).unwrap();
    (disk, file)
}

fn path() -> PathBuf {
    PathBuf::from("/parent/store/file")
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Everything that a power cut may leave of a file, as the first byte of each sector.
fn outcomes(disk: &SimDisk) -> BTreeSet<Vec<u8>> {
    let options = disk.tree().options();
    let count: usize = options.iter().product();
    (0..count)
        .map(|index| {
            let mut left = index;
            let cut = SimDisk::from_tree(disk.tree().cut(&mut |count| {
                let chosen = left % count;
                left /= count;
                chosen
            }));
            assert!(cut.tree().is_settled(), "what a power cut leaves is on disk");
            cut.bytes(&path()).chunks(SECTOR).map(|sector| sector[0]).collect()
        })
        .collect()
}

#[test]
fn a_power_cut_keeps_any_subset_of_the_unsynced_sectors_and_nothing_else() {
    let (disk, file) = disk_with(&path(), &[0; 4 * SECTOR]);
    file.write_all_at(&[1; 3 * SECTOR], 0).unwrap();
    let expected: BTreeSet<Vec<u8>> =
        (0..8_u8).map(|bits| vec![bits & 1, bits >> 1 & 1, bits >> 2 & 1, 0]).collect();
    assert_eq!(outcomes(&disk), expected);
    assert_eq!(disk.after_kill().bytes(&path())[..SECTOR], [1; SECTOR], "a kill keeps the page cache");
    assert_eq!(disk.after_worst_power_cut().bytes(&path()), [0; 4 * SECTOR]);
    file.sync().unwrap();
    assert_eq!(outcomes(&disk), BTreeSet::from([vec![1, 1, 1, 0]]), "a sync leaves no choice");
}

#[test]
fn a_sector_may_have_reached_the_disk_between_two_writes() {
    let (disk, file) = disk_with(&path(), &[0; SECTOR]);
    file.write_all_at(&[1; SECTOR], 0).unwrap();
    file.write_all_at(&[2; SECTOR], 0).unwrap();
    assert_eq!(outcomes(&disk), BTreeSet::from([vec![0], vec![1], vec![2]]));
}

#[test]
fn a_write_of_a_part_changes_a_sector_as_a_whole() {
    let (disk, file) = disk_with(&path(), &[7; 2 * SECTOR]);
    file.write_all_at(&[9; 10], SECTOR as u64 - 5).unwrap();
    let worst = disk.after_worst_power_cut().bytes(&path());
    assert_eq!(worst, [7; 2 * SECTOR]);
    let kept = SimDisk::from_tree(disk.tree().cut(&mut |_| 0)).bytes(&path());
    assert_eq!(kept, disk.bytes(&path()));
    assert_eq!((kept[SECTOR - 6], kept[SECTOR - 5], kept[SECTOR + 4], kept[SECTOR + 5]), (7, 9, 9, 7));
}

#[test]
fn a_new_length_may_get_lost() {
    let (disk, file) = disk_with(&path(), &[3; SECTOR]);
    file.write_all_at(&[4; SECTOR], SECTOR as u64).unwrap();
    assert_eq!(outcomes(&disk), BTreeSet::from([vec![3], vec![3, 0], vec![3, 4]]));
    file.sync().unwrap();
    assert_eq!(outcomes(&disk), BTreeSet::from([vec![3, 4]]));
}

/// What Linux does: the error is told once, the pages count as clean, the next sync says yes.
#[test]
fn after_a_failed_sync_the_next_one_says_yes_and_the_bytes_are_not_durable() {
    let (disk, file) = disk_with(&path(), &[0; SECTOR]);
    file.write_all_at(&[1; SECTOR], 0).unwrap();
    disk.set_fault(Some(Fault { at: 0, fatal: false, partial: 0, errno: EIO }));
    assert_eq!(errno(file.sync()), Some(EIO));
    file.sync().unwrap();
    assert_eq!(disk.bytes(&path()), [1; SECTOR], "readers see them");
    assert_eq!(outcomes(&disk), BTreeSet::from([vec![0], vec![1]]), "and a power cut may take them back");
    // Only writing them again makes the sync mean something.
    file.write_all_at(&[1; SECTOR], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(outcomes(&disk), BTreeSet::from([vec![1]]));
}

#[test]
fn after_a_failed_sync_clean_pages_may_leave_the_cache_and_dirty_ones_stay() {
    let (disk, file) = disk_with(&path(), &[0; 2 * SECTOR]);
    file.write_all_at(&[1; SECTOR], 0).unwrap();
    disk.set_fault(Some(Fault { at: 0, fatal: false, partial: 0, errno: EIO }));
    assert!(file.sync().is_err());
    file.write_all_at(&[2; SECTOR], SECTOR as u64).unwrap();
    let evicted = SimDisk::from_tree(disk.tree().evict(&mut |count| count - 1));
    let bytes = evicted.bytes(&path());
    assert_eq!((bytes[0], bytes[SECTOR]), (0, 2));
    assert_eq!(outcomes(&evicted), BTreeSet::from([vec![0, 0], vec![0, 2]]));
}

#[test]
fn names_are_lost_until_their_own_directory_is_synced() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (log, other) = (Path::new("/parent/store/log"), Path::new("/parent/store/other"));
    for dir in [log, other] {
        disk.create_dir(dir).unwrap();
        disk.create(&dir.join("a")).unwrap().sync().unwrap();
    }
    assert!(disk.after_worst_power_cut().list(log).is_err(), "a new directory is an entry like any other");
    disk.sync_dir(Path::new("/parent/store")).unwrap();
    disk.sync_dir(log).unwrap();
    let cut = disk.after_worst_power_cut();
    assert_eq!(cut.list(log).unwrap(), ["a"]);
    assert!(cut.list(other).unwrap().is_empty(), "the sync of one directory is none of another");

    disk.sync_dir(other).unwrap();
    disk.rename(&log.join("a"), &log.join("b")).unwrap();
    disk.remove(&log.join("b")).unwrap();
    let left: Vec<Vec<String>> =
        (0..3).map(|lost| SimDisk::from_tree(disk.tree().cut(&mut |_| lost)).list(log).unwrap()).collect();
    assert_eq!(left, [vec![], vec!["b".to_owned()], vec!["a".to_owned()]], "a prefix of the changes");
    disk.sync_dir(log).unwrap();
    assert!(disk.after_worst_power_cut().list(log).unwrap().is_empty());
}

#[test]
fn a_new_name_can_be_durable_before_the_bytes() {
    let disk = SimDisk::default();
    disk.create_parents();
    let file = disk.create(&path()).unwrap();
    file.write_all_at(&[1; SECTOR], 0).unwrap();
    disk.sync_dir(Path::new("/parent/store")).unwrap();
    assert_eq!(disk.after_worst_power_cut().bytes(&path()), b"");
    file.sync().unwrap();
    assert_eq!(disk.after_worst_power_cut().bytes(&path()), [1; SECTOR]);
}

#[test]
fn a_fault_hits_the_call_it_names_once_or_from_then_on() {
    for (fatal, third) in [(false, None), (true, Some(30))] {
        let (disk, file) = disk_with(&path(), &[0; SECTOR]);
        disk.set_fault(Some(Fault { at: 1, fatal, partial: 0, errno: 30 }));
        assert_eq!(errno(file.sync()), None);
        assert_eq!(errno(disk.create_dir(Path::new("/parent/store/x"))), Some(30));
        assert!(disk.list(Path::new("/parent/store/x")).is_err(), "it was not made");
        assert_eq!(errno(file.sync()), third);
        assert_eq!(disk.operations(), 3);
        disk.set_fault(None);
        assert_eq!(errno(file.sync()), None);
    }
}

#[test]
fn a_failing_write_leaves_whole_sectors_behind() {
    for (partial, sectors) in [(0, 0), (511, 0), (512, 1), (1100, 2), (9999, 3)] {
        let (disk, file) = disk_with(&path(), &[0; 4 * SECTOR]);
        disk.set_fault(Some(Fault { at: 0, fatal: false, partial, errno: EIO }));
        assert_eq!(errno(file.write_all_at(&[1; 3 * SECTOR], 0)), Some(EIO));
        let written = disk.bytes(&path()).iter().rposition(|byte| *byte == 1).map_or(0, |last| last + 1);
        assert_eq!(written, sectors * SECTOR, "{partial}");
    }
}

#[test]
fn a_full_disk_lets_files_be_written_to_but_not_grow() {
    let (disk, file) = disk_with(&path(), &[0; SECTOR]);
    disk.set_free(Some(SECTOR + 100));
    file.write_all_at(&[1; SECTOR], 0).unwrap();
    assert_eq!(errno(file.write_all_at(&[2; 3 * SECTOR], 0)), Some(ENOSPC));
    assert_eq!(disk.bytes(&path()), [2; 2 * SECTOR], "as much as there was room for");
    assert_eq!(errno(file.write_all_at(&[3; SECTOR], 2 * SECTOR as u64)), Some(ENOSPC));
    disk.set_full(false);
    file.write_all_at(&[3; SECTOR], 2 * SECTOR as u64).unwrap();
}

#[test]
fn reads_are_counted_and_fail_on_demand() {
    let (disk, file) = disk_with(&path(), &[1; SECTOR]);
    disk.set_read_fault(Some(ReadFault { at: 2, forever: true, errno: EIO }));
    assert_eq!(file.len().unwrap(), SECTOR as u64);
    let mut byte = [0];
    read_exact_at(file.as_ref(), &mut byte, 5).unwrap();
    assert_eq!(errno(read_exact_at(file.as_ref(), &mut byte, 5)), Some(EIO));
    assert_eq!(errno(disk.open(&path(), false).map(|_| ())), Some(EIO));
    assert_eq!(errno(disk.list(Path::new("/parent"))), Some(EIO));
    assert_eq!(disk.reads(), 5);
    disk.set_read_fault(None);
    disk.fail_reads_at(Some((path(), 9)));
    read_exact_at(file.as_ref(), &mut [0; 9], 0).unwrap();
    assert_eq!(errno(read_exact_at(file.as_ref(), &mut [0; 10], 0)), Some(EIO));
    assert!(file.read_at(&mut [0; 4], SECTOR as u64).is_ok_and(|count| count == 0), "the end");
}

#[test]
fn damage_does_what_its_name_says() {
    let bytes: Vec<u8> = (0..3 * SECTOR).map(|at| (at / SECTOR) as u8 + 1).collect();
    let (disk, _) = disk_with(&path(), &bytes);
    let first = |disk: &SimDisk| -> Vec<u8> { disk.bytes(&path()).chunks(SECTOR).map(|s| s[0]).collect() };
    disk.flip_bit(&path(), 0, 7);
    assert_eq!(first(&disk), [129, 2, 3]);
    disk.swap_sectors(&path(), 0, 2);
    assert_eq!(first(&disk), [3, 2, 129]);
    disk.zero_sector(&path(), 1);
    assert_eq!(first(&disk), [3, 0, 129]);
    disk.truncate(&path(), SECTOR + 1);
    assert_eq!(first(&disk), [3, 0]);
    assert!(disk.tree().is_settled(), "damage is on disk, not in memory alone");
}

/// A copy is cheap because it shares; what is written to one must not show in the other.
#[test]
fn copies_do_not_see_each_others_writes() {
    let (disk, file) = disk_with(&path(), &[0; SECTOR]);
    let copy = disk.after_kill();
    file.write_all_at(&[1; SECTOR], 0).unwrap();
    disk.create(Path::new("/parent/store/new")).unwrap();
    assert_eq!(copy.bytes(&path()), [0; SECTOR]);
    assert_eq!(copy.paths(), [path()]);
    assert!(disk.tree().sum() != copy.tree().sum());
    copy.open(&path(), true).unwrap().write_all_at(&[1; SECTOR], 0).unwrap();
    copy.create(Path::new("/parent/store/new")).unwrap();
    assert_eq!(disk.tree().sum(), copy.tree().sum(), "the same names and bytes");
    assert!(disk.tree().full_sum() == copy.tree().full_sum());
    file.sync().unwrap();
    assert_eq!(disk.tree().sum(), copy.tree().sum());
    assert!(disk.tree().full_sum() != copy.tree().full_sum(), "one of them is durable");
}

#[test]
fn a_recording_holds_the_disk_after_each_call() {
    let (disk, file) = disk_with(&path(), &[0; SECTOR]);
    disk.record();
    disk.step(1);
    file.write_all_at(&[1; 8], 8).unwrap();
    file.sync().unwrap();
    disk.step(2);
    let points = disk.take_points();
    let seen: Vec<_> = points.iter().map(|point| (point.call, point.step)).collect();
    let write = Call::Write { file: 0, from: 8, to: 16 };
    assert_eq!(seen, [(Call::Step, 1), (write, 1), (Call::Sync, 1), (Call::Step, 2)]);
    let durable: Vec<u8> = points
        .iter()
        .map(|point| SimDisk::from_tree(point.tree.clone()).after_worst_power_cut().bytes(&path())[8])
        .collect();
    assert_eq!(durable, [0, 0, 1, 1]);
}

/// The same seed gives the same disk.
#[test]
fn a_power_cut_can_be_repeated_by_its_seed() {
    let (disk, file) = disk_with(&path(), &[0; 24 * SECTOR]);
    file.write_all_at(&[1; 24 * SECTOR], 0).unwrap();
    let cut = |seed| disk.after_power_cut(&mut Rng::new(seed)).tree().sum();
    assert_eq!(cut(1), cut(1));
    assert!((2..9).any(|seed| cut(seed) != cut(1)));
}
