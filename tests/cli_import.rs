//! Import, export and replay through the command line, with the history of an older system.
#![cfg(feature = "cli")]

mod cli_support;

use cli_support::{Bench, legacy};
use serde_json::{Value, json};

fn counts(report: &Value) -> (u64, u64, u64) {
    let count = |name: &str| report[name].as_u64().unwrap();
    (count("imported"), count("already_present"), count("rejected"))
}

fn imported() -> Bench {
    let bench = Bench::new();
    bench.run(&["import", &legacy("sync_logs_backup.jsonl")]).expect(5);
    bench.run(&["import", &legacy("legacy.db")]).expect(0);
    bench
}

#[test]
fn the_history_of_an_older_system_comes_in_once() {
    let bench = Bench::new();
    let (backup, database) = (legacy("sync_logs_backup.jsonl"), legacy("legacy.db"));

    let dry = bench.run(&["import", &backup, "--dry-run"]);
    assert_eq!(dry.code, Some(10), "a dry run makes no store");
    assert!(!bench.dir().exists());

    let done = bench.run(&["import", &backup]).expect(5);
    assert!(done.err.contains(&bench.dir().display().to_string()), "the new store is told: {}", done.err);
    let report = done.json();
    assert_eq!(counts(&report), (331, 0, 3));
    assert_eq!((&report["source_tz"], &report["dry_run"]), (&json!("UTC"), &json!(false)));
    let rejected: Vec<u64> = done
        .err
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| line["line"].as_u64())
        .collect();
    assert_eq!(rejected, [91, 131, 171]);

    let dry = bench.run(&["import", &database, "--dry-run"]).expect(0);
    assert_eq!(counts(&dry.json()), (9, 297, 0));
    assert_eq!(counts(&bench.run(&["import", &database]).expect(0).json()), (9, 297, 0));
    assert_eq!(counts(&bench.run(&["import", &backup]).expect(5).json()).0, 0);
    assert_eq!(counts(&bench.run(&["import", &database]).expect(0).json()).0, 0);

    assert_eq!(bench.run(&["export"]).expect(0).lines().len(), 340);
    assert_eq!(bench.run(&["list", "--count"]).expect(0).json()["count"], 340);
    for (state, runs) in [("ok", 38), ("failed", 7), ("stuck", 3), ("open", 3)] {
        assert_eq!(bench.run(&["runs", "--state", state]).expect(0).lines().len(), runs, "{state}");
    }
    assert_eq!(bench.run(&["runs"]).expect(0).lines().len(), 48);
}

#[test]
fn a_source_in_another_zone_is_refused_with_the_offset() {
    let bench = imported();
    let done = bench.run(&["import", &legacy("sync_logs_backup.jsonl"), "--source-tz", "+05:30"]).expect(2);
    assert!(done.err.contains("-05:30"), "{}", done.err);
    assert_eq!(bench.messages().len(), 340, "nothing was written");
    let done = bench.run(&["import", &legacy("legacy.db"), "--source-tz", "Mars/Base"]).expect(2);
    assert!(done.err.contains("zone"), "{}", done.err);
}

#[test]
fn a_deleted_database_is_named_and_replayed() {
    let bench = imported();
    let before = bench.run(&["list", "--all", "--reverse"]).expect(0).out;
    bench.remove_database();
    for command in [&["list"][..], &["list", "--count"], &["runs"]] {
        let done = bench.run(command).expect(3);
        assert!(done.err.contains("run `synclog replay`"), "{}", done.err);
        assert_eq!(done.out, "");
    }
    let verified = bench.run(&["verify"]).expect(3).lines();
    assert_eq!(verified[0]["finding"], "database_missing");
    let status = bench.run(&["status"]).expect(3).json();
    assert_eq!((&status["state"], &status["next"]), (&json!("projection differs"), &json!("synclog replay")));
    assert_eq!(bench.run(&["export"]).expect(0).lines().len(), 340, "the log needs no database");

    let dry = bench.run(&["replay", "--dry-run"]).expect(3).json();
    assert_eq!((&dry["restored"], &dry["rebuilt"]), (&json!(340), &json!(true)));
    assert!(!bench.dir().join("synclog.db").exists(), "a dry run changes nothing");

    let report = bench.run(&["replay"]).expect(0).json();
    assert_eq!(report["restored"], 340);
    let verified = bench.run(&["verify"]).expect(0).lines();
    assert_eq!(verified.last().unwrap()["summary"]["differences"], 0);
    assert_eq!(bench.run(&["list", "--all", "--reverse"]).expect(0).out, before);
}

