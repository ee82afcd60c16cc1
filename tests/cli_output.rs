//! What goes where: exit codes, closed pipes, escaped output, and reads that change nothing.
#![cfg(feature = "cli")]

mod cli_support;

use std::io::Read;
use std::process::{Command, Stdio};

use cli_support::{Bench, COMPANY, Talk, append_args, done, legacy, line, program, text};
use serde_json::Value;

fn with_company<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["append"];
    all.extend(COMPANY);
    all.extend(args);
    all
}

#[test]
fn usage_errors_exit_2_and_name_the_field() {
    let bench = Bench::new();
    for (args, word) in [
        (vec!["append", "--company-guid", "g", "--message", "m"], "--company-alterid"),
        (with_company(&[]), "--message"),
        (with_company(&["--message", ""]), "log_message"),
        (with_company(&["--message", "m", "--level", "LOUD"]), "--level"),
        (with_company(&["--message", "m", "--duration", "NaN"]), "duration_seconds"),
        (with_company(&["--message", "m", "--timestamp", "soon"]), "timestamp"),
        (with_company(&["--message", "m", "--records", "many"]), "--records"),
        (with_company(&["--message", "m", "--stdin"]), "--stdin"),
        (with_company(&["--message", "m", "--run", " "]), "run"),
        (vec!["list", "-n", "-1"], "-1"),
        (vec!["list", "-n", "x"], "x"),
        (vec!["list", "-n", "3", "--all"], "--all"),
        (vec!["list", "--wait", "10"], "--wait"),
        (vec!["list", "--tz", "Mars/Base"], "Mars/Base"),
        (vec!["export", "-o", "json"], "ndjson"),
        (vec!["tail", "-f", "-o", "json"], "ndjson"),
        (vec!["frobnicate"], "frobnicate"),
        (vec![], "Usage"),
    ] {
        let run = bench.run(&args).expect(2);
        assert!(run.err.contains(word), "{args:?}: {}", run.err);
        assert_eq!(run.out, "", "{args:?}");
    }
    let large = "x".repeat(100_000);
    bench.run(&with_company(&["--message", &large])).expect(0);
    bench.run(&["list", "--since", "soon"]).expect(2);
}

#[test]
fn only_append_and_import_make_a_store() {
    let bench = Bench::new();
    for args in [
        vec!["list"],
        vec!["tail"],
        vec!["runs"],
        vec!["status"],
        vec!["verify"],
        vec!["replay"],
        vec!["replay", "--dry-run"],
        vec!["repair"],
        vec!["export"],
        with_company(&["--message", "m", "--no-create"]),
    ] {
        let run = bench.run(&args).expect(10);
        assert!(run.err.contains(&bench.dir().display().to_string()), "{args:?}: {}", run.err);
        assert!(!bench.dir().exists(), "{args:?}");
    }
    let made = bench.run(&append_args("m")).expect(0);
    assert_eq!(made.out, "{\"seq\":1,\"durable\":true,\"projected\":true}\n");
    assert!(made.err.contains(&bench.dir().display().to_string()), "{}", made.err);
    assert_eq!(bench.run(&append_args("m")).expect(0).err, "", "nothing was made");

    // A directory with something else in it is left alone.
    let other = Bench::new();
    std::fs::create_dir(other.dir()).unwrap();
    std::fs::write(other.dir().join("photo.jpg"), "x").unwrap();
    other.run(&append_args("m")).expect(10);
    assert_eq!(std::fs::read_dir(other.dir()).unwrap().count(), 1);
}

#[test]
fn the_default_directory_is_never_the_working_directory() {
    let bench = Bench::new();
    let home = bench.temp.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let mut command = program(&append_args("m"));
    command.current_dir(bench.temp.path()).env("HOME", &home).env_remove("XDG_DATA_HOME");
    let run = done(command.output().unwrap()).expect(0);
    assert!(run.err.contains(home.to_str().unwrap()), "{}", run.err);
    // The option goes before the variable.
    let dir = bench.temp.path().join("named");
    let mut command = bench.command(&append_args("m"));
    done(command.arg("--dir").arg(&dir).output().unwrap()).expect(0);
    assert!(dir.exists() && !bench.dir().exists());
}

