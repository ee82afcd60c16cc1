//! A writer whose store somebody else takes away, replaces or forks: at every call of a script.
//!
//! Whatever happens, an event is acknowledged only where it can be found by then: the path leads to the
//! segment that it went into, and nobody else was let in (P1). What was refused as not written is nowhere
//! (P4). And the files of another store stay as they were.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::error::{Error, Outcome, Result};
use crate::lock::WriterLock;
use crate::log::directory::LogDir;
use crate::log::open::{OpenLog, create_as, open};
use crate::log::writer::LogWriter;
use crate::store_id::StoreId;

use super::check::{Opener, TINY};
use super::disk::SimDisk;
use super::tree::Tree;
use super::{one, read_all};

const STORE: &str = "/parent/store";
const BACKUP: &str = "/parent/backup";
const MOVED: &str = "/parent/moved";

/// What somebody else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meddling {
    LockRemoved,
    StoreRemoved,
    StoreMoved,
    /// By an older copy of the same store, or by another store.
    StoreReplaced,
    LogReplaced,
    SegmentRemoved,
    SegmentReplaced,
    /// A program that knows the file `lock` alone gets in after it was removed, and appends an event.
    Intruder,
    /// The same, who puts the lock file back. Only the bytes tell.
    HiddenIntruder,
    Fork,
}

const ALL: [Meddling; 10] = [
    Meddling::LockRemoved,
    Meddling::StoreRemoved,
    Meddling::StoreMoved,
    Meddling::StoreReplaced,
    Meddling::LogReplaced,
    Meddling::SegmentRemoved,
    Meddling::SegmentReplaced,
    Meddling::Intruder,
    Meddling::HiddenIntruder,
    Meddling::Fork,
];

fn newest_segment(tree: &Tree) -> String {
    let names = tree.list(&Path::new(STORE).join("log")).unwrap();
    let newest = names.into_iter().rfind(|name| crate::log::segment::number_of(name).is_some()).unwrap();
    format!("{STORE}/log/{newest}")
}

/// A writer that was let in by the file alone, on the same files.
fn intrude(tree: &mut Tree) {
    let disk = SimDisk::from_tree(tree.clone());
    let mut opener = Opener::alone(StoreId([1; 16]));
    let mut writer = opener.open(&disk).unwrap();
    let events = one(b"of the intruder");
    if writer.room() < 200 {
        writer.roll_at(0, 3).unwrap();
    }
    writer.append(&events, 9).unwrap();
    drop(writer);
    *tree = disk.tree();
}

impl Meddling {
    fn happen(self, tree: &mut Tree, process: &mut u32) {
        let (store, moved) = (Path::new(STORE), Path::new(MOVED));
        match self {
            Self::LockRemoved => tree.remove(&store.join("lock")).unwrap(),
            Self::StoreRemoved => tree.remove_dir(store),
            Self::StoreMoved => tree.move_dir(store, moved),
            Self::StoreReplaced => {
                tree.move_dir(store, moved);
                tree.copy_dir(Path::new(BACKUP), store);
            }
            Self::LogReplaced => {
                tree.move_dir(&store.join("log"), moved);
                tree.copy_dir(&Path::new(BACKUP).join("log"), &store.join("log"));
            }
            Self::SegmentRemoved => tree.remove(Path::new(&newest_segment(tree))).unwrap(),
            Self::SegmentReplaced => {
                let path = newest_segment(tree);
                let bytes = tree.file(tree.file_at(Path::new(&path)).unwrap()).cache().to_vec();
                tree.remove(Path::new(&path)).unwrap();
                tree.put(Path::new(&path), bytes);
            }
            Self::Intruder => {
                tree.remove(&store.join("lock")).unwrap();
                tree.put(&store.join("lock"), Vec::new());
                intrude(tree);
            }
            Self::HiddenIntruder => intrude(tree),
            Self::Fork => *process = 2,
        }
    }
}

/// A store with a few events and a backup that is older than it, and its writer.
struct World {
    disk: SimDisk,
    lock: Option<WriterLock>,
    writer: LogWriter,
    /// Payloads that were acknowledged, in order.
    acknowledged: Vec<Vec<u8>>,
    next: u8,
}

fn lock(disk: &SimDisk) -> Result<WriterLock> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    WriterLock::acquire(&disk, Path::new(STORE), Duration::ZERO)
}

/// The payloads that a reader finds.
fn found(disk: &SimDisk) -> Vec<Vec<u8>> {
    read_all(disk, None).into_iter().map(|(_, _, payload)| payload).collect()
}

