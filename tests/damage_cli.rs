//! Damage through the command line: the exit codes that scripts rely on. 3 where the rows differ, 4
//! where the log is damaged, 4 where both are, 0 once it is mended.
#![cfg(feature = "cli")]

mod cli_support;

use cli_support::{Bench, line};

/// Where the frames of the events start.
fn frames(image: &[u8]) -> Vec<usize> {
    let (mut starts, mut at) = (Vec::new(), 8192);
    while image[at] == 0xF1 {
        let len = u32::from_le_bytes(image[at + 24..at + 28].try_into().unwrap()) as usize;
        if image[at + 1] == 1 {
            starts.push(at);
        }
        at += 48 + (len + 8) / 8 * 8;
    }
    starts
}

fn edit_row(bench: &Bench) {
    let db = bench.database();
    db.execute_batch("UPDATE sync_logs SET error_code = 'edited' WHERE id = 2").unwrap();
}

#[test]
fn exit_codes_tell_which_side_is_damaged() {
    for (event, in_frame) in [(1, 0), (5, 8), (5, 40), (7, 60), (12, 24), (12, 200)] {
        let bench = Bench::filled(12);
        let path = bench.segment();
        let image = std::fs::read(&path).unwrap();
        let starts = frames(&image);
        assert_eq!(starts.len(), 12);
        bench.run(&["verify"]).expect(0);

        edit_row(&bench);
        bench.run(&["verify"]).expect(3);
        bench.run(&["verify", "--log-only"]).expect(0);
        let mut damaged = image.clone();
        damaged[starts[event - 1] + in_frame] ^= 4;
        std::fs::write(&path, &damaged).unwrap();
        let lines = bench.run(&["verify"]).expect(4).lines();
        let named = |line: &serde_json::Value| {
            let first = line["seq"].as_u64().unwrap_or(0);
            let last = line["last_seq"].as_u64().unwrap_or(first);
            line["column"].is_null() && (first..=last).contains(&(event as u64))
        };
        assert!(lines.iter().any(named), "P3: event {event}: {lines:?}");
        bench.run(&["verify", "--log-only"]).expect(4);
        bench.run(&["export"]).expect(4);
        let status = bench.run(&["status"]).expect(4).json();
        assert_eq!(status["state"], "log damaged", "an append looks there as well, and would say so");
        assert_eq!(status["findings"][0]["finding"], "damaged_frame");
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "P11");

        bench.run(&["repair"]).expect(0);
        assert!(std::fs::read(&path).unwrap() == image, "P9: event {event}, byte {in_frame}");
        let kept: Vec<_> = std::fs::read_dir(bench.dir().join("quarantine")).unwrap().collect();
        assert!(!kept.is_empty(), "P9");
        bench.run(&["verify"]).expect(3);
        bench.run(&["replay"]).expect(0);
        bench.run(&["verify"]).expect(0);
        assert_eq!(bench.append("and on"), 13);
    }
}

#[test]
fn without_rows_the_damage_is_refused_and_named() {
    let bench = Bench::filled(12);
    let path = bench.segment();
    let mut image = std::fs::read(&path).unwrap();
    let start = frames(&image)[4];
    image[start + 60] ^= 4;
    std::fs::write(&path, &image).unwrap();
    bench.remove_database();
    bench.run(&["verify"]).expect(4);
    let refused = bench.feed(&["append", "--stdin"], line("m13").as_bytes()).expect(4);
    assert!(refused.err.contains("event 5"), "P3: {}", refused.err);
    bench.run(&["repair"]).expect(4);
    bench.run(&["replay"]).expect(4);
    assert!(std::fs::read(&path).unwrap() == image, "P3: nothing was changed");
}