#[test]
fn level_and_message_come_from_the_status() {
    let bench = Bench::new();
    for (args, level, message) in [
        (vec!["--status", "started"], "INFO", "Sync started for Acme Traders"),
        (vec!["--status", "in_progress"], "INFO", "Sync in progress for Acme Traders"),
        (
            vec!["--status", "completed", "--records", "300", "--duration", "0.755"],
            "SUCCESS",
            "Sync completed successfully: 300 records synced in 0.76 seconds",
        ),
        (vec!["--status", "failed", "--error-message", "no route"], "ERROR", "Sync failed: no route"),
        (vec!["--status", "failed", "--level", "warning", "--message", "-"], "WARNING", "-"),
    ] {
        bench.run(&with_company(&args)).expect(0);
        let row = bench.run(&["list", "--reverse", "-n", "100"]).expect(0).lines().pop().unwrap();
        assert_eq!((text(&row, "log_level"), text(&row, "log_message")), (level.into(), message.into()));
    }
}

#[test]
fn a_key_makes_an_append_happen_once() {
    let bench = Bench::new();
    let append = |message| bench.run(&with_company(&["--message", message, "--key", "k"]));
    assert_eq!(append("m").expect(0).json()["seq"], 1);
    assert_eq!(append("m").expect(0).json()["seq"], 1);
    let conflict = append("other").expect(1);
    assert!(conflict.err.contains('k') && conflict.err.contains('1'), "{}", conflict.err);
    assert_eq!(bench.messages(), ["m"]);
}

