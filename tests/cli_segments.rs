//! Whole segments that are lost, emptied, cut, longer, or something else: what is sound is read, what is not is
//! named, and rows bring back what they prove (P3, P9).
#![cfg(feature = "cli")]

mod cli_support;

use std::collections::BTreeSet;
use std::path::Path;

use cli_support::{Bench, copy_dir, line};
use serde_json::Value;

const EVENTS: usize = 2500;
/// What can become of a file.
const DAMAGE: [&str; 10] = [
    "removed",
    "emptied",
    "cut in its header",
    "cut",
    "longer",
    "a directory",
    "a link to nothing",
    "a link to itself",
    "noise",
    "zeros",
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rows {
    Whole,
    /// The database is older by the last event.
    Behind,
    Missing,
}

/// A store of three segments, as it is copied for each case; and all of its export.
struct Template {
    bench: Bench,
    export: Vec<String>,
}

impl Template {
    fn new() -> Self {
        let bench = Bench::filled(EVENTS - 1);
        std::fs::copy(bench.dir().join("synclog.db"), bench.temp.path().join("older.db")).unwrap();
        assert_eq!(bench.append("the last one"), EVENTS as u64);
        assert!(bench.segment().ends_with("00000000000000000003.seg"));
        let export = bench.run(&["export"]).expect(0).out.lines().map(str::to_owned).collect();
        Self { bench, export }
    }

    fn copy(&self, rows: Rows) -> Bench {
        let copy = Bench::new();
        copy_dir(&self.bench.dir(), &copy.dir());
        if rows != Rows::Whole {
            copy.remove_database();
        }
        if rows == Rows::Behind {
            std::fs::copy(self.bench.temp.path().join("older.db"), copy.dir().join("synclog.db")).unwrap();
        }
        copy
    }
}

fn damage(path: &Path, how: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let len = bytes.len();
    match how {
        "removed" => return std::fs::remove_file(path).unwrap(),
        "emptied" => bytes.clear(),
        "cut in its header" => bytes.truncate(3000),
        "cut" => bytes.truncate(150_000),
        "longer" => bytes.resize(len + 5000, 0),
        "a directory" => {
            std::fs::remove_file(path).unwrap();
            return std::fs::create_dir(path).unwrap();
        }
        "a link to nothing" | "a link to itself" => {
            std::fs::remove_file(path).unwrap();
            let to = if how.ends_with("itself") { path } else { Path::new("nowhere") };
            return std::os::unix::fs::symlink(to, path).unwrap();
        }
        "noise" => bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 31 % 251) as u8),
        "zeros" => bytes.fill(0),
        _ => unreachable!("{how}"),
    }
    std::fs::write(path, bytes).unwrap();
}

/// The seqs that findings of a damaged log are about.
fn named(findings: &[Value]) -> BTreeSet<u64> {
    let seqs = |finding: &Value| {
        let first = finding["seq"].as_u64()?;
        Some(first..=finding["last_seq"].as_u64().unwrap_or(first))
    };
    findings
        .iter()
        .filter(|finding| finding["finding"] != "healed_frame")
        .filter_map(seqs)
        .flatten()
        .collect()
}

fn seq(line: &str) -> u64 {
    serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap()
}

/// What readers say: the sound events, and every other one by name. Returns how many are sound.
fn read(bench: &Bench, whole: &[String], context: &str) -> usize {
    let before = bench.bytes();
    let found = bench.run(&["verify", "--log-only"]).expect(4).lines();
    let named = named(&found);
    let export = bench.run(&["export"]).expect(4);
    let mut lines = export.out.lines().peekable();
    for (number, event) in (1..).zip(whole) {
        if lines.next_if(|line| line == event).is_none() {
            assert!(named.contains(&number), "P3: event {number}, {context}: {found:?}");
        }
    }
    assert_eq!(lines.next(), None, "P4: {context}");
    let sound = export.out.lines().count();
    let tail = bench.run(&["tail", "--after", "0"]).expect(4);
    assert_eq!(tail.out.lines().count(), sound, "{context}");
    assert_eq!(bench.run(&["status"]).expect(4).json()["state"], "log damaged", "{context}");
    assert!(bench.bytes() == before, "P11: {context}");
    sound
}

