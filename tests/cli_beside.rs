//! Beside a writer that is busy: readers see nothing that a power cut could take back, change nothing
//! (P11), and take lag for no difference; other writers wait; a killed writer leaves no lock (P5).
#![cfg(all(feature = "cli", unix))]

mod cli_support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use cli_support::trace::calls;
use cli_support::{Bench, PATIENCE, Talk, append_args, line, program, text};

const READERS: [&[&str]; 6] =
    [&["verify"], &["status"], &["list"], &["export"], &["tail", "-n", "5"], &["runs"]];

/// For some seconds, beside one writer after the other.
#[test]
fn readers_beside_busy_writers_raise_no_false_alarm() {
    let bench = Bench::new();
    bench.append("m0");
    let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let readers: Vec<_> = [&READERS[..1], &READERS[1..]]
            .into_iter()
            .map(|commands| {
                let (bench, stop, looks) = (&bench, &stop, &looks);
                scope.spawn(move || {
                    for args in commands.iter().cycle() {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let seen = bench.run(args);
                        assert_eq!(seen.code, Some(0), "{args:?}: {}{}", seen.out, seen.err);
                        if args[0] == "export" {
                            for (found, number) in seen.lines().iter().zip(0..) {
                                assert_eq!(text(found, "log_message"), format!("m{number}"), "P4");
                            }
                        }
                        looks.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let start = Instant::now();
        let mut next = 1;
        while start.elapsed() < Duration::from_secs(3) && !readers.iter().any(ScopedJoinHandle::is_finished) {
            let mut writer = Talk::start(bench.command(&["append", "--stdin"]));
            // Bursts, and single events that each fall idle.
            for burst in [200, 1, 1, 50, 1, 400] {
                let lines: String =
                    (next..next + burst).map(|number| line(&format!("m{number}")) + "\n").collect();
                writer.send(lines.as_bytes());
                (0..burst).for_each(|_| drop(writer.answer()));
                next += burst;
            }
            // What a writer that is gone leaves to come would be a difference.
            loop {
                writer.send(format!("{}\n", line(&format!("m{next}"))).as_bytes());
                next += 1;
                if writer.answer()["projected"] == true {
                    break;
                }
            }
            assert_eq!(writer.end(), Some(0));
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert_eq!(bench.messages().len(), next);
    });
    println!("{} looks", looks.into_inner());
}

/// Beside a writer and one rebuild after the other: whoever reads sees the old rows or the new ones, and never trouble.
#[test]
fn readers_beside_rebuilds_raise_no_false_alarm() {
    const ROUNDS: u64 = 12;
    let bench = Bench::new();
    let mut writer = Talk::start(bench.command(&["append", "--stdin"]));
    let lines: String = (0..300).map(|number| line(&format!("m{number}")) + "\n").collect();
    writer.send(lines.as_bytes());
    (0..300).for_each(|_| drop(writer.answer()));
    assert_eq!(writer.end(), Some(0));
    bench.run(&["replay"]).expect(0);
    let (stop, looks, least) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(300));
    std::thread::scope(|scope| {
        let readers: Vec<_> = [&["list", "--count"][..], &["verify"], &["runs"], &["list", "--all"]]
            .into_iter()
            .map(|args| {
                let (bench, stop, looks, least) = (&bench, &stop, &looks, &least);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let before = least.load(Ordering::SeqCst);
                        let seen = bench.run(args);
                        assert_eq!(seen.code, Some(0), "{args:?}: {}{}", seen.out, seen.err);
                        match args[1..] {
                            ["--count"] => {
                                assert!(seen.json()["count"].as_u64().unwrap() >= before, "{}", seen.out);
                            }
                            ["--all"] => assert!(seen.lines().len() as u64 >= before),
                            _ => {}
                        }
                        looks.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for round in 0..ROUNDS {
            if readers.iter().any(ScopedJoinHandle::is_finished) {
                break;
            }
            bench.run(&["replay", "--rebuild"]).expect(0);
            let added = bench.run(&append_args(&format!("round {round}"))).expect(0);
            if added.json()["projected"] == true {
                least.fetch_add(1, Ordering::SeqCst);
            }
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    println!("{} looks", looks.into_inner());
}

/// Starts the program under strace; `None` where that cannot be.
fn traced(bench: &Bench, strace: &[&str], args: &[&str]) -> Option<Command> {
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("NOT EXERCISED: strace cannot be started, or may not trace here");
        return None;
    }
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(bench.temp.path().join("trace")).args(strace);
    let wanted = program(args);
    command.arg(wanted.get_program()).args(wanted.get_args()).env("SYNCLOG_DIR", bench.dir());
    Some(command)
}

/// `verify` looks at the rows, then at the log. Whoever appends between the two and is gone again has
/// left no row out.
#[test]
fn a_writer_that_comes_and_goes_during_verify_is_no_difference() {
    let bench = Bench::new();
    bench.append("m1");
    let lock = bench.dir().canonicalize().unwrap().join("lock");
    // Whether a writer lives is asked twice for each look at the log: the third time is behind the rows.
    let strace = ["-P", lock.to_str().unwrap(), "-e", "trace=openat"];
    let strace = [&strace[..], &["-e", "inject=openat:delay_enter=1500000:when=3"]].concat();
    let Some(command) = traced(&bench, &strace, &["verify"]) else { return };
    let mut verify = Talk::start(command);
    let trace = bench.temp.path().join("trace");
    let start = Instant::now();
    while std::fs::read_to_string(&trace).unwrap_or_default().matches("lock").count() < 2 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(300));
    bench.append("m2");
    let found = verify.rest();
    assert_eq!(verify.end(), Some(0), "{found:?}");
    assert_eq!(found[0]["summary"]["events"], 2, "it saw the event: {found:?}");
}

fn holds(path: &Path, text: &str) -> bool {
    std::fs::read(path).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
}

/// A writer whose syncs take long, with one event written and not yet synced.
fn in_flight(bench: &Bench, message: &str, delay: Duration) -> Option<Talk> {
    let inject = format!("inject=fdatasync:delay_enter={}", delay.as_micros());
    let segment = bench.segment();
    let segment = segment.canonicalize().unwrap();
    let strace = ["-P", segment.to_str().unwrap(), "-e", "trace=fdatasync", "-e", &inject];
    let mut writer = Talk::start(traced(bench, &strace, &["append", "--stdin"])?);
    let start = Instant::now();
    writer.send(format!("{}\n", line(message)).as_bytes());
    // The sync cannot end before this moment plus the delay.
    let mut absent = start;
    loop {
        let looked = Instant::now();
        if holds(&segment, message) {
            break;
        }
        absent = looked;
        assert!(start.elapsed() < PATIENCE, "the event is never written");
        std::thread::sleep(Duration::from_millis(2));
    }
    // Long enough for a writer that does not wait for the sync to give itself away.
    while absent.elapsed() < delay / 3 {
        let early = writer.has_answer();
        assert!(!early || absent.elapsed() >= delay, "P1: the answer comes before the sync");
        std::thread::sleep(Duration::from_millis(2));
    }
    Some(writer)
}

#[test]
fn an_event_is_not_shown_before_it_is_synced() {
    let bench = Bench::new();
    bench.append("first");
    let message = "in flight".to_owned();
    let Some(mut writer) = in_flight(&bench, &message, Duration::from_secs(2)) else { return };
    for args in READERS {
        let seen = bench.run(args).expect(0);
        if writer.has_answer() {
            println!("NOT EXERCISED: {args:?} came after the sync");
            continue;
        }
        assert!(!seen.out.contains(&message), "P1: {args:?} shows an event in flight: {}", seen.out);
        assert!(args[0] != "status" || seen.json()["last_seq"] == 1, "P1: {}", seen.out);
    }
    assert_eq!(writer.answer()["seq"], 2);
    // Nothing else comes, so the mark of the idle log proves it.
    let start = Instant::now();
    while bench.messages().last() != Some(&message) {
        assert!(start.elapsed() < PATIENCE, "an event that was acknowledged is shown soon");
    }
    assert_eq!(writer.end(), Some(0));
}

#[test]
fn a_signal_lets_the_group_in_flight_finish() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let bench = Bench::new();
        bench.append("first");
        let Some(mut writer) = in_flight(&bench, "in flight", Duration::from_millis(300)) else { return };
        let pid = std::fs::read_to_string(bench.dir().join("lock")).unwrap();
        assert!(Command::new("kill").args(["-s", signal, pid.trim()]).status().unwrap().success());
        let answers = writer.rest();
        assert_eq!((answers.len(), &answers[0]["seq"]), (1, &2.into()), "{signal}: {answers:?}");
        assert_eq!(writer.end(), Some(code));
        assert_eq!(bench.messages(), ["first", "in flight"]);
        bench.run(&["verify"]).expect(0);
    }
}

/// By what the kernel saw: no reader opens a file of the store for writing or changes its directory.
#[test]
fn readers_change_nothing() {
    const CALLS: &str = "trace=open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,\
                         ftruncate,truncate,pwrite64,write,fallocate,link,symlink,chmod,fchmod,utimensat";
    let bench = Bench::new();
    for number in 0..10 {
        bench.append(&format!("m{number}"));
    }
    let mut writer = Talk::start(bench.command(&["append", "--stdin"]));
    writer.send(format!("{}\n", line("m")).as_bytes());
    writer.answer();
    for alive in [true, false] {
        if !alive {
            writer.child.kill().unwrap();
            writer.end();
        }
        for args in READERS.iter().chain(&[&["replay", "--dry-run"][..], &["repair", "--dry-run"]]) {
            let before = bench.bytes();
            let Some(mut command) = traced(&bench, &["-y", "-e", CALLS], args) else { return };
            let done = cli_support::done(command.stdin(Stdio::null()).output().unwrap()).expect(0);
            assert!(!done.out.is_empty() || args[0] == "runs");
            // A writer that lives may still write its mark.
            assert!(alive || bench.bytes() == before, "P11: {args:?}");
            let trace = std::fs::read_to_string(bench.temp.path().join("trace")).unwrap();
            let store = bench.dir().canonicalize().unwrap().to_string_lossy().into_owned();
            let mut seen = 0;
            for call in calls(&trace) {
                let Some((_, rest)) = call.arguments.split_once(&store) else { continue };
                seen += 1;
                let file = rest.split(['"', '>']).next().unwrap();
                let writes = if call.name.starts_with("open") {
                    ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"]
                        .iter()
                        .any(|flag| call.arguments.contains(flag))
                } else {
                    !call.result.starts_with("-1")
                };
                let of_sqlite = file.ends_with("-shm") || file.ends_with("-wal");
                assert!(!writes || of_sqlite, "P11: {args:?}: {} {}", call.name, call.arguments);
            }
            assert!(seen > 0, "{trace}");
        }
    }
}

#[test]
fn a_writer_waits_for_the_one_before_it() {
    let bench = Bench::new();
    let mut first = Talk::start(bench.command(&["append", "--stdin"]));
    first.send(format!("{}\n", line("m1")).as_bytes());
    first.answer();
    let mut args = append_args("m2");
    args.extend(["--wait", "30s"]);
    let second =
        bench.command(&args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut second = second.unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(second.try_wait().unwrap().is_none(), "it waits");
    first.send(format!("{}\n", line("m3")).as_bytes());
    assert_eq!(first.answer()["seq"], 2, "P1: nobody writes beside the one who holds the lock");
    assert_eq!(first.end(), Some(0));
    let done = cli_support::done(second.wait_with_output().unwrap()).expect(0);
    assert_eq!(done.json()["seq"], 3);
    assert_eq!(bench.messages(), ["m1", "m3", "m2"]);
}

#[test]
fn the_lock_of_a_killed_writer_is_free() {
    let bench = Bench::new();
    let no_wait = |args: &[&str]| {
        let mut args = args.to_vec();
        args.extend(["--wait", "0"]);
        bench.run(&args)
    };
    let commands = [&["append", "--stdin"][..], &["replay"], &["replay", "--rebuild"], &["repair"]];
    for (seq, args) in (1..).zip(commands) {
        let mut writer = Talk::start(bench.command(&["append", "--stdin"]));
        writer.send(format!("{}\n", line("m")).as_bytes());
        assert_eq!(writer.answer()["seq"], seq);
        let pid = writer.child.id().to_string();
        let refused = no_wait(args).expect(11);
        assert!(refused.err.contains(&pid), "{}", refused.err);
        assert_eq!(refused.out, "");
        writer.child.kill().unwrap();
        assert_eq!(writer.end(), None);
        no_wait(args).expect(0);
    }
    no_wait(&append_args("the end")).expect(0);
    bench.run(&["verify"]).expect(0);
}