impl World {
    /// `other` puts another store where the backup would be.
    fn new(other: bool) -> Self {
        let disk = SimDisk::default();
        disk.create_parents();
        disk.set_process(1);
        let held = lock(&disk).unwrap();
        let (writer, _) = create_as(&LogDir::locked(&held), TINY, 1, StoreId([1; 16])).unwrap();
        let mut world = Self { disk, lock: Some(held), writer, acknowledged: Vec::new(), next: 0 };
        world.append().unwrap();
        world.disk.meddle(|tree| tree.copy_dir(Path::new(STORE), Path::new(BACKUP)));
        if other {
            let elsewhere = SimDisk::default();
            elsewhere.create_parents();
            let mut opener = Opener::alone(StoreId([2; 16]));
            opener.open(&elsewhere).unwrap().append(&one(b"of another store"), 5).unwrap();
            for path in super::segments(&elsewhere) {
                let there = Path::new(BACKUP).join("log").join(path.file_name().unwrap());
                world.disk.put(&there, elsewhere.bytes(&path));
            }
        }
        world.append().unwrap();
        world
    }

    fn append(&mut self) -> Result<u64> {
        self.next += 1;
        let payload = [&[self.next; 40][..], b"written here"].concat();
        let events = one(&payload);
        let seq = self.writer.append(&events, 7)?;
        self.acknowledged.push(payload);
        Ok(seq)
    }

    /// The script: its steps in order, each of which may acknowledge one event.
    fn step(&mut self, step: usize) -> Result<()> {
        match step {
            MARK => {
                self.writer.mark()?;
                self.writer.note_tail();
            }
            ROLL => self.writer.roll_at(0, 2)?,
            _ => drop(self.append()?),
        }
        Ok(())
    }
}

const STEPS: usize = 6;
const MARK: usize = 1;
const ROLL: usize = 3;
/// The looks at the newest segment and at the lock, between the sync and the acknowledgement.
const LAST_LOOKS: u64 = 2;
/// The looks before the write, and the read of what stands there.
const FIRST_LOOKS: u64 = 3;

/// Where the calls of each step begin and end.
fn calls_of_steps() -> Vec<(u64, u64)> {
    let mut world = World::new(false);
    (0..STEPS)
        .map(|step| {
            let start = world.disk.calls();
            world.step(step).unwrap();
            (start, world.disk.calls())
        })
        .collect()
}

#[test]
fn p1_nothing_is_acknowledged_where_the_path_does_not_lead_by_then() {
    let steps = calls_of_steps();
    let (first, end) = (steps[0].0, steps[STEPS - 1].1);
    let mut cases = 0;
    for meddling in ALL {
        for other in [false, true] {
            if other && !matches!(meddling, Meddling::StoreReplaced | Meddling::LogReplaced) {
                continue;
            }
            for at in first..end {
                one_case(meddling, other, at, &steps);
                cases += 1;
            }
        }
    }
    println!("{cases} meddlings, each before another call");
}

/// Whether somebody who wrote before this call was written over before anybody could look: after our look at
/// the bytes and before our write.
fn overwritten(at: u64, steps: &[(u64, u64)]) -> bool {
    steps.iter().enumerate().any(|(step, (start, _))| step != ROLL && at == start + FIRST_LOOKS)
}

fn one_case(meddling: Meddling, other: bool, at: u64, steps: &[(u64, u64)]) {
    let case = format!("{meddling:?}, other {other}, before call {at}");
    let mut world = World::new(other);
    world.disk.meddle_at(at, move |tree, process| meddling.happen(tree, process));
    let mut refused = None;
    for (step, (start, end)) in steps.iter().enumerate() {
        let is_append = step != MARK && step != ROLL;
        // The process is asked for before the looks, and not by a call of the disk.
        let seen_in_time = match meddling {
            Meddling::HiddenIntruder => at < start + FIRST_LOOKS && !overwritten(at, steps),
            Meddling::Fork => at < end - LAST_LOOKS,
            _ => at <= end - LAST_LOOKS,
        };
        match world.step(step) {
            Ok(()) => assert!(!(is_append && seen_in_time), "P1: acknowledged by step {step}: {case}"),
            Err(error) => {
                assert!(
                    matches!(error, Error::Displaced { .. } | Error::Forked { .. } | Error::Io { .. }),
                    "{error}: {case}"
                );
                assert!(at < *end, "refused by step {step} before anything happened: {case}");
                let unwritten = !is_append || (at <= *start && meddling != Meddling::Fork);
                assert!(!unwritten || error.outcome() == Outcome::NotWritten, "P10: {error}: {case}");
                refused = Some((error.outcome(), world.next));
                break;
            }
        }
    }
    if let Some((outcome, next)) = refused {
        assert!(world.append().is_err() && world.writer.mark().is_err(), "P10: final: {case}");
        assert!(world.writer.roll_at(0, 2).is_err(), "P10: final: {case}");
        world.writer.note_tail();
        let everywhere: Vec<u8> = world
            .disk
            .paths()
            .iter()
            .filter(|path| path.extension().is_some())
            .flat_map(|path| world.disk.bytes(path))
            .collect();
        let written = everywhere.windows(40).any(|bytes| bytes == [next; 40]);
        assert!(
            outcome == Outcome::Unknown || next as usize == world.acknowledged.len() || !written,
            "P4: {case}"
        );
    }
    check_files(&world, meddling, at, steps, &case);
}

