//! Stores of many shapes, made through the public surface.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use synclog::{Options, Store};

use super::{Dice, Raw};

fn options() -> Options {
    Options::default().segment_bytes(16 * 1024, 64 * 1024).max_event_bytes(4 << 20)
}

/// Bytes as events have them, and bytes that make it hard: zeros, and what looks like a frame's start.
fn payload(dice: &mut Dice) -> Vec<u8> {
    let size = match dice.below(12) {
        0 => 0,
        1..=6 => dice.below(60),
        7..=9 => dice.below(700),
        10 => dice.below(6000),
        _ => dice.below(20_000),
    };
    match dice.below(5) {
        0 => vec![0; size],
        1 => (0..size).map(|at| [0xF1, 0x01, 0x1F, 0x5A][at % 4]).collect(),
        2 => (0..size).map(|at| if at / 512 % 2 == 0 { 7 } else { 0 }).collect(),
        _ => (0..size).map(|_| dice.next() as u8).collect(),
    }
}

fn fill<const V: u16>(store: &Store<Raw<V>>, dice: &mut Dice, appends: usize) {
    for _ in 0..appends {
        match dice.below(6) {
            0 => {
                let batch: Vec<_> = (0..=dice.below(6)).map(|_| Raw(payload(dice))).collect();
                store.append_all(batch).unwrap();
            }
            1 => {
                let key = format!("k{}-{}", store.last_seq(), "é".repeat(dice.below(120)));
                store.append_with_key(Raw(payload(dice)), &key).unwrap();
            }
            2 => {
                let tickets: Vec<_> =
                    (0..3).map(|_| store.submit([Raw(payload(dice)), Raw(payload(dice))]).unwrap()).collect();
                tickets.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
            }
            _ => drop(store.append(Raw(payload(dice))).unwrap()),
        }
        if dice.one_in(12) {
            std::thread::sleep(Duration::from_millis(25)); // long enough for a mark
        }
    }
}

/// The log and the file `tail`, without the database and whatever else is there.
pub fn copy_log(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("log")).unwrap();
    for entry in fs::read_dir(from.join("log")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join("log").join(path.file_name().unwrap())).unwrap();
    }
    if from.join("tail").exists() {
        fs::copy(from.join("tail"), to.join("tail")).unwrap();
    }
}

/// Makes a store and copies its log to `to`: as it stands while the writer has it open, which is what
/// killing it would leave, or closed.
pub fn make(to: &Path, dice: &mut Dice, appends: usize, killed: bool) {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::<Raw<1>>::open(temp.path(), options()).unwrap();
    fill(&store, dice, appends);
    if dice.one_in(4) {
        store.close().unwrap();
        let newer = Store::<Raw<2>>::open(temp.path(), options()).unwrap();
        fill(&newer, dice, 3);
        newer.close().unwrap();
        copy_log(temp.path(), to);
        return;
    }
    if killed {
        copy_log(temp.path(), to);
        store.close().unwrap();
    } else {
        store.close().unwrap();
        copy_log(temp.path(), to);
    }
}

/// Gives up what is lost in a store, so that gaps stand there.
pub fn give_up(dir: &Path) {
    let found = Store::<Raw<1>>::repair(dir, options(), true, false).unwrap();
    if let Some(events) = found.acceptable {
        Store::<Raw<1>>::accept_loss(dir, options(), events).unwrap();
    }
}

/// What is hardly a store: nothing, an empty log, noise, files that are none.
pub fn odd(base: &Path) -> Vec<PathBuf> {
    let dir = |name: &str| {
        let dir = base.join(name);
        fs::create_dir_all(dir.join("log")).unwrap();
        dir
    };
    let segment = "log/00000000000000000001.seg";
    let noise = dir("noise");
    fs::write(noise.join(segment), vec![0xF1; 70_000]).unwrap();
    let empty_file = dir("empty-file");
    fs::write(empty_file.join(segment), "").unwrap();
    let directory = dir("directory");
    fs::create_dir_all(directory.join(segment)).unwrap();
    let no_log = base.join("no-log");
    fs::create_dir_all(&no_log).unwrap();
    vec![base.join("nothing"), no_log, dir("empty"), noise, empty_file, directory]
}
