//! What the kernel saw: between the write of a group to the log and the acknowledgements of its
//! events there is an fdatasync of that file that succeeded (P1).
#![cfg(all(feature = "cli", target_os = "linux"))]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// One finished system call: name, arguments, result.
fn calls(trace: &str) -> Vec<(String, String, String)> {
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let mut text = rest.trim().to_owned();
        if let Some(start) = text.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, start.to_owned());
            continue;
        }
        if text.starts_with("<...") {
            let Some((_, end)) = text.split_once(" resumed>") else { continue };
            text = unfinished.remove(pid).unwrap_or_default() + end;
        }
        let Some((name, rest)) = text.split_once('(') else { continue };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { continue };
        calls.push((name.to_owned(), arguments.to_owned(), result.to_owned()));
    }
    calls
}

#[test]
fn an_fdatasync_lies_between_each_write_and_its_acknowledgements() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let run = Command::new("strace")
        .args(["-f", "-y", "-s", "64", "-e", "trace=pwrite64,fdatasync,fsync,write", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_synclog"))
        .arg("--dir")
        .arg(dir.path().join("store"))
        .args(["append", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = run else {
        println!("NOT EXERCISED: strace cannot be started");
        return;
    };
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let event = r#"{"company_guid":"g","company_alterid":"1","company_name":"n","log_message":"m"}"#;
    let mut answers = 0;
    for burst in [1, 1, 1, 7, 1, 30] {
        for _ in 0..burst {
            if writeln!(input, "{event}").is_err() {
                break;
            }
        }
        for _ in 0..burst {
            let Some(Ok(line)) = output.next() else { break };
            assert!(line.contains("\"durable\":true"), "{line}");
            answers += 1;
        }
    }
    drop(input);
    child.wait().unwrap();
    if answers == 0 {
        println!("NOT EXERCISED: strace may not trace here");
        return;
    }
    assert_eq!(answers, 41);

    // Events written and not synced yet; each acknowledgement needs that there are none before it.
    let (mut written, mut synced, mut acknowledged) = (0, 0, 0);
    for (name, arguments, result) in calls(&std::fs::read_to_string(&trace).unwrap()) {
        let of_log = arguments.contains(".seg>") && !arguments.contains(".seg.new");
        // A frame of an event starts with F1 01; a mark with F1 02 needs no sync of its own.
        if name == "pwrite64" && of_log && arguments.contains(r#""\361\1"#) {
            assert_eq!(written, synced, "P1: one group in flight: {arguments}");
            written += 1;
        } else if name == "fdatasync" && of_log && result.starts_with('0') {
            synced = written;
        } else if name == "write" && arguments.starts_with('1') && arguments.contains("durable") {
            acknowledged += 1;
            assert_eq!(synced, written, "P1: acknowledged before the sync: {arguments}");
        }
    }
    assert!(written >= 6 && acknowledged >= 6, "{written} groups, {acknowledged} acknowledgements");
}
