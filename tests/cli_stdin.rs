//! `append --stdin`: one answer for each line, in order, in time, whatever comes and whenever it ends.
#![cfg(feature = "cli")]

mod cli_support;

use std::time::{Duration, Instant};

use cli_support::{Bench, Talk, line};

/// A number that depends on the time, for random moments. Failures print what came of it.
fn chance(limit: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos()) / 7 % limit
}

#[test]
fn a_client_that_waits_for_each_answer_is_never_left_waiting() {
    let bench = Bench::new();
    let mut talk = Talk::start(bench.command(&["append", "--stdin"]));
    let mut long = line("x").into_bytes();
    long.resize(9 * 1024 * 1024, b' ');
    let large = line(&"y".repeat(2 * 1024 * 1024)).into_bytes();
    let keyed = |message: &str| line(message).replace('}', r#","key":"k"}"#).into_bytes();
    let inputs: [(Vec<u8>, bool); 14] = [
        (line("one").into_bytes(), true),
        (b"no json".to_vec(), false),
        (b"\xff\xfe".to_vec(), false),
        (b"{}".to_vec(), false),
        (b"[1]".to_vec(), false),
        (line("two").into_bytes(), true),
        (long, false),
        (large, false),
        (line("unknown").replace('}', r#","colour":"red"}"#).into_bytes(), false),
        (line("").into_bytes(), false),
        (keyed("three"), true),
        (keyed("three"), true),
        (keyed("not three"), false),
        (line("four").into_bytes(), true),
    ];
    let (mut number, mut seqs) = (0, Vec::new());
    for (mut input, good) in inputs {
        input.push(b'\n');
        talk.send(&input);
        number += 1;
        let answer = talk.answer();
        assert_eq!(answer["line"], number, "{answer}");
        assert_eq!(answer["rejected"].is_string(), !good, "{answer}");
        if good {
            assert_eq!((&answer["durable"], &answer["projected"]), (&true.into(), &true.into()), "{answer}");
            seqs.push(answer["seq"].as_u64().unwrap());
        }
        // A blank line counts, and is not answered.
        talk.send(b"  \r\n");
        number += 1;
    }
    assert_eq!(seqs, [1, 2, 3, 3, 4]);
    assert_eq!(talk.end(), Some(5));
    assert_eq!(bench.messages(), ["one", "two", "three", "four"]);
}

#[test]
fn many_lines_share_syncs_and_are_answered_in_order() {
    let bench = Bench::new();
    let lines: Vec<_> = (1..=5000).map(|number| line(&format!("m{number}"))).collect();
    let start = Instant::now();
    // The last line has no end.
    let done = bench.feed(&["append", "--stdin"], lines.join("\n").as_bytes()).expect(0);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let answers = done.lines();
    assert_eq!(answers.len(), 5000);
    for (answer, number) in answers.iter().zip(1..) {
        assert_eq!((answer["line"].as_u64(), answer["seq"].as_u64()), (Some(number), Some(number)));
    }
    assert_eq!(bench.run(&["list", "--count"]).expect(0).json()["count"], 5000);
    bench.run(&["verify"]).expect(0);
}

#[test]
fn rejections_are_repeated_on_stderr_and_the_rest_goes_on() {
    let bench = Bench::new();
    let input = format!("\u{feff}{}\n\n{{\n{}\r\n", line("a"), line("b"));
    let done = bench.feed(&["append", "--stdin"], input.as_bytes()).expect(5);
    let lines: Vec<_> = done.lines().iter().map(|answer| answer["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [1, 3, 4]);
    let rejection = done.out.lines().nth(1).unwrap();
    assert!(done.err.lines().any(|told| told == rejection), "{}", done.err);
    bench.feed(&["append", "--stdin"], b"").expect(0);
}

#[test]
fn lines_of_the_store_before_hold_their_place() {
    let bench = Bench::new();
    bench.append("first");
    let done = bench.feed(&["append", "--stdin"], line("second").as_bytes()).expect(0);
    assert_eq!(done.json()["seq"], 2);
}

#[test]
fn signals_finish_what_was_taken_and_answer_it() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let bench = Bench::new();
        let mut talk = Talk::start(bench.command(&["append", "--stdin"]));
        // A client that waits: the program sits in a read when the signal comes.
        talk.send(format!("{}\n{}\n", line("m1"), line("m2")).as_bytes());
        let mut answers = vec![talk.answer(), talk.answer()];
        talk.signal(signal);
        let start = Instant::now();
        let stdin = talk.stdin.take(); // still open
        assert_eq!(talk.end(), Some(code));
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(stdin);
        answers.extend(talk.rest());
        assert_eq!(answers.len(), 2);
        assert_eq!(bench.messages(), ["m1", "m2"]);
        bench.run(&["verify"]).expect(0);
    }
}

#[test]
fn a_signal_in_full_flow_leaves_no_event_without_its_answer() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let bench = Bench::new();
        let mut talk = Talk::start(bench.command(&["append", "--stdin"]));
        let mut stdin = talk.stdin.take().unwrap();
        let writer = std::thread::spawn(move || {
            use std::io::Write;
            for number in 1..1_000_000 {
                if writeln!(stdin, "{}", line(&format!("m{number}"))).is_err() {
                    return;
                }
            }
        });
        let mut answers = vec![talk.answer()];
        std::thread::sleep(Duration::from_micros(chance(150_000)));
        talk.signal(signal);
        assert_eq!(talk.end(), Some(code));
        writer.join().unwrap();
        answers.extend(talk.rest());
        let messages = bench.messages();
        assert_eq!(answers.len(), messages.len(), "every event has its answer, every answer its event");
        for (answer, number) in answers.iter().zip(1..) {
            assert_eq!((answer["line"].as_u64(), answer["seq"].as_u64()), (Some(number), Some(number)));
        }
    }
}

#[test]
fn an_answer_that_cannot_be_delivered_is_a_failure() {
    let bench = Bench::new();
    let mut command = bench.command(&["append", "--stdin"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    let _ = std::io::Write::write_all(&mut stdin, format!("{}\n", line("m")).as_bytes());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody reads the answers"));
    assert_eq!(bench.messages(), ["m"]);
}
