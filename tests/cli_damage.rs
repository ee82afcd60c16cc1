//! A damaged log through the command line: named everywhere, healed where rows prove it.
#![cfg(feature = "cli")]

mod cli_support;

use cli_support::{Bench, line};

#[test]
fn damage_is_named_and_healed_from_its_row() {
    let bench = Bench::filled(10);
    let export = bench.run(&["export"]).expect(0).out;
    bench.damage(1, 4);
    let before = bench.bytes();
    let findings = bench.run(&["verify"]).expect(4).lines();
    assert!(findings.iter().any(|finding| finding["finding"] == "damaged_frame" && finding["seq"] == 4));
    assert_eq!(findings.last().unwrap()["summary"]["log_damaged"], 1);
    let partial = bench.run(&["export"]).expect(4);
    assert_eq!(partial.out.lines().count(), 9, "what is sound is exported");
    assert!(partial.err.contains("event 4"), "{}", partial.err);
    let tail = bench.run(&["tail", "--after", "0"]).expect(4);
    assert_eq!(tail.out.lines().count(), 9);
    let dry = bench.run(&["repair", "--dry-run"]).expect(0).lines();
    assert_eq!(dry.last().unwrap()["summary"]["healed_events"], 1);
    assert_eq!(bench.bytes(), before, "so far nothing was changed");

    let healed = bench.run(&["repair"]).expect(0).lines();
    assert_eq!(healed.last().unwrap()["summary"]["healed_events"], 1);
    assert!(bench.dir().join("quarantine").exists(), "the damaged bytes are kept");
    bench.run(&["verify"]).expect(0);
    assert_eq!(bench.run(&["export"]).expect(0).out, export);
    bench.append("and on");
}

