//! The log against calls that fail: every call of a script, with every error, once or from then on.
//!
//! An error's outcome means what it says (P10): what was `NotWritten` never shows up, what was `Unknown`
//! may, and a handle whose write or sync failed takes nothing more and writes nothing more. After it
//! the page cache, the disk alone, or what the kernel made of both is opened: dropped pages whose next
//! sync says yes included. `SYNCLOG_FAULT_SCRIPTS` is how many scripts, `SYNCLOG_FAULT_SEED` the first;
//! `SYNCLOG_FAULT_ONE=seed.call.errno.forever.partial` runs one case alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::{Error, Outcome, Result};
use crate::log::view::LogView;
use crate::log::writer::NewEvent;

use super::check::{Expect, Opener, Planned, Rows, verify};
use super::crash::{said, setting};
use super::disk::{Fault, ReadFault, Rng, SimDisk};
use super::log_on;
use super::scripts::{Life, Step, script};
use super::watchdog::{LIMIT, Watchdog};

const EIO: i32 = 5;
const EROFS: i32 = 30;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

/// A script without crashes of its own.
fn steps_of(seed: u64) -> Vec<Step> {
    script(seed).into_iter().filter(|step| !matches!(step, Step::Die { .. })).take(7).collect()
}

/// How many calls a script makes that change something.
fn calls_of(seed: u64) -> u64 {
    let mut life = Life::new(seed, false);
    // A fault that never comes keeps the count across disks.
    let far = 1_000_000;
    life.arm(Fault { at: far, fatal: false, partial: 0, errno: EIO });
    life.reopen(false).unwrap();
    steps_of(seed).into_iter().for_each(|step| life.step(step).unwrap());
    far - life.calls_left().unwrap()
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}

/// One script with one fault. Then everything that may be left is opened.
fn one_case(seed: u64, fault: Fault) {
    let mut life = Life::new(seed, false);
    life.arm(fault);
    let mut failed = life.reopen(false).err();
    assert!(failed.is_none() || life.writer.is_none());
    let mut steps = steps_of(seed).into_iter();
    while failed.is_none() {
        let Some(step) = steps.next() else { break };
        let hit_before = life.hit().is_some();
        let Err(error) = life.step(step) else { continue };
        assert!(matches!(error, Error::Io { .. }), "{step:?}: {error}");
        let (call, path) = life.hit().unwrap_or_else(|| panic!("{step:?} fails for nothing: {error}"));
        let source_says = error.to_string();
        let Some(writer) = &life.writer else {
            failed = Some(error);
            break;
        };
        let group = matches!(step, Step::Group { .. } | Step::Delete);
        if !hit_before {
            // The first failure of all: which call it was decides.
            match call {
                "write" if is_segment(&path) => {
                    assert!(writer.is_failed(), "P10: {source_says}");
                    assert!(!group || error.outcome() == Outcome::Unknown, "P10: {source_says}");
                }
                "sync" if is_segment(&path) => assert!(writer.is_failed(), "P10: {source_says}"),
                "create" | "rename" | "write" | "sync" => {
                    assert!(!writer.is_failed(), "a new segment that cannot be made: {source_says}");
                    assert_eq!(error.outcome(), Outcome::NotWritten, "P10: {source_says}");
                }
                _ => assert_eq!(error.outcome(), Outcome::NotWritten, "P10: {source_says}"),
            }
        }
        if writer.is_failed() {
            takes_nothing_more(&mut life);
            failed = Some(error);
        }
    }
    if fault.fatal && failed.is_some() {
        // The disk is still failing: nobody gets in, and nothing gets lost by trying.
        let disk = life.disk.after_kill();
        disk.set_fault(Some(Fault { at: 0, ..fault }));
        let opened = opener(&life).open(&disk);
        assert!(matches!(opened, Err(Error::Io { .. })), "P1: {:?}", opened.map(|_| ()));
        disk.set_fault(None);
        opens_whole(&life, &disk, "after another attempt");
    }
    let tree = life.disk.tree();
    let mut rng = Rng::new(seed ^ fault.at << 8);
    opens_whole(&life, &life.disk.after_kill(), "after a kill");
    opens_whole(&life, &life.disk.after_worst_power_cut(), "after a power cut that keeps nothing");
    for _ in 0..3 {
        opens_whole(&life, &life.disk.after_power_cut(&mut rng), "after a power cut");
        let evicted = SimDisk::from_tree(tree.evict(&mut |count| rng.below(count as u64) as usize));
        opens_whole(&life, &evicted, "after clean pages left the cache");
    }
    let evicted = SimDisk::from_tree(tree.evict(&mut |count| count - 1));
    opens_whole(&life, &evicted, "after all clean pages left the cache");
}

