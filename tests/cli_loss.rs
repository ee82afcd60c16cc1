//! Losses that nothing brings back, through the command line: given up only by their right number, and
//! told ever after (P3).
#![cfg(feature = "cli")]

mod cli_support;

use cli_support::{Bench, line};

const EVENTS: usize = 2500;

/// The files of the log alone: the lock file names the last process that held it.
fn log_bytes(bench: &Bench) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    bench.bytes().into_iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "seg")).collect()
}

#[test]
fn p3_a_loss_is_given_up_by_its_right_number_and_told_ever_after() {
    let bench = Bench::filled(EVENTS);
    bench.damage(1, 40);
    bench.damage(2, 1000);
    bench.remove_database();
    let lost = bench.run(&["repair"]).expect(4);
    assert_eq!(lost.summary()["acceptable"], 2);
    assert!(lost.err.contains("--accept-loss 2"), "{}", lost.err);
    let before = log_bytes(&bench);
    for wrong in ["0", "1", "3"] {
        let refused = bench.run(&["repair", "--accept-loss", wrong]).expect(4);
        assert!(refused.err.contains("nothing was given up"), "{}", refused.err);
    }
    bench.run(&["repair", "--accept-loss", "2", "--dry-run"]).expect(2);
    assert!(log_bytes(&bench) == before, "nothing was changed");

    let given_up = bench.run(&["repair", "--accept-loss", "2"]).expect(0);
    assert_eq!(given_up.summary()["given_up"], 2);
    assert_eq!(bench.run(&["repair"]).expect(0).summary()["lost_findings"], 0);
    assert!(bench.dir().join("quarantine").read_dir().unwrap().count() >= 2, "the old bytes are kept");
    assert_eq!(bench.append("and on"), EVENTS as u64 + 1);
    for _ in 0..2 {
        let told = bench.run(&["verify"]).expect(0).lines();
        let gaps: Vec<_> = told.iter().filter(|finding| finding["finding"] == "accepted_loss").collect();
        assert_eq!(gaps.len(), 2, "{told:?}");
        assert_eq!((&gaps[0]["seq"], &gaps[1]["seq"]), (&40.into(), &1000.into()));
        let export = bench.run(&["export"]).expect(0);
        assert_eq!(export.out.lines().count(), EVENTS - 1);
        assert!(export.err.contains("event 40") && export.err.contains("event 1000"), "{}", export.err);
        let count = bench.run(&["list", "--count"]).expect(0);
        assert!(count.out.contains("2499"), "{}", count.out);
        // The same from a database that is built anew.
        bench.remove_database();
        bench.run(&["replay"]).expect(0);
    }
}

#[test]
fn p3_what_a_lost_segment_held_is_given_up_and_its_rows_are_kept() {
    let bench = Bench::filled(EVENTS);
    let whole = bench.run(&["export"]).expect(0).out;
    std::fs::remove_file(bench.segment_path(2)).unwrap();
    // Without the row of its last event nothing proves the others: they do not arrive at the next segment.
    let next = std::fs::read(bench.segment_path(3)).unwrap();
    let last = u64::from_le_bytes(next[40..48].try_into().unwrap()) - 1;
    let db = bench.database();
    db.execute("DELETE FROM sync_logs WHERE id = ?1", [last as i64]).unwrap();
    drop(db);
    let lost = bench.run(&["repair"]).expect(4);
    let missing = lost.summary()["acceptable"].as_u64().unwrap();
    assert!(missing > 500, "{missing}");
    let refused = bench.feed(&["append", "--stdin"], line("no").as_bytes()).expect(4);
    assert!(refused.err.contains("segment"), "{}", refused.err);
    bench.run(&["repair", "--accept-loss", &missing.to_string()]).expect(0);
    bench.run(&["verify"]).expect(0);
    let export = bench.run(&["export"]).expect(0);
    assert_eq!(export.out.lines().count() as u64, EVENTS as u64 - missing);
    let db = bench.database();
    let aside: i64 = db.query_row("SELECT count(*) FROM synclog_set_aside", [], |row| row.get(0)).unwrap();
    assert_eq!(
        aside as u64,
        missing - 1,
        "rows that nothing can prove any more are all that is left of them"
    );
    drop(db);
    assert_eq!(bench.append("and on"), EVENTS as u64 + 1);

    // What an export from before still has comes back, under new seqs.
    let copy = bench.dir().join("../copy.ndjson");
    std::fs::write(&copy, &whole).unwrap();
    let report = bench.run(&["import", copy.to_str().unwrap()]).expect(0).json();
    assert_eq!((&report["imported"], &report["deleted"]), (&missing.into(), &0.into()), "{report}");
    bench.run(&["verify"]).expect(0);
}

#[test]
fn files_that_were_cut_or_lost_their_headers_are_put_together_again() {
    for with_database in [true, false] {
        let bench = Bench::filled(EVENTS);
        let whole = bench.run(&["export"]).expect(0).out;
        let original = std::fs::read(bench.segment_path(2)).unwrap();
        let mut bytes = original.clone();
        bytes.truncate(original.len() - 1);
        std::fs::write(bench.segment_path(2), &bytes).unwrap();
        let mut first = std::fs::read(bench.segment_path(1)).unwrap();
        first[..8192].fill(0);
        std::fs::write(bench.segment_path(1), &first).unwrap();
        if !with_database {
            bench.remove_database();
        }
        bench.run(&["verify"]).expect(4);
        let mended = bench.run(&["repair"]).expect(0);
        assert_eq!(mended.summary()["lost_findings"], 0);
        assert_eq!(std::fs::read(bench.segment_path(2)).unwrap(), original);
        bench.append("and on");
        bench.run(&["verify"]).expect(0);
        let export = bench.run(&["export"]).expect(0).out;
        assert_eq!(export.lines().count(), EVENTS + 1);
        assert!(export.starts_with(&whole), "every event is back, unchanged");
    }
}