#[test]
fn replay_mends_edited_rows_and_tells_how_many() {
    let bench = imported();
    let before = bench.run(&["list", "--all"]).expect(0).out;
    let db = bench.database();
    db.execute_batch(
        "DELETE FROM sync_logs WHERE id IN (10, 11);
         UPDATE sync_logs SET log_details = 'edited', records_synced = 7 WHERE id = 20;
         INSERT INTO sync_logs (id, company_guid, company_alterid, company_name, log_level, log_message,
             created_at, frame)
         SELECT 5000, company_guid, company_alterid, company_name, log_level, 'forged', created_at, frame
         FROM sync_logs WHERE id = 1;",
    )
    .unwrap();
    drop(db);
    let findings = bench.run(&["verify"]).expect(3).lines();
    let columns: Vec<_> = findings.iter().filter_map(|finding| finding["column"].as_str()).collect();
    assert!(columns.contains(&"log_details") && columns.contains(&"records_synced"), "{columns:?}");
    let counted =
        |report: &Value| ["restored", "replaced", "set_aside"].map(|name| report[name].as_u64().unwrap());
    let dry = bench.run(&["replay", "--dry-run"]).expect(3).json();
    assert_eq!(counted(&dry), [2, 1, 1]);
    assert_eq!(dry["already_present"], 337);
    assert_eq!(counted(&bench.run(&["replay"]).expect(0).json()), [2, 1, 1]);
    bench.run(&["verify"]).expect(0);
    assert_eq!(bench.run(&["list", "--all"]).expect(0).out, before);
    let again = bench.run(&["replay", "--rebuild"]).expect(0).json();
    assert_eq!(again["rebuilt"], true);
    assert_eq!(bench.run(&["list", "--all"]).expect(0).out, before);
}

#[test]
fn an_export_comes_into_another_store_whole_and_once() {
    let first = imported();
    let strange = r#"{"company_guid":"g\u0000\u009b","company_alterid":"א","company_name":"n\u202e","log_message":"\u001b[2J\u2028","duration_seconds":0.1,"records_synced":null,"run":"r","key":"k","created_at":"0001-01-01"}"#;
    first.feed(&["append", "--stdin"], strange.as_bytes()).expect(0);
    let export = first.run(&["export"]).expect(0).out;
    let file = first.temp.path().join("export.ndjson");
    std::fs::write(&file, &export).unwrap();
    let file = file.to_str().unwrap();

    let second = Bench::new();
    assert_eq!(counts(&second.run(&["import", file]).expect(0).json()), (341, 0, 0));
    assert_eq!(counts(&second.run(&["import", file]).expect(0).json()), (0, 341, 0));
    assert_eq!(counts(&first.run(&["import", file]).expect(0).json()), (0, 341, 0));

    let strip = |export: &str| -> Vec<Value> {
        let lines = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|mut line| {
                let fields = line.as_object_mut().unwrap();
                for name in ["store", "seq", "appended_at", "origin_store", "origin_seq"] {
                    fields.remove(name);
                }
                line
            })
            .collect()
    };
    let again = second.run(&["export"]).expect(0).out;
    assert_eq!(strip(&again), strip(&export));
    let origin: Value = serde_json::from_str(again.lines().next().unwrap()).unwrap();
    let source: Value = serde_json::from_str(export.lines().next().unwrap()).unwrap();
    assert_eq!((&origin["origin_store"], &origin["origin_seq"]), (&source["store"], &source["seq"]));
    // What `tail` writes is the same form.
    let tail = first.run(&["tail", "--after", "0", "-o", "ndjson"]).expect(0).out;
    assert_eq!(tail, export);
}

#[test]
fn a_wrong_file_leaves_no_store_behind() {
    let bench = Bench::new();
    bench.run(&["import", "/nonexistent/file.jsonl"]).expect(1);
    bench.run(&["import", "/"]).expect(1);
    assert!(!bench.dir().exists());
    bench.run(&["import", &legacy("legacy.db"), "--no-create"]).expect(10);
    assert!(!bench.dir().exists());
}

/// A line of the older system.
fn old(fields: &Value) -> String {
    let mut line = json!({
        "log_id": 7, "company_guid": "g", "company_alterid": "1", "company_name": "Acme", "log_level": "INFO",
        "log_message": "text", "timestamp": "2025-12-17T09:00:00.5",
    });
    line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    line.to_string()
}