/// P10: later calls fail at once, and nothing goes to the disk.
fn takes_nothing_more(life: &mut Life) {
    let (calls, writes) = (life.disk.operations(), life.disk.writes());
    let writer = life.writer.as_mut().unwrap();
    let event = NewEvent { event_kind: 1, version: 1, keyed: false, payload: vec![1] };
    let refused: [Result<()>; 3] =
        [writer.append(&[vec![event]], 1).map(|_| ()), writer.mark(), writer.roll_at(0, 1)];
    for error in refused {
        let error = error.expect_err("P10: a failed handle takes nothing more");
        assert_eq!(error.outcome(), Outcome::NotWritten, "P10: {error}");
    }
    writer.note_tail();
    assert!(!writer.wants_mark(), "P10: no mark is due");
    assert_eq!((life.disk.operations(), life.disk.writes()), (calls, writes), "P10: nothing was tried");
}

/// The newest true rows stand beside the log.
fn opener(life: &Life) -> Opener<'_> {
    let mut opener = Opener::alone(life.store);
    let applied = life.history.len();
    opener.witness = life.history.last().and_then(|last| last.witness(applied as u64));
    opener.rows = Rows { known: &life.history, lie: false };
    opener
}

/// The log opens; what it holds is lawful, and stays through an append and the worst power cut.
fn opens_whole(life: &Life, disk: &SimDisk, when: &str) {
    let expect = Expect { acknowledged: &life.history, pending: &life.pending, deletions: &life.deletions };
    let mut opener = opener(life);
    let mut writer = opener.open(disk).unwrap_or_else(|error| panic!("P5: {when}: {error}"));
    let count = verify(disk, expect, opener.witness).unwrap_or_else(|broken| panic!("{when}: {broken}"));
    let mut known = life.history.clone();
    known.extend(life.pending.iter().flatten().take(count - life.history.len()).cloned());
    known.push(Planned::new(60_000, vec![3; 50]));
    let event = known[count].event();
    if writer.room() < 200 {
        writer.roll_at(0, 3).unwrap();
    }
    writer.append(&[vec![event]], 3).unwrap();
    let expect = Expect { acknowledged: &known, pending: &[], deletions: &life.deletions };
    let cut = disk.after_worst_power_cut();
    verify(&cut, expect, None).unwrap_or_else(|broken| panic!("{when}, and one append later: {broken}"));
}

/// One case by its name.
pub(crate) fn parse(text: &str) -> (u64, Fault) {
    let parts: Vec<u64> = text.split('.').map(|part| part.parse().expect("a number")).collect();
    let [seed, at, errno, forever, partial] = parts[..] else { panic!("seed.call.errno.forever.partial") };
    (seed, Fault { at, fatal: forever == 1, partial: partial as usize, errno: errno as i32 })
}