fn case(template: &Template, number: u64, how: &str, rows: Rows) {
    let context = format!("segment {number} {how}, rows {rows:?}");
    let bench = template.copy(rows);
    damage(&bench.segment_path(number), how);
    let sound = read(&bench, &template.export, &context);
    assert!(sound >= 1100, "the other segments are read, {context}: {sound}");
    assert!(how != "longer" || sound == EVENTS, "{context}");

    let before = bench.bytes();
    let dry = bench.run(&["repair", "--dry-run"]);
    assert!(bench.bytes() == before, "{context}");
    let repaired = bench.run(&["repair"]);
    let (dry, done) = (dry.summary(), repaired.summary());
    assert!(dry["healed_events"].as_u64() <= done["healed_events"].as_u64(), "{context}: {dry} {done}");
    let export = bench.run(&["export"]);
    let lost = EVENTS - export.out.lines().count();
    let is_prefix_lost = |lost: usize| rows == Rows::Behind && number == 3 && lost <= 1;
    match rows {
        _ if how == "longer" => assert_eq!(lost, 0, "{context}: {}", repaired.err),
        Rows::Whole => assert_eq!(lost, 0, "P9: {context}: {}{}", repaired.out, repaired.err),
        Rows::Behind => assert!(lost == 0 || is_prefix_lost(lost), "P9: {context}: {lost}, {}", repaired.out),
        Rows::Missing => assert_eq!(lost, EVENTS - sound, "{context}"),
    }
    assert_eq!(done["lost_events"], lost, "{context}: {}", repaired.out);
    // That nothing tells whether there was more is told once.
    let told_cut = repaired.out.contains("cut_segment");
    assert_eq!(repaired.code, Some(if lost > 0 || told_cut { 4 } else { 0 }), "{context}");
    let is_cut = number == 3 && how != "longer";
    assert!(if rows == Rows::Whole { told_cut == is_cut } else { is_cut || !told_cut }, "{context}");
    if how != "removed" && done["healed_events"] != 0 {
        assert!(bench.dir().join("quarantine").read_dir().unwrap().count() > 0, "P9: {context}");
    }
    if lost > 0 {
        assert_eq!(done["acceptable"], lost, "{context}: {}", repaired.out);
        bench.run(&["repair", "--accept-loss", &(lost + 1).to_string()]).expect(4);
        bench.run(&["repair", "--accept-loss", &lost.to_string()]).expect(0);
    } else {
        assert!(export.out.lines().eq(template.export.iter()), "P4: {context}");
    }
    assert_eq!(bench.append("and on"), EVENTS as u64 + 1, "{context}");
    bench.run(&["verify"]).expect(0);
    bench.run(&["repair"]).expect(0);
}

#[test]
fn p9_a_segment_that_is_none_comes_back_from_its_rows() {
    let template = Template::new();
    for number in 1..=3 {
        DAMAGE.into_iter().for_each(|how| case(&template, number, how, Rows::Whole));
    }
}

#[test]
fn p9_a_segment_that_is_none_comes_back_as_far_as_older_rows_reach() {
    let template = Template::new();
    for number in 1..=3 {
        ["removed", "emptied", "cut", "noise"]
            .into_iter()
            .for_each(|how| case(&template, number, how, Rows::Behind));
    }
}

#[test]
fn p3_a_segment_that_is_none_hides_nothing_of_the_others() {
    let template = Template::new();
    for number in 1..=3 {
        ["removed", "cut", "longer", "a directory", "a link to nothing"]
            .into_iter()
            .for_each(|how| case(&template, number, how, Rows::Missing));
    }
}