fn write(bench: &Bench, name: &str, text: &str) -> String {
    let path = bench.temp.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn nothing_is_made_before_the_source_is_readable() {
    let bench = Bench::new();
    let path = write(&bench, "held.db", "");
    let holder = rusqlite::Connection::open(&path).unwrap();
    holder.execute_batch("CREATE TABLE sync_logs (id); BEGIN EXCLUSIVE").unwrap();
    let done = bench.run(&["--wait", "0", "import", &path]).expect(1);
    assert!(done.err.contains("--wait") && !done.err.contains("replay"), "{}", done.err);
    drop(holder);
    let strange = write(&bench, "strange.db", "");
    rusqlite::Connection::open(&strange).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    assert!(bench.run(&["import", &strange]).expect(2).err.contains("no table sync_logs"));
    assert!(bench.run(&["import", "/dev/zero"]).expect(1).err.contains("device"));
    assert!(!bench.dir().exists());
}

/// Lines that come slowly through a pipe keep nobody out.
#[cfg(unix)]
#[test]
fn no_lock_is_held_while_a_pipe_is_read() {
    use std::io::Write;
    let bench = Bench::new();
    let pipe = bench.temp.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let child = bench
        .command(&["import", pipe.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut end = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    end.write_all((old(&json!({})) + "\n").as_bytes()).unwrap();
    assert!(!bench.dir().exists(), "nothing is made yet");
    let other = bench.run(&[&["--wait", "0"][..], &cli_support::append_args("meanwhile")].concat());
    other.expect(0);
    drop(end);
    let done = cli_support::done(child.wait_with_output().unwrap()).expect(0);
    assert_eq!(counts(&done.json()), (1, 0, 0));
    assert_eq!(bench.messages(), ["meanwhile", "text"]);
}

#[test]
fn times_that_have_not_come_yet_are_told_loudly() {
    let bench = Bench::new();
    let lines = [old(&json!({"timestamp": "2999-01-02 03:04:05"})), old(&json!({"log_id": 8}))].join("\n");
    let file = write(&bench, "future.jsonl", &lines);
    let done = bench.run(&["-q", "import", &file]).expect(0);
    assert!(done.err.contains("WARNING") && done.err.contains("2999-01-02 03:04:05"), "{}", done.err);
    assert!(done.err.contains("read in UTC"), "{}", done.err);
    let report = done.json();
    assert_eq!((&report["in_future"], &report["source_tz"]), (&json!(1), &json!("UTC")));
    assert_eq!(report["newest_in_future"], "2999-01-02 03:04:05.000000");
}

#[test]
fn local_times_in_a_change_of_the_clocks_are_counted() {
    let bench = Bench::new();
    let lines = [
        old(&json!({"timestamp": "2025-03-30T02:30:00"})),
        old(&json!({"timestamp": "2025-10-26T02:30:00"})),
        old(&json!({"timestamp": "2025-10-26T02:30:00+02:00"})),
    ];
    let file = write(&bench, "clocks.jsonl", &lines.join("\n"));
    let done = bench.run(&["import", &file, "--source-tz", "Europe/Berlin"]);
    if done.code == Some(2) && done.err.contains("zone") {
        return eprintln!("NOT EXERCISED: no zone database");
    }
    let report = done.expect(0).json();
    assert_eq!((&report["skipped_times"], &report["doubled_times"]), (&json!(1), &json!(1)));
}

#[test]
fn what_is_changed_on_the_way_in_is_told_once() {
    let bench = Bench::new();
    let lines = [
        old(&json!({"host": "web1", "company_alterid": "", "log_level": "CRITICAL"})),
        old(&json!({"host": "web2", "log_id": 8})),
        format!("{}{}", old(&json!({"log_id": 10, "log_message": "a"})), old(&json!({"log_id": 9}))),
    ];
    let file = write(&bench, "extra.jsonl", &lines.join("\n"));
    let done = bench.run(&["import", &file]).expect(0);
    let report = done.json();
    assert_eq!(counts(&report), (4, 0, 0));
    let told = ["empty_alterids", "unknown_words", "look_alikes"].map(|name| report[name].as_u64().unwrap());
    assert_eq!((told, &report["extra_fields"]), ([1, 1, 1], &json!(["host"])));
    assert_eq!(done.err.matches("host").count(), 1, "{}", done.err);
    for word in ["--extra drop", "alterid", "no level or status", "all but the id"] {
        assert!(done.err.contains(word), "{word}: {}", done.err);
    }
    let details: Vec<_> =
        bench.run(&["export"]).expect(0).lines().iter().map(|line| line["log_details"].clone()).collect();
    assert_eq!(details[0], "log_level: CRITICAL\n[extra] host: web1");
    // What was dropped or kept makes no other event of it.
    let again = bench.run(&["import", &file, "--extra", "drop"]).expect(0);
    assert_eq!(counts(&again.json()), (0, 4, 0));
}

/// The wrong zone once is no dead end: the events come in the right one, and the others go.
#[test]
fn an_import_in_the_wrong_zone_is_taken_back() {
    let right = Bench::new();
    let (backup, database) = (legacy("sync_logs_backup.jsonl"), legacy("legacy.db"));
    let zone = ["--source-tz", "+05:30"];
    right.run(&[&["import", &backup][..], &zone].concat()).expect(5);
    right.append("of our own");

    let bench = Bench::new();
    bench.run(&["import", &backup]).expect(5);
    bench.append("of our own");
    let done = bench.run(&[&["import", &backup][..], &zone].concat()).expect(2);
    assert!(done.err.contains("--was-tz"), "{}", done.err);
    let correct = [&["import", &backup, "--was-tz", "UTC"][..], &zone].concat();
    let dry = bench.run(&[&correct[..], &["--dry-run"]].concat()).expect(5).json();
    assert_eq!((&dry["corrected"], &dry["imported"]), (&json!(331), &json!(331)));
    for number in [&[][..], &["--take-back", "330"]] {
        let done = bench.run(&[&correct[..], number].concat()).expect(2);
        assert!(done.err.contains("331") && done.err.contains("--take-back"), "{}", done.err);
    }
    assert_eq!(bench.messages().len(), 332, "nothing was written");
    let report = bench.run(&[&correct[..], &["--take-back", "331"]].concat()).expect(5).json();
    assert_eq!((&report["corrected"], &report["imported"]), (&json!(331), &json!(331)));

    let rows = |bench: &Bench| -> Vec<String> {
        let rows = bench.run(&["list", "--all", "--reverse"]).expect(0).lines();
        let names = ["created_at", "log_message", "log_details", "sync_status", "company_name"];
        let shown = |row: &Value| {
            // The moment of an append is not the same in both.
            let at = usize::from(row["log_message"] == "of our own");
            names[at..].iter().map(|name| row[*name].to_string()).collect()
        };
        rows.iter().map(shown).collect()
    };
    assert_eq!(rows(&bench), rows(&right));
    let runs = |bench: &Bench| bench.run(&["runs"]).expect(0).lines().len();
    assert_eq!(runs(&bench), runs(&right));
    assert_eq!(bench.run(&["export"]).expect(0).lines().len(), 332, "an export leaves the others out");

    // It stays so, whatever becomes of the rows (P7, P8).
    let summary = |bench: &Bench| bench.run(&["verify"]).expect(0).summary();
    assert_eq!((&summary(&bench)["differences"], &summary(&bench)["rows"]), (&json!(0), &json!(332)));
    for rebuild in [&["replay"][..], &["replay", "--rebuild"]] {
        let done = bench.run(rebuild).expect(0).json();
        assert_eq!(done["replaced"], 0, "{done}");
        assert_eq!(rows(&bench), rows(&right), "{rebuild:?}");
        summary(&bench);
    }
    bench.remove_database();
    bench.append("one more");
    assert_eq!(rows(&bench).len(), 333);
    bench.run(&["verify", "--log-only"]).expect(0);
    // Again, there is nothing to do; and the other source fits.
    let again = bench.run(&[&correct[..], &["--take-back", "0"]].concat()).expect(5).json();
    assert_eq!((&again["corrected"], counts(&again)), (&json!(0), (0, 331, 3)));
    let other = bench.run(&[&["import", &database][..], &zone].concat()).expect(0).json();
    assert_eq!(counts(&other), (9, 297, 0));
}

/// A source that cannot be read is no fault of the store's own database.
#[test]
fn a_damaged_source_is_a_failure_and_no_difference() {
    let bench = Bench::new();
    bench.append("one");
    let file = bench.dir().with_file_name("broken.db");
    let mut bytes = std::fs::read(legacy("legacy.db")).unwrap();
    for byte in &mut bytes[100..] {
        *byte ^= 0x5a;
    }
    std::fs::write(&file, bytes).unwrap();
    let done = bench.run(&["import", file.to_str().unwrap()]).expect(1);
    assert!(done.err.contains("broken.db") && !done.err.contains("replay"), "{}", done.err);
    bench.run(&["verify"]).expect(0);
}