/// What is left of the store, and of the other one.
fn check_files(world: &World, meddling: Meddling, at: u64, steps: &[(u64, u64)], case: &str) {
    let disk = &world.disk;
    match meddling {
        Meddling::StoreReplaced | Meddling::LogReplaced => {
            let backup = Path::new(BACKUP).join("log");
            let there = Path::new(STORE).join("log");
            let names = |dir: &Path| disk.meddle(|tree| tree.list(dir)).unwrap();
            assert_eq!(names(&there), names(&backup), "P3: something was made in the other store: {case}");
            for name in names(&backup) {
                let same = disk.bytes(&there.join(&name)) == disk.bytes(&backup.join(&name));
                assert!(same, "P3: the other store was written to: {name}: {case}");
            }
            let intact = Path::new(MOVED).join(if meddling == Meddling::LogReplaced { "" } else { "log" });
            assert!(disk.meddle(|tree| tree.list(&intact)).is_ok());
        }
        Meddling::LockRemoved | Meddling::Fork => {
            // Everything acknowledged is there, and nobody else was let in meanwhile.
            let found = found(disk);
            assert!(found.starts_with(&world.acknowledged), "P1: {case}");
            if at.is_multiple_of(8) {
                assert!(matches!(lock(disk), Err(Error::Locked { .. })), "a second writer: {case}");
            }
        }
        Meddling::Intruder | Meddling::HiddenIntruder => {
            // Where it wrote between our look and our write nothing helps but not to acknowledge.
            let between = steps.iter().any(|(start, end)| at >= start + FIRST_LOOKS && at < *end);
            if !between {
                let found = found(disk);
                assert!(
                    found.contains(&b"of the intruder".to_vec()),
                    "P3: the intruder's event is gone: {case}"
                );
            }
        }
        _ => {}
    }
}

#[test]
fn a_forked_child_unlocks_nothing() {
    let mut world = World::new(false);
    world.disk.set_process(2);
    let refused = world.append().unwrap_err();
    assert!(matches!(refused, Error::Forked { opened_by: 1, .. }), "{refused}");
    assert_eq!(refused.outcome(), Outcome::NotWritten);
    world.lock = None;
    assert!(matches!(lock(&world.disk), Err(Error::Locked { .. })), "the parent's lock is gone");
}

#[test]
fn a_lock_that_was_replaced_while_it_was_taken_is_taken_anew() {
    // Between the opening of the lock file and the look whether it is still there somebody removes it.
    let disk = SimDisk::default();
    disk.create_parents();
    disk.set_process(1);
    let before = disk.calls();
    drop(lock(&disk).unwrap());
    for call in before..disk.calls() {
        let disk = SimDisk::default();
        disk.create_parents();
        disk.set_process(1);
        disk.meddle_at(call, |tree, _| {
            let _ = tree.remove(&Path::new(STORE).join("lock"));
        });
        let Ok(held) = lock(&disk) else { continue };
        let anchored = LogDir::locked(&held).check();
        assert!(anchored.is_ok() || call + 1 == disk.calls(), "locked what is gone: call {call}");
    }
}

/// What is opened is compared with the path once more when all is recovered.
#[test]
fn a_store_that_was_replaced_while_it_was_opened_is_not_opened() {
    let world = World::new(true);
    let World { disk, lock: held, writer, .. } = world;
    drop((writer, held));
    let held = lock(&disk).unwrap();
    let log = LogDir::locked(&held);
    let start = disk.calls();
    let opened = |log: &LogDir| {
        let mut donor = crate::log::heal::NoDonor;
        let with = OpenLog {
            limits: TINY,
            witness: None,
            claim: None,
            donor: &mut donor,
            unread: None,
            trust_log: false,
            tail: None,
        };
        open(log, with).map(|(writer, _)| writer)
    };
    drop(opened(&log).unwrap());
    let end = disk.calls();
    // The looks at the two directories and at the lock come last.
    disk.meddle_at(end + (end - start) - 3, |tree, process| Meddling::StoreReplaced.happen(tree, process));
    assert!(matches!(opened(&log), Err(Error::Displaced { .. })));
}