/// Without a segment there is nothing to read; rows alone make the whole log again.
#[test]
fn p9_the_whole_log_comes_back_from_rows() {
    let template = Template::new();
    for (rows, how) in [
        (Rows::Whole, "removed"),
        (Rows::Whole, "emptied"),
        (Rows::Behind, "removed"),
        (Rows::Behind, "noise"),
        (Rows::Missing, "removed"),
    ] {
        let context = format!("rows {rows:?}, {how}");
        let bench = template.copy(rows);
        let log = bench.dir().join("log");
        if how == "removed" {
            std::fs::remove_dir_all(&log).unwrap();
        } else {
            (1..=3).for_each(|number| damage(&bench.segment_path(number), how));
        }
        let log_files = |bench: &Bench| {
            bench.bytes().into_iter().filter(|(path, _)| !path.ends_with("lock")).collect::<Vec<_>>()
        };
        let before = log_files(&bench);
        for args in [&["export"][..], &["verify"], &["status"], &["list"], &["repair", "--dry-run"]] {
            let refused = bench.run(args).expect(4);
            assert!(refused.err.contains("synclog repair") || args[0] == "repair", "{}", refused.err);
        }
        let refused = bench.feed(&["append", "--stdin"], line("refused").as_bytes()).expect(4);
        assert!(refused.err.contains("synclog repair"), "{}", refused.err);
        assert!(log_files(&bench) == before);

        let repaired = bench.run(&["repair"]).expect(4);
        if rows == Rows::Missing {
            assert!(repaired.out.contains("missing_segment"), "{context}: {}", repaired.out);
            assert_eq!(named(&repaired.lines()), (1..=EVENTS as u64).collect(), "{context}");
            // The file `tail` alone knows whose the log was, and how far it went.
            assert_eq!(repaired.summary()["acceptable"], EVENTS);
            bench.run(&["repair", "--accept-loss", &EVENTS.to_string()]).expect(0);
            bench.run(&["verify"]).expect(0);
            assert_eq!(bench.append("and on"), EVENTS as u64 + 1);
            assert_eq!(bench.run(&["export"]).expect(0).out.lines().count(), 1);
            continue;
        }
        assert!(repaired.out.contains("cut_segment"), "{context}: {}", repaired.out);
        let done = repaired.summary();
        let lost = usize::from(rows == Rows::Behind);
        assert_eq!((&done["healed_events"], &done["lost_events"]), (&(EVENTS - lost).into(), &lost.into()));
        if lost > 0 {
            assert_eq!(named(&repaired.lines()).last(), Some(&(EVENTS as u64)), "{context}");
            bench.run(&["repair", "--accept-loss", "1"]).expect(0);
        }
        let export = bench.run(&["export"]).expect(0).out;
        assert!(export.lines().eq(template.export.iter().take(EVENTS - lost)), "{context}");
        bench.run(&["verify"]).expect(0);
        assert_eq!(bench.append("and on"), EVENTS as u64 + 1, "{context}");
    }
}

/// A row that is missing as well takes nothing with it but its own event.
#[test]
fn p9_a_missing_row_costs_its_own_event_alone() {
    let template = Template::new();
    let first_of = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        u64::from_le_bytes(bytes[40..48].try_into().unwrap())
    };
    let [two, three] = [2, 3].map(|number| first_of(&template.bench.segment_path(number)));
    // In the middle, at both ends of segments that are lost together, and two next to each other.
    for missing in [vec![two + 40], vec![two - 1], vec![two], vec![two + 7, two + 8, two + 300]] {
        let bench = template.copy(Rows::Whole);
        let db = bench.database();
        for seq in &missing {
            db.execute("DELETE FROM sync_logs WHERE id = ?1", [*seq as i64]).unwrap();
        }
        drop(db);
        damage(&bench.segment_path(1), "removed");
        damage(&bench.segment_path(2), "emptied");
        let dry = bench.run(&["repair", "--dry-run"]).expect(4);
        let repaired = bench.run(&["repair"]).expect(4);
        for told in [&dry, &repaired] {
            let lost: Vec<_> = told.lines().into_iter().filter(|finding| finding["lost"] == true).collect();
            assert_eq!(named(&lost), missing.iter().copied().collect(), "{lost:?}");
        }
        assert_eq!(repaired.summary()["acceptable"], missing.len());
        let export = bench.run(&["export"]).expect(4).out;
        assert!(export.lines().eq(template.export.iter().filter(|line| !missing.contains(&seq(line)))));
        bench.run(&["repair", "--accept-loss", &missing.len().to_string()]).expect(0);
        bench.run(&["verify"]).expect(0);
        assert_eq!(bench.append("and on"), EVENTS as u64 + 1);
    }
    // The header behind the loss must be arrived at: without the last row nothing proves the others.
    let bench = template.copy(Rows::Whole);
    let db = bench.database();
    db.execute("DELETE FROM sync_logs WHERE id = ?1", [three as i64 - 1]).unwrap();
    drop(db);
    damage(&bench.segment_path(2), "removed");
    let lost = bench.run(&["repair"]).expect(4);
    assert_eq!(lost.summary()["acceptable"], three - two, "P9: what is not proved is not written");
}
