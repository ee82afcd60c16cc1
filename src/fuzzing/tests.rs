//! Stand-ins for the fuzzer where that cannot run: the committed seeds, and random bytes from a fixed
//! seed. Every find of the fuzzer stays here under a name, with its input made as small as it gets.

use std::path::PathBuf;

use crate::proof::disk::Rng;

use super::{directory, frame, import, open, recovery, script, store};

fn seeds(target: &str) -> Vec<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let Ok(entries) = std::fs::read_dir(&dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Feeds a target with its seeds, with `cases` random inputs, and with seeds changed in a few bytes.
fn stand_in(target: &str, cases: u64, longest: u64, run: fn(&[u8])) {
    let mut rng = Rng::new(77);
    let seeds: Vec<Vec<u8>> = seeds(target).iter().map(|path| std::fs::read(path).unwrap()).collect();
    for seed in &seeds {
        run(seed);
    }
    for case in 0..cases {
        let mut data: Vec<u8> = match seeds.get(rng.below(seeds.len() as u64 * 2) as usize) {
            Some(seed) => seed.clone(),
            None => (0..=rng.below(longest)).map(|_| rng.next() as u8).collect(),
        };
        for _ in 0..rng.below(4) {
            let at = rng.below(data.len() as u64) as usize;
            if let Some(byte) = data.get_mut(at) {
                *byte = rng.next() as u8;
            }
        }
        println!("{target}, case {case}: {data:?}");
        run(&data);
    }
}

#[test]
fn frames_of_any_bytes() {
    stand_in("frame", 3000, 200, frame);
}

#[test]
fn directories_of_any_files() {
    stand_in("directory", 400, 40, directory);
}

#[test]
fn recovery_agrees_with_the_oracle() {
    stand_in("recovery", 600, 80, recovery);
}

#[test]
fn scripts_of_any_life() {
    stand_in("script", 400, 150, script);
}

#[test]
fn stores_in_any_hands() {
    stand_in("store", 60, 40, store);
}

#[test]
fn imports_of_any_bytes() {
    // The target's first byte says whether the rest is an import or something for the command line.
    stand_in("import_cli", 1500, 120, |data| match data.split_first() {
        Some((0..=95, rest)) => import(rest),
        _ => import(data),
    });
}

#[test]
fn whole_stores_of_any_bytes() {
    stand_in("open", 100, 60, open);
}

/// A file with the number 0 stood before a log whose first segment was gone: it stayed when the events of
/// that segment were given up, and the log was refused ever after.
#[test]
fn find_a_strange_file_before_a_missing_first_segment() {
    directory(&[205, 113, 117, 1, 16, 94]);
    directory(&[5, 97, 112, 72, 0, 0, 1, 16]);
}

/// The log of another store, put in the place of this one, while the file `tail` still told of the first:
/// nobody was told.
#[test]
fn find_the_log_of_another_store_beside_the_old_tail() {
    directory(&[1, 255, 4, 0, 85, 0, 48, 255, 48, 48]);
}

/// An unfinished batch whose last frame is healed goes all the same: it has no end.
#[test]
fn find_a_healed_frame_of_a_batch_without_end() {
    recovery(&[1, 5, 0, 15, 255, 255, 255, 255, 255]);
}

/// A group was durable and its append failed, at the sync of the mark behind it: a reader that was shown its
/// event must be shown it again after a power cut.
#[test]
fn find_a_reader_that_is_shown_an_event_whose_append_failed() {
    script(&[0x6f, 0xb9, 0xff, 0, 0, 3, 1, 0, 0x76, 0xc0, 0xac]);
    script(&[0x6f, 0xb9, 0xff, 0, 0, 3, 1, 0, 0x76, 0xc0, 0xac, 8, 0, 99, 99, 7]);
}

/// Two proofs that contradict each other, made by somebody who makes checksums fit: refused, and named.
#[test]
fn find_a_refusal_that_names_nothing() {
    recovery(&[
        37, 137, 197, 234, 32, 241, 2, 0, 0, 4, 0, 0, 0, 252, 255, 249, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 144, 44, 102, 1, 26, 78, 120, 63, 100, 137, 174, 211, 9, 46, 83, 120, 157, 194, 231,
        29, 106,
    ]);
}

/// A frame with a sector of zeros and the mark behind it, both damaged, and no witness: cannot be known.
#[test]
fn find_a_frame_of_zeros_and_its_mark_damaged_at_once() {
    script(&[181, 144, 65, 190, 190, 190, 190, 1, 71, 10, 1, 1]);
}

/// Somebody drops the table, or the database's identity, under an open store: appends with keys were refused
/// until an append without one came.
#[test]
fn find_keys_that_are_refused_for_good() {
    store(&[
        7, 14, 104, 112, 119, 126, 133, 204, 147, 154, 161, 168, 175, 182, 189, 196, 203, 210, 217, 224, 231,
        115, 121, 110, 99, 95, 108, 111, 103, 115, 95, 98, 121, 238, 6, 0, 0, 0, 14, 27, 13, 20, 231, 216,
        209, 202, 195, 188, 76, 83, 90, 97, 145, 1, 15, 166, 173, 180, 187, 194, 201, 208, 215, 222, 229,
        236, 4, 11, 18, 25, 231, 216, 18, 202, 195, 188, 181, 174, 88, 95, 102, 109, 116,
    ]);
    store(&[
        7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77, 84, 91, 164, 151, 143, 136, 126, 133, 204, 147, 154, 95,
        87, 80, 37, 74, 155, 111, 152, 197, 40, 234, 32, 69, 106, 143, 180, 217, 73, 189, 196, 15, 203, 52,
        89,
    ]);
    store(&[
        7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77, 84, 91, 98, 175, 182, 189, 196, 203, 210, 217, 224, 231,
        238, 6, 0, 0, 0, 14, 13, 20, 27, 34, 41, 48, 55, 62, 69, 76, 83, 90, 97, 145, 152, 159, 166, 173,
        180, 187, 194, 201, 208, 215, 222, 229, 236, 4, 11, 18, 25, 231, 216, 209, 202, 195, 188, 181, 174,
        88, 95, 102, 109, 116,
    ]);
}

/// A database cut short and a `tail` of zeros are no witnesses, and neither is a database that is gone: what
/// the newest sectors of the log held cannot be known.
#[test]
fn find_an_end_that_goes_with_both_its_witnesses() {
    open(&[
        0, 2, 6, 34, 255, 255, 255, 255, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246,
        246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 255, 255, 255, 255, 255, 255, 255, 255,
        255, 255, 255, 255, 255, 255, 255, 223, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        255, 255, 255, 255, 255, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246,
        246, 246, 246, 246, 246, 246, 246, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 250, 0,
        246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246,
        246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 246, 1, 0, 33, 230, 0,
    ]);
}

/// Rows deleted under an open store take the memory of their keys with them, until it is opened again: no
/// fault, but the model did not know it.
#[test]
fn find_a_key_whose_row_is_deleted_under_an_open_store() {
    store(b"ssyn\0\0\0\0\0\0\0\x13c_logs_Ocmpan\xd8");
}
