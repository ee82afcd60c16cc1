//! Several processes at one store: writers wait for each other, readers and `tail` go along.
#![cfg(feature = "cli")]

mod cli_support;

use std::time::{Duration, Instant};

use cli_support::{Bench, PATIENCE, Talk, append_args, line, text};

#[test]
fn a_second_writer_is_refused_with_the_pid_of_the_first() {
    let bench = Bench::new();
    let mut first = Talk::start(bench.command(&["append", "--stdin"]));
    first.send(format!("{}\n", line("m")).as_bytes());
    first.answer();
    let pid = first.child.id().to_string();
    let source = bench.temp.path().join("source.jsonl");
    std::fs::write(&source, "").unwrap();
    for args in [
        append_args("other"),
        vec!["append", "--stdin"],
        vec!["replay"],
        vec!["repair"],
        vec!["import", source.to_str().unwrap()],
    ] {
        let mut args = args;
        args.extend(["--wait", "100ms"]);
        let start = Instant::now();
        let refused = bench.run(&args).expect(11);
        assert!(refused.err.contains(&pid), "{args:?}: {}", refused.err);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    // Readers are not.
    let status = bench.run(&["status"]).expect(0).json();
    assert_eq!((&status["live_writer"], &status["writer_pid"]), (&true.into(), &first.child.id().into()));
    bench.run(&["verify"]).expect(0);
    assert_eq!(bench.run(&["list", "--count"]).expect(0).json()["count"], 1);
    assert_eq!(first.end(), Some(0));
    bench.run(&append_args("other")).expect(0);
    assert_eq!(bench.run(&["status"]).expect(0).json()["live_writer"], false);
}

/// Somebody tidies up, and takes the lock file away. Nobody gets in, and the writer ends before it writes again.
#[test]
fn a_removed_lock_file_lets_no_second_writer_in() {
    let bench = Bench::new();
    let mut first = Talk::start(bench.command(&["append", "--stdin"]));
    first.send(format!("{}\n", line("m1")).as_bytes());
    assert_eq!(first.answer()["seq"], 1);
    std::fs::remove_file(bench.dir().join("lock")).unwrap();
    let mut second = append_args("other");
    second.extend(["--wait", "100ms"]);
    bench.run(&second).expect(11);
    assert_eq!(bench.run(&["status"]).expect(0).json()["live_writer"], true);
    first.send(format!("{}\n", line("m2")).as_bytes());
    let refused = first.answer();
    assert_eq!((&refused["line"], &refused["outcome"]), (&2.into(), &"not_written".into()), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("the lock file was replaced"), "{refused}");
    assert_eq!(first.end(), Some(1));
    bench.append("m3");
    assert_eq!(bench.messages(), ["m1", "m3"]);
    bench.run(&["verify"]).expect(0);
}

#[test]
fn twenty_appends_at_once_all_succeed() {
    let bench = Bench::new();
    let messages: Vec<String> = (0..20).map(|number| format!("m{number}")).collect();
    let seqs: Vec<u64> = std::thread::scope(|scope| {
        let running: Vec<_> = messages.iter().map(|message| scope.spawn(|| bench.append(message))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut sorted = seqs.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=20).collect::<Vec<u64>>());
    let found = bench.messages();
    for (seq, message) in seqs.iter().zip(&messages) {
        assert_eq!(&found[*seq as usize - 1], message);
    }
    bench.run(&["verify"]).expect(0);
}

#[test]
fn tail_shows_the_last_events_of_the_log_itself() {
    let bench = Bench::new();
    for number in 1..=12 {
        bench.append(&format!("m{number}"));
    }
    std::fs::remove_file(bench.dir().join("synclog.db")).unwrap();
    let shown = |args: &[&str]| -> Vec<u64> {
        let lines = bench.run(args).expect(0).lines();
        lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(shown(&["tail"]), (3..=12).collect::<Vec<_>>());
    assert_eq!(shown(&["tail", "-n", "2"]), [11, 12]);
    assert_eq!(shown(&["tail", "--after", "10"]), [11, 12]);
    assert_eq!(shown(&["tail", "--after", "99"]), [0u64; 0]);
    assert_eq!(shown(&["tail", "-n", "0"]), [0u64; 0]);
    let array = bench.run(&["tail", "-o", "json", "-n", "2"]).expect(0).out;
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&array).unwrap().len(), 2);
    let table = bench.run(&["tail", "-o", "table", "-n", "1"]).expect(0).out;
    assert!(table.contains("m12") && !table.contains("m11"), "{table}");
}

#[test]
fn tail_follows_through_restarts_of_the_writer() {
    let bench = Bench::new();
    bench.append("m1");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let known = bench.messages().len();
        let mut tail = Talk::start(bench.command(&["tail", "-f", "-n", "1", "-o", "ndjson"]));
        assert_eq!(tail.answer()["seq"], known);
        let start = Instant::now();
        for number in known + 1..=known + 3 {
            bench.append(&format!("m{number}")); // a process of its own
            let seen = tail.answer();
            assert_eq!((&seen["seq"], text(&seen, "log_message")), (&number.into(), format!("m{number}")));
        }
        let mut writer = Talk::start(bench.command(&["append", "--stdin"]));
        for number in known + 4..=known + 6 {
            writer.send(format!("{}\n", line(&format!("m{number}"))).as_bytes());
            writer.answer();
            assert_eq!(tail.answer()["seq"], number);
        }
        writer.child.kill().unwrap();
        bench.append(&format!("m{}", known + 7));
        assert_eq!(tail.answer()["seq"], known + 7);
        assert!(start.elapsed() < PATIENCE);
        tail.signal(signal);
        assert_eq!(tail.end(), Some(code));
    }
}

#[test]
fn a_cursor_file_makes_a_copy_that_goes_on_where_it_stopped() {
    let bench = Bench::new();
    let cursor = bench.temp.path().join("cursor");
    let tail = ["tail", "-o", "ndjson", "--cursor-file", cursor.to_str().unwrap()];
    let mut copy = String::new();
    for number in 1..=3 {
        bench.append(&format!("a{number}"));
        bench.append(&format!("b{number}"));
        let new = bench.run(&tail).expect(0).out;
        assert_eq!(new.lines().count(), 2, "{new}");
        copy += &new;
        assert_eq!(bench.run(&tail).expect(0).out, "");
    }
    assert_eq!(copy, bench.run(&["export"]).expect(0).out);
    // Killed in the middle, followed or not, it goes on without a gap.
    let mut follow = tail.to_vec();
    follow.push("-f");
    let mut following = Talk::start(bench.command(&follow));
    bench.append("c");
    assert_eq!(following.answer()["seq"], 7);
    following.signal("TERM");
    assert_eq!(following.end(), Some(143));
    bench.append("d");
    assert_eq!(bench.run(&tail).expect(0).json()["seq"], 8);

    let other = Bench::new();
    other.append("x");
    let refused = other.run(&tail).expect(2);
    assert!(refused.err.contains("belongs to the store"), "{}", refused.err);
    std::fs::write(&cursor, "nonsense").unwrap();
    bench.run(&tail).expect(2);
    std::fs::write(&cursor, "99").unwrap();
    let missing = bench.run(&tail).expect(4);
    assert!(missing.err.contains("99"), "{}", missing.err);
}