/// The newest segment is cut where its last frame ends: rows tell of ten events, and of none behind them.
#[test]
fn whether_a_cut_took_events_that_nobody_saw_is_told() {
    let bench = Bench::filled(10);
    let path = bench.segment();
    let bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    std::fs::write(&path, &bytes[..end]).unwrap();
    for args in [&["repair", "--dry-run"][..], &["repair"]] {
        let told = bench.run(args).expect(4);
        let cut = told.lines().into_iter().find(|finding| finding["finding"] == "cut_segment").unwrap();
        assert_eq!((&cut["seq"], &cut["offset"]), (&11.into(), &end.into()), "{cut:?}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "byte for byte");
    bench.run(&["verify"]).expect(0);
    bench.run(&["repair"]).expect(0);
    bench.append("and on");
}

#[test]
fn what_no_row_proves_is_listed_as_lost() {
    let bench = Bench::filled(10);
    bench.damage(1, 4);
    bench.remove_database();
    for args in [&["repair", "--dry-run"][..], &["repair"]] {
        let lost = bench.run(args).expect(4).lines();
        assert!(lost.iter().any(|finding| finding["lost"] == true && finding["seq"] == 4), "{lost:?}");
        assert_eq!(lost.last().unwrap()["summary"]["lost_events"], 1);
    }
    // A row that is to be rebuilt over a gap would hide the loss.
    let replay = bench.run(&["replay"]).expect(4);
    assert!(replay.err.contains("event 4") && replay.err.contains("repair"), "{}", replay.err);
    // 4 goes before 3.
    bench.run(&["verify"]).expect(4);
    assert_eq!(bench.run(&["export"]).expect(4).out.lines().count(), 9);
}

#[test]
fn a_log_that_is_older_than_its_rows_is_refused_until_it_is_trusted() {
    let bench = Bench::filled(10);
    let segment = bench.segment();
    let old = std::fs::read(&segment).unwrap();
    bench.append("m11");
    bench.append("m12");
    // The frames of the last two events are gone, as with an older copy of the file.
    std::fs::write(&segment, &old).unwrap();
    let db = bench.database();
    db.execute_batch("UPDATE sync_logs SET log_message = 'edited' WHERE id > 10").unwrap();
    drop(db);
    for args in [&["verify"][..], &["status"], &["list"]] {
        bench.run(args).expect(4);
    }
    let status = bench.run(&["status"]).expect(4).json();
    assert_eq!(status["state"], "log damaged");
    let refused = bench.feed(&["append", "--stdin"], line("m13").as_bytes()).expect(4);
    assert!(refused.err.contains("events 11 to 12"), "{}", refused.err);
    let lost = bench.run(&["repair"]).expect(4).lines();
    assert_eq!(lost.last().unwrap()["summary"]["lost_events"], 2);

    let given_up = bench.run(&["repair", "--trust-log"]).expect(4).lines();
    assert!(given_up.iter().any(|finding| finding["lost"] == true && finding["last_seq"] == 12));
    let status = bench.run(&["status"]).expect(0).json();
    assert_eq!((&status["state"], &status["last_seq"]), (&"ok".into(), &10.into()));
    bench.run(&["repair", "--trust-log"]).expect(0);
    assert_eq!(bench.append("m13"), 11);
    bench.run(&["verify"]).expect(0);
}

/// P3: what could not be looked at is not lost.
#[test]
fn nothing_is_listed_as_lost_while_the_rows_cannot_be_read() {
    let bench = Bench::filled(10);
    let export = bench.run(&["export"]).expect(0).out;
    bench.damage(1, 4);
    let holder = bench.database();
    holder.execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT").unwrap();
    for args in [&["repair", "--dry-run"][..], &["repair"], &["repair", "--trust-log"]] {
        let refused = bench.run(args).expect(1);
        assert_eq!(refused.out, "");
        assert!(refused.err.contains("the rows may hold what the log lacks"), "{}", refused.err);
    }
    drop(holder);
    let healed = bench.run(&["repair"]).expect(0).lines();
    assert_eq!(healed.last().unwrap()["summary"]["healed_events"], 1);
    assert_eq!(bench.run(&["export"]).expect(0).out, export);
}

#[test]
fn rows_beyond_the_log_bring_their_events_back() {
    let bench = Bench::filled(10);
    let segment = bench.segment();
    let old = std::fs::read(&segment).unwrap();
    bench.append("m11");
    let export = bench.run(&["export"]).expect(0).out;
    std::fs::write(&segment, &old).unwrap();
    // Also where the user is ready to give them up.
    let healed = bench.run(&["repair", "--trust-log"]).expect(0).lines();
    assert_eq!(healed.last().unwrap()["summary"]["healed_events"], 1);
    assert_eq!(bench.run(&["export"]).expect(0).out, export);
    bench.run(&["verify"]).expect(0);
}

/// P5, P7: a kill while SQLite writes the first page of a database leaves a journal beside a file
/// without tables. SQLite would roll it back into whatever database comes to lie there.
#[test]
fn a_journal_that_sqlite_left_never_reaches_the_next_database() {
    for keep_file in [true, false] {
        let bench = Bench::filled(10);
        let export = bench.run(&["export"]).expect(0).out;
        bench.remove_database();
        let other = bench.temp.path().join("other.db");
        let db = rusqlite::Connection::open(&other).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode=DELETE; CREATE TABLE t (x); INSERT INTO t VALUES (1);
             PRAGMA cache_size=1; BEGIN; INSERT INTO t WITH RECURSIVE n(x) AS
             (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 9999) SELECT zeroblob(100) FROM n",
        )
        .unwrap();
        let journal = bench.dir().join("synclog.db-journal");
        std::fs::copy(bench.temp.path().join("other.db-journal"), &journal).unwrap();
        if keep_file {
            std::fs::copy(&other, bench.dir().join("synclog.db")).unwrap();
        }
        drop(db);
        bench.run(&["replay"]).expect(0);
        assert!(!journal.exists());
        bench.run(&["verify"]).expect(0);
        assert_eq!(bench.run(&["list", "--count"]).expect(0).json()["count"], 10);
        assert_eq!(bench.run(&["export"]).expect(0).out, export);
    }
}