#[test]
fn every_call_fails_with_every_error_once_and_from_then_on() {
    let watchdog = Watchdog::new(LIMIT);
    if let Ok(text) = std::env::var("SYNCLOG_FAULT_ONE") {
        let (seed, fault) = parse(&text);
        watchdog.enter(&text);
        return one_case(seed, fault);
    }
    let (scripts, first) = (setting("SYNCLOG_FAULT_SCRIPTS"), setting("SYNCLOG_FAULT_SEED").unwrap_or(0));
    let scripts = scripts.unwrap_or(24);
    let mut cases = 0;
    for seed in first..first + scripts {
        for at in 0..calls_of(seed) {
            for (errno, partial) in
                [(EIO, 0), (EIO, 700), (ENOSPC, 1500), (ENOSPC, 512), (EDQUOT, 0), (EROFS, 9999)]
            {
                for fatal in [false, true] {
                    let name = format!("{seed}.{at}.{errno}.{}.{partial}", u8::from(fatal));
                    watchdog.enter(&name);
                    let fault = Fault { at, fatal, partial, errno };
                    catch_unwind(AssertUnwindSafe(|| one_case(seed, fault))).unwrap_or_else(|panic| {
                        panic!("{}\nalone: SYNCLOG_FAULT_ONE={name}", said(panic.as_ref()))
                    });
                    cases += 1;
                }
            }
        }
    }
    println!("{cases} faults on {scripts} scripts, seeds {first} to {}", first + scripts - 1);
}

/// A log as a script leaves it after a power cut.
fn left_behind(seed: u64) -> Life {
    let mut life = Life::new(seed, false);
    let steps: Vec<Step> = script(seed);
    life.run(&steps).unwrap();
    // A last group that is in flight when the power fails.
    let fault = Fault { at: 1, fatal: true, partial: 0, errno: EIO };
    life.arm(fault);
    let died = life.step(Step::Group { batches: 2, events: 2, fill: super::scripts::Fill::Any });
    assert!(died.is_err());
    life.writer = None;
    life.crash(seed.is_multiple_of(2));
    life.disk.set_fault(None);
    life
}

/// P3: a failed read is an error, never the end of the log, never a torn tail; and nothing is changed.
#[test]
fn every_read_of_an_opening_and_of_a_reader_fails() {
    let watchdog = Watchdog::new(LIMIT);
    let mut cases = 0;
    for seed in 0..24 {
        let life = left_behind(seed);
        let before = life.disk.tree();
        let clean = life.disk.after_kill();
        opener(&life).open(&clean).unwrap();
        let reads = clean.reads();
        // A second opening has nothing to mend.
        let settled = clean.after_kill();
        for (disk, mended) in [(SimDisk::from_tree(before), false), (settled, true)] {
            for at in 0..reads {
                for (forever, errno) in [(false, EIO), (true, EIO)] {
                    watchdog.enter(&format!("seed {seed}, opening, read {at}, forever {forever}"));
                    let copy = disk.after_kill();
                    copy.set_read_fault(Some(ReadFault { at, forever, errno }));
                    let opened = opener(&life).open(&copy);
                    if copy.reads() <= at {
                        continue;
                    }
                    let place = format!("seed {seed}, read {at}, forever {forever}, mended {mended}");
                    assert!(matches!(opened, Err(Error::Io { .. })), "P3: {place}: {:?}", opened.map(|_| ()));
                    assert!(!mended || copy.tree().sum() == disk.tree().sum(), "P11: {place}: changed");
                    copy.set_read_fault(None);
                    opens_whole(&life, &copy, &place);
                    cases += 1;
                }
            }
        }
        cases += reader_fails(&life.disk, seed);
    }
    println!("{cases} failing reads");
}

fn reader_fails(disk: &SimDisk, seed: u64) -> u64 {
    let read = |disk: &SimDisk| -> Result<u64> {
        let Some(view) = LogView::open(log_on(disk), None, false)? else { return Ok(0) };
        let (mut cursor, _) = view.cursor(1)?;
        let mut count = 0;
        while cursor.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    let copy = disk.after_kill();
    let whole = read(&copy).unwrap();
    let reads = copy.reads();
    assert!(whole == 0 || reads > 5);
    for at in 0..reads {
        for forever in [false, true] {
            let copy = disk.after_kill();
            copy.set_read_fault(Some(ReadFault { at, forever, errno: EIO }));
            let found = read(&copy);
            assert!(matches!(found, Err(Error::Io { .. })), "P3: seed {seed}, read {at}: {found:?}");
            assert_eq!(copy.tree().full_sum(), disk.tree().full_sum(), "P11");
            assert_eq!(copy.operations(), 0, "P11");
        }
    }
    reads * 2
}
