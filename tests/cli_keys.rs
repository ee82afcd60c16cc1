//! A repeated idempotency key is confirmed from the log without a listing of its directory, and not by the thread
//! for which every other append waits.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_support;

use std::process::{Command, Stdio};

use cli_support::trace::{Call, calls};
use cli_support::{Bench, Talk, line};

fn keyed(number: u32) -> String {
    let mut event: serde_json::Value = serde_json::from_str(&line(&format!("m{number}"))).unwrap();
    event["key"] = format!("k{number}").into();
    format!("{event}\n")
}

#[test]
fn a_repeated_key_lists_nothing_and_keeps_no_append_waiting() {
    const REPEATS: usize = 20;
    let bench = Bench::new();
    // Enough for several segments, all from an earlier opening.
    let events: String = (0..3000).map(keyed).collect();
    bench.feed(&["append", "--stdin"], events.as_bytes()).expect(0);
    let trace = bench.temp.path().join("trace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-y", "-e", "trace=getdents64,openat,pread64,fdatasync,write", "-s", "200", "-o"])
        .arg(&trace);
    strace.arg(env!("CARGO_BIN_EXE_synclog")).args(["append", "--stdin"]).env("SYNCLOG_DIR", bench.dir());
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("NOT EXERCISED: strace cannot be started, or may not trace here");
        return;
    }
    let mut writer = Talk::start(strace);
    writer.send(keyed(3000).as_bytes());
    let first = writer.answer();
    for number in [5, 2999, 3000, 1500].into_iter().cycle().take(REPEATS) {
        writer.send(keyed(number).as_bytes());
        assert_eq!(writer.answer()["seq"], number + 1);
    }
    writer.send(keyed(3001).as_bytes());
    assert_eq!(writer.answer()["seq"], 3002, "{first}");
    assert_eq!(writer.end(), Some(0));
    let calls = calls(&std::fs::read_to_string(&trace).unwrap());
    let answered = |call: &Call| call.name == "write" && call.arguments.contains(r#"\"projected\":true"#);
    let start = calls.iter().position(answered).unwrap();
    let end = calls.iter().rposition(answered).unwrap();
    let committing = &calls[..start].iter().rev().find(|call| call.name == "fdatasync").unwrap().thread;
    let during = &calls[start..end];
    let of_log = |name: &str| {
        during.iter().filter(|call| call.name == name && call.arguments.contains("/log")).collect::<Vec<_>>()
    };
    println!("{} opens, {} reads", of_log("openat").len(), of_log("pread64").len());
    assert_eq!(of_log("getdents64").len(), 0, "the log's directory is listed");
    // Opening the directory is the listing's first call.
    let segments = std::fs::read_dir(bench.dir().join("log")).unwrap().count();
    assert!(
        of_log("openat").len() < segments * REPEATS,
        "{} opens of {segments} segments",
        of_log("openat").len()
    );
    let waits: Vec<_> = of_log("pread64").into_iter().filter(|call| call.thread == *committing).collect();
    // One append looks whether there are zeros where it writes.
    assert!(waits.len() <= 1, "the committing thread reads the log: {} reads", waits.len());
}
