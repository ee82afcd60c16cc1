//! What lies outside the program fails it: a stderr that takes nothing, a database that cannot be counted (P12).
#![cfg(all(feature = "cli", unix))]

mod cli_support;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use cli_support::{Bench, append_args, line};

fn store(events: usize) -> Bench {
    let bench = Bench::new();
    let lines: Vec<_> = (1..=events).map(|number| line(&format!("m{number} {}", "x".repeat(300)))).collect();
    bench.feed(&["append", "--stdin"], lines.join("\n").as_bytes()).expect(0);
    bench
}

fn database(bench: &Bench) -> rusqlite::Connection {
    rusqlite::Connection::open(bench.dir().join("synclog.db")).unwrap()
}

/// The library warns of a database that was not there, and nobody can be told.
#[test]
fn a_warning_that_cannot_be_written_ends_nothing() {
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
        eprintln!("NOT EXERCISED: there is no /dev/full");
        return;
    };
    let bench = store(1);
    for suffix in ["", "-wal", "-shm"] {
        drop(std::fs::remove_file(bench.dir().join(format!("synclog.db{suffix}"))));
    }
    let mut command = bench.command(&append_args("m"));
    let done = command.stdin(Stdio::null()).stderr(full).output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    assert!(String::from_utf8(done.stdout).unwrap().contains("\"seq\":2"));
}

/// A count that fails is no count of zero.
#[test]
fn status_does_not_take_a_failed_count_for_ok() {
    let bench = store(200);
    let db = database(&bench);
    let mut query = db.prepare("SELECT rootpage FROM sqlite_schema WHERE type = 'index'").unwrap();
    let roots: Vec<u32> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let size: u32 = db.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
    drop(query);
    drop(db);
    let file: File = OpenOptions::new().write(true).open(bench.dir().join("synclog.db")).unwrap();
    for root in roots {
        file.write_all_at(&vec![0xee; size as usize], u64::from((root - 1) * size)).unwrap();
    }
    drop(file);
    let status = bench.run(&["status"]).expect(3).json();
    assert_eq!(status["state"], "projection differs", "{status}");
    assert_eq!(status["next"], "synclog replay");
    assert!(status["missing_rows"].is_null() && status["database_error"].is_string(), "{status}");
    bench.run(&["replay"]).expect(0);
    assert_eq!(bench.run(&["status"]).expect(0).json()["missing_rows"], 0);
}

/// A row that is not there was not compared.
#[test]
fn verify_counts_rows_and_not_their_absence() {
    let bench = store(20);
    database(&bench).execute_batch("DELETE FROM sync_logs WHERE id IN (3, 4, 17)").unwrap();
    let summary = bench.run(&["verify"]).expect(3).lines().pop().unwrap();
    assert_eq!(
        (&summary["summary"]["events"], &summary["summary"]["rows"]),
        (&20.into(), &17.into()),
        "{summary}"
    );
    let dry = bench.run(&["replay", "--dry-run"]).expect(3).json();
    assert_eq!((&dry["restored"], &dry["already_present"]), (&3.into(), &17.into()), "{dry}");
    let done = bench.run(&["replay"]).expect(0).json();
    assert_eq!((&done["restored"], &done["already_present"]), (&3.into(), &17.into()), "{done}");
}
