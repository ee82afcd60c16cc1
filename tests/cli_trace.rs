//! What the kernel saw: between the write of a group to the log and the acknowledgements of its
//! events there is an fdatasync of that file that succeeded (P1).
#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use cli_support::trace::{Call, calls};

/// What strace wrote as hex between two marks.
fn between(arguments: &str, open: char, close: char) -> Vec<u8> {
    let rest = arguments.split_once(open).map_or("", |(_, rest)| rest);
    let hex = rest.split(close).next().unwrap_or_default();
    hex.split("\\x").filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

#[test]
fn an_fdatasync_lies_between_each_write_and_its_acknowledgements() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let run = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "80", "-e", "trace=pwrite64,fdatasync,fsync,write", "-o"])
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

    // The first seq of each group in the order of their writes, and how many of them are synced.
    let (mut groups, mut synced, mut acknowledged) = (Vec::new(), 0, 0);
    for Call { name, arguments, result, .. } in calls(&std::fs::read_to_string(&trace).unwrap()) {
        let of_log = between(&arguments, '<', '>').ends_with(b".seg");
        let data = between(&arguments, '"', '"');
        // A frame of an event starts with F1 01; a mark with F1 02 needs no sync of its own.
        if name == "pwrite64" && of_log && data.starts_with(&[0xF1, 1]) {
            assert_eq!(groups.len(), synced, "P1: one group in flight");
            groups.push(u64::from_le_bytes(data[8..16].try_into().unwrap()));
        } else if name == "fdatasync" && of_log && result.starts_with('0') {
            synced = groups.len();
        } else if name == "write" && arguments.starts_with("1<") {
            for line in String::from_utf8_lossy(&data).lines() {
                let Some((_, rest)) = line.split_once("\"seq\":") else { continue };
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                let seq: u64 = digits.parse().unwrap();
                let group = groups.iter().rposition(|first| *first <= seq).unwrap();
                assert!(group < synced, "P1: event {seq} was acknowledged before the sync of its group");
                acknowledged += 1;
            }
        }
    }
    assert!(
        groups.len() >= 6 && acknowledged >= 6,
        "{} groups, {acknowledged} acknowledgements",
        groups.len()
    );
}
