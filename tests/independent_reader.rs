//! The log's specification is enough to read a log by (P3, P4, P12): a second reader, written from the
//! first page of `src/log/mod.rs` alone and in another language, agrees with the library about sound,
//! killed, mended and damaged stores.
//!
//! Where it is known that they differ, `reader::says` names each difference and allows for nothing else.
//! `SYNCLOG_READER_CASES=10000` makes it thorough, `SYNCLOG_READER_SEED` picks other stores and damage, and
//! with `SYNCLOG_READER_KEEP` the stores are left in that directory.

#[allow(dead_code, unreachable_pub)]
mod reader;

use std::fs;
use std::path::{Path, PathBuf};

use reader::{Dice, damage, says, stores};

const NO_PYTHON: &str = "NOT EXERCISED: there is no python3 for the second reader of the log";

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Golden segments, read by the second reader, give what stands beside them, byte for byte.
#[test]
fn the_second_reader_reads_the_golden_logs() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    let temp = tempfile::tempdir().unwrap();
    let mut logs = 0;
    for entry in fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        let Ok(events) = fs::read_to_string(path.join("events.txt")) else { continue };
        let dir = temp.path().join(path.file_name().unwrap());
        fs::create_dir_all(dir.join("log")).unwrap();
        for segment in fs::read_dir(&path).unwrap() {
            let segment = segment.unwrap().path();
            fs::copy(&segment, dir.join("log").join(segment.file_name().unwrap())).unwrap();
        }
        fs::remove_file(dir.join("log/events.txt")).unwrap();
        let Some(told) = says::lines(&["--payloads"], &[dir]) else { return println!("{NO_PYTHON}") };
        let found: Vec<String> = told.iter().filter_map(says::as_golden).collect();
        assert_eq!(found, events.lines().collect::<Vec<_>>(), "{}", path.display());
        let summary = &told.last().unwrap()["summary"];
        assert_eq!((&summary["damaged"], &summary["verdict"]), (&false.into(), &"clean end".into()));
        logs += 1;
    }
    assert!(logs >= 2, "the golden logs were found");
}

#[test]
fn both_readers_say_the_same_about_every_store() {
    let temp = tempfile::tempdir().unwrap();
    let base = std::env::var("SYNCLOG_READER_KEEP").map_or_else(|_| temp.path().into(), PathBuf::from);
    let mut dice = Dice(number("SYNCLOG_READER_SEED", 1) as u64);
    let mut cases: Vec<(PathBuf, String)> = Vec::new();
    for (index, appends) in [0, 1, 2, 5, 20, 40].repeat(4).into_iter().enumerate() {
        let dir = base.join(format!("shape{index}"));
        stores::make(&dir, &mut dice, appends, index % 2 == 0);
        cases.push((dir, "whole".into()));
    }
    for index in 0..8 {
        let dir = base.join(format!("gap{index}"));
        stores::copy_log(&cases[dice.below(24)].0, &dir);
        damage::zero_sectors(&mut dice, &dir);
        stores::give_up(&dir);
        cases.push((dir, "given up".into()));
    }
    let shapes = cases.len();
    for index in 0..number("SYNCLOG_READER_CASES", 500) {
        let from = dice.below(shapes);
        let dir = base.join(format!("case{index}"));
        stores::copy_log(&cases[from].0, &dir);
        let how = damage::damage(&mut dice, &dir, &cases[(from + 1) % shapes].0);
        cases.push((dir, format!("{} of {}", how, cases[from].0.display())));
    }
    for (field, value) in (0..damage::FIELDS).flat_map(|field| (0..8).map(move |value| (field, value))) {
        let dir = base.join(format!("forged{field}-{value}"));
        // One of a few events, without a file that tells more: the last frame is an event, or a mark.
        stores::copy_log(&cases[2 + 6 * (usize::from(value) % 4)].0, &dir);
        let _ = fs::remove_file(dir.join("tail"));
        damage::forge_last(&dir, field, value);
        cases.push((dir, format!("forged field {field}, value {value}")));
    }
    for how in damage::NOT_WHOLE {
        let before = cases.len();
        for index in 0..shapes {
            let dir = base.join(format!("not-whole{before}-{index}"));
            stores::copy_log(&cases[index].0, &dir);
            if damage::not_whole(&dir, &cases[(index + 1) % shapes].0, how) {
                cases.push((dir, (*how).into()));
            }
        }
        assert!(cases.len() > before, "{how}");
    }
    for (index, odd) in stores::odd(&base).into_iter().enumerate() {
        cases.push((odd, format!("odd {index}")));
    }

    let dirs: Vec<PathBuf> = cases.iter().map(|(dir, _)| dir.clone()).collect();
    let Some(second) = says::python(&dirs) else { return println!("{NO_PYTHON}") };
    let (mut failures, mut damaged, mut given_up, mut verdicts) = (Vec::new(), 0, 0, Vec::new());
    for ((dir, how), python) in cases.iter().zip(&second) {
        let rust = says::rust(dir);
        if how == "whole" {
            assert!(!python.damaged && !rust.damaged && rust.verified, "{}: {rust:#?}", dir.display());
        }
        damaged += usize::from(python.damaged);
        given_up += python.lost.len();
        verdicts.push(python.verdict.as_str());
        let found = says::differences(&rust, python, how.contains("forged segment header"));
        if !found.is_empty() {
            failures.push(format!(
                "== {}, {how}\n{}\nlibrary: {:#?}\nsecond reader: {:#?}",
                dir.display(),
                found.join("\n"),
                rust.words,
                python.words
            ));
        }
    }
    assert!(failures.is_empty(), "{} of {} differ\n{}", failures.len(), cases.len(), failures.join("\n"));
    // The cases are worth something only if they are of all kinds.
    verdicts.sort_unstable();
    verdicts.dedup();
    println!("{} stores, {damaged} damaged, {given_up} gaps, {verdicts:?}", cases.len());
    assert!(damaged > cases.len() / 4 && damaged < cases.len() && given_up > 0);
    assert!(["clean end", "torn tail", "corruption", "refuse"].iter().all(|kind| verdicts.contains(kind)));
}