#[test]
fn list_filters_pages_and_counts() {
    let bench = Bench::new();
    bench.run(&["import", &legacy("sync_logs_backup.jsonl")]).expect(5);
    let first = bench.run(&["list"]).expect(0);
    assert_eq!(first.lines().len(), 100);
    assert!(first.err.contains("100 of 331"), "{}", first.err);
    assert_eq!(bench.run(&["list", "-q"]).expect(0).err, "");
    assert_eq!(bench.run(&["list", "--all"]).expect(0).lines().len(), 331);
    assert_eq!(bench.run(&["list", "-n", "0"]).expect(0).out, "");
    let errors = bench.run(&["list", "--level", "error", "--status", "failed", "--count", "-n", "2"]);
    assert_eq!(errors.expect(0).json()["count"], 7);
    assert_eq!(bench.run(&["list", "--count", "-o", "table", "--grep", "TIMED OUT"]).expect(0).out, "7\n");
    let array = bench.run(&["list", "-o", "json", "-n", "3"]).expect(0).out;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&array).unwrap().len(), 3);
    assert_eq!(bench.run(&["list", "-o", "json", "--run", "none"]).expect(0).out, "[]\n");
    let count = |args: &[&str]| {
        let mut all = vec!["list", "--count"];
        all.extend(args);
        bench.run(&all).expect(0).json()["count"].as_u64().unwrap()
    };
    let whole = count(&["--since", "2025-12-17", "--until", "2025-12-18"]);
    assert_eq!(whole, 331);
    let noon = count(&["--until", "2025-12-17 12:00:00"]);
    assert!(noon > 0 && noon < 331);
    assert_eq!(count(&["--until", "2025-12-17T17:30:00+05:30"]), noon);
    assert_eq!(count(&["--until", "2025-12-17 17:30:00", "--tz", "+05:30"]), noon);
    assert_eq!(count(&["--since", "24h"]), 0, "all of it happened long ago");
    assert_eq!(count(&["--after", "300"]), 31);
    let table = bench.run(&["list", "-o", "table", "--utc", "--reverse", "-n", "1"]).expect(0).out;
    assert!(table.contains("2025-12-17 09:00:00+00:00"), "{table}");
    let table = bench.run(&["list", "-o", "table", "--tz", "+05:30", "--reverse", "-n", "1"]).expect(0).out;
    assert!(table.contains("2025-12-17 14:30:00+05:30"), "{table}");
    let table = bench.run(&["list", "-o", "table", "--color", "always", "--level", "ERROR"]).expect(0).out;
    assert!(table.contains("\u{1b}[31mERROR"), "{table}");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let bench = Bench::new();
    bench.run(&["import", &legacy("sync_logs_backup.jsonl")]).expect(5);
    for _ in 0..6 {
        bench.run(&["import", &legacy("sync_logs_backup.jsonl"), "-q"]).expect(5);
    }
    // More than a pipe takes, so that the writer meets the closed end.
    for args in [&["export"][..], &["list", "--all"], &["tail", "--after", "0"], &["--help"], &["man"]] {
        let mut child = bench.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut some = [0; 10];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut some).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn nothing_in_an_event_or_a_name_reaches_the_terminal() {
    let bench = Bench::new();
    let evil = "a\u{1b}[2J\u{7}\u{8}b\u{7f}\u{9b}31m\u{85}c\u{202e}d\u{2066}e\r\n\tf\u{2028}g";
    let event = serde_json::json!({
        "company_guid": evil, "company_alterid": evil, "company_name": evil, "log_message": evil,
        "log_details": evil, "sync_status": "failed", "error_code": evil, "error_message": evil,
        "run": evil, "key": evil,
    });
    bench.feed(&["append", "--stdin"], event.to_string().as_bytes()).expect(0);
    let steers = |text: &str| {
        let bad = |letter: char| {
            (letter.is_control() && letter != '\n') || "\u{202e}\u{2066}\u{2028}".contains(letter)
        };
        text.chars().any(bad)
    };
    for command in [&["list"][..], &["tail"], &["runs"], &["export"], &["status"], &["verify"]] {
        for output in ["table", "json", "ndjson"] {
            let mut args = command.to_vec();
            if command[0] != "export" {
                args.extend(["-o", output]);
            }
            let run = bench.run(&args).expect(0);
            assert!(!steers(&run.out) && !steers(&run.err), "{args:?}: {:?}{:?}", run.out, run.err);
            if output == "table" && command[0] != "export" {
                assert!(!run.out.contains("\n\tf"), "{:?}", run.out);
            }
        }
    }
    let row = bench.run(&["list"]).expect(0).json();
    assert_eq!(text(&row, "log_message"), evil, "and nothing is lost");

    // The same for what the user's own arguments and input lead to.
    for args in [
        vec!["list", "--level", evil],
        vec!["list", "--since", evil],
        vec![evil],
        vec!["import", evil],
        vec!["import", evil, "--source-tz", evil],
        vec!["-d", evil, "list"],
        vec!["man", evil],
        with_company(&["--message", "m", "--timestamp", evil]),
        with_company(&["--message", "other", "--key", evil]),
    ] {
        let run = bench.run(&args);
        assert_ne!(run.code, Some(0), "{args:?}");
        assert!(!steers(&run.err) && !steers(&run.out), "{args:?}: {:?}", run.err);
    }
    let input = format!("{{\"{evil}\":1}}\n{}", line("m").replace("Acme", "\u{9b}"));
    let run = bench.feed(&["append", "--stdin"], input.as_bytes()).expect(5);
    assert!(!steers(&run.err) && !steers(&run.out), "{:?}{:?}", run.out, run.err);
}

#[test]
fn reads_change_no_byte() {
    let bench = Bench::new();
    bench.run(&["import", &legacy("sync_logs_backup.jsonl")]).expect(5);
    let before = bench.bytes();
    assert!(before.len() >= 3);
    for args in [
        &["list", "--all"][..],
        &["list", "--count", "--grep", "sync"],
        &["tail"],
        &["runs"],
        &["status"],
        &["verify"],
        &["verify", "--log-only"],
        &["export"],
        &["replay", "--dry-run"],
        &["repair", "--dry-run"],
    ] {
        bench.run(args).expect(0);
        assert_eq!(bench.bytes(), before, "{args:?}");
    }
}

#[test]
fn reads_work_on_a_read_only_file_system() {
    let bench = Bench::new();
    bench.run(&["import", &legacy("sync_logs_backup.jsonl")]).expect(5);
    let dir = bench.dir();
    let script = r#"mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && ! touch "$1/x" 2>/dev/null || exit 99
        shift; exec "$@""#;
    let read = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(&dir)
            .arg(env!("CARGO_BIN_EXE_synclog"))
            .args(args);
        command.env("SYNCLOG_DIR", &dir).output().ok().filter(|output| output.status.code() != Some(99))
    };
    let ready = read(&["--version"]).is_some_and(|output| output.status.success());
    if !ready {
        eprintln!("NOT EXERCISED: no read-only mount can be made here");
        return;
    }
    for args in [
        &["list", "--count"][..],
        &["status"],
        &["verify"],
        &["export"],
        &["tail"],
        &["runs", "--state", "ok"],
    ] {
        let run = done(read(args).unwrap()).expect(0);
        assert!(!run.out.is_empty(), "{args:?}");
    }
    assert_eq!(done(read(&["list", "--all"]).unwrap()).expect(0).out.lines().count(), 331);
    assert_eq!(done(read(&append_args("m")).unwrap()).code, Some(1));

    // A killed writer leaves rows in SQLite's own log, which cannot be read there.
    let mut talk = Talk::start(bench.command(&["append", "--stdin"]));
    talk.send(format!("{}\n", line("last")).as_bytes());
    talk.answer();
    talk.child.kill().unwrap();
    talk.end();
    let rows = done(read(&["list", "-n", "1"]).unwrap()).expect(0).json();
    assert_eq!(text(&rows, "log_message"), "last");
    assert_eq!(done(read(&["list", "--count"]).unwrap()).expect(0).json()["count"], 332);
    done(read(&["status"]).unwrap()).expect(0);
    done(read(&["verify", "--log-only"]).unwrap()).expect(0);
    assert_eq!(done(read(&["export"]).unwrap()).expect(0).out.lines().count(), 332);
}

#[test]
fn help_man_and_completions_are_written() {
    let bench = Bench::new();
    assert!(bench.run(&["--help"]).expect(0).out.contains("append"));
    assert!(bench.run(&["--version"]).expect(0).out.starts_with("synclog "));
    assert!(bench.run(&["man"]).expect(0).out.contains(".TH"));
    assert!(bench.run(&["man", "list"]).expect(0).out.contains("grep"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench.run(&["completions", shell]).expect(0).out.contains("synclog"), "{shell}");
    }
}

/// Times without a zone mean the same in an argument and on standard input.
#[test]
fn one_zone_for_all_times_without_a_zone() {
    let bench = Bench::new();
    let line = cli_support::line("m").replacen('{', r#"{"timestamp":"2025-12-17 05:30:00","#, 1);
    bench.feed(&["append", "--stdin", "--tz", "+05:30"], line.as_bytes()).expect(0);
    bench.feed(&["append", "--stdin"], line.as_bytes()).expect(0);
    let times: Vec<_> = bench.run(&["list", "--reverse"]).expect(0).lines();
    let times: Vec<_> = times.iter().map(|row| row["created_at"].as_str().unwrap()).collect();
    assert_eq!(times, ["2025-12-17 00:00:00.000000", "2025-12-17 05:30:00.000000"]);
}

#[test]
fn an_event_dated_ahead_of_the_clock_is_taken_and_flagged() {
    let bench = Bench::new();
    let args = with_company(&["--message", "m", "--timestamp", "9000-01-01"]);
    let one = bench.run(&args).expect(0);
    assert_eq!(one.json()["ahead"], true);
    assert!(one.err.contains("ahead of this clock"), "{}", one.err);
    let plain = bench.run(&with_company(&["--message", "m"])).expect(0);
    assert!(plain.json().get("ahead").is_none() && plain.err.is_empty(), "{}{}", plain.out, plain.err);
    let line = |time: &str| {
        format!(
            "{{\"company_guid\":\"g\",\"company_alterid\":\"1\",\"company_name\":\"A\",\"log_message\":\"m\",\
             \"timestamp\":\"{time}\"}}\n"
        )
    };
    let input = line("9000-01-01") + &line("2000-01-01");
    let answers = bench.feed(&["append", "--stdin"], input.as_bytes()).expect(0).lines();
    assert_eq!(answers[0]["ahead"], true);
    assert!(answers[1].get("ahead").is_none());
}
