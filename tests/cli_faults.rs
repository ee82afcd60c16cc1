//! Each system call that changes the store fails once, or is the last one before a kill. The program
//! says how it ended (P10), nothing acknowledged is lost (P1, P3), nothing that was said not to be
//! written shows up (P4), the store opens without help (P5), and trouble with SQLite fails no append.
//!
//! The faults come from strace. It counts calls in each thread on its own, so the n-th call fails in
//! each thread that gets so far. A plain run takes a sample; `SYNCLOG_ALL_FAULTS=1` takes every call with
//! every error, which lasts about twenty minutes.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use cli_support::trace::calls;
use cli_support::{Bench, Rng, copy_dir, line, number_from_env, text};
use serde_json::Value;

const CALLS: &str = "openat,mkdir,pwrite64,write,sync_file_range,fdatasync,fsync,rename,unlink,ftruncate";
/// Faults of a plain run.
const SAMPLE: usize = 90;
const ERRORS: [(&str, &str); 4] = [
    ("error=EIO", "Input/output error"),
    ("error=ENOSPC", "No space left on device"),
    ("error=EDQUOT", "Disk quota exceeded"),
    ("signal=KILL", ""),
];

/// A command on a store that is made anew for each fault.
struct Scene {
    name: &'static str,
    /// What the store is before: a directory to copy, and the messages of its events.
    before: Option<PathBuf>,
    known: Vec<String>,
    args: Vec<String>,
    /// Events for stdin, each sent when the one before was answered; or the ones that `import` reads.
    messages: Vec<String>,
}

/// What came of one run.
struct Run {
    code: Option<i32>,
    answers: Vec<Value>,
    out: String,
    err: String,
    trace: String,
}

/// The call to fail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    call: String,
    /// Relative to the folder of the store.
    path: String,
    nth: usize,
}

impl Point {
    fn is_segment(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|end| end == "seg")
    }

    fn is_view(&self) -> bool {
        self.path.starts_with("store/synclog.db")
    }

    /// Files without which the log is whole all the same.
    fn is_beside(&self) -> bool {
        ["synclog.db", "tail", "last-open.json"]
            .iter()
            .any(|name| self.path.starts_with(&format!("store/{name}")))
    }
}

fn large(message: &str) -> String {
    format!("{message} {}", "x".repeat(150_000))
}

fn input(message: &str) -> String {
    let mut event: Value = serde_json::from_str(&line(message)).unwrap();
    event["log_level"] = "INFO".into();
    event["timestamp"] = "2025-03-01 10:00:00.25".into();
    // A sector of zeros in a frame takes a mark and a sync of its own.
    event["log_details"] = "\0".repeat(if message.contains("zeros") { 1500 } else { 0 }).into();
    event.to_string() + "\n"
}

fn stdin_args() -> Vec<String> {
    vec!["append".into(), "--stdin".into()]
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// A closed store with these events.
fn store(messages: &[String]) -> Bench {
    let bench = Bench::new();
    let lines: String = messages.iter().map(|message| input(message)).collect();
    bench.feed(&["append", "--stdin"], lines.as_bytes()).expect(0);
    bench
}

/// The same, with an append behind it of which only a part reached the disk, and what a crash leaves of
/// a segment in the making.
fn torn_store(messages: &[String]) -> Bench {
    let bench = store(messages);
    let segment = bench.segment();
    let before = std::fs::read(&segment).unwrap();
    let other = Bench::new();
    copy_dir(&bench.dir(), &other.dir());
    other.append(&"torn ".repeat(600));
    let mut after = std::fs::read(other.segment()).unwrap();
    let start = before.iter().zip(&after).position(|(old, new)| old != new).unwrap();
    after[start + 1024..].fill(0);
    std::fs::write(&segment, after).unwrap();
    std::fs::write(bench.dir().join("log/00000000000000000002.seg.new"), "x").unwrap();
    bench
}

/// The scenes, and the folders that they need.
fn scenes() -> (Vec<Scene>, Vec<Bench>) {
    let few: Vec<String> = (1..=20).map(|number| format!("before {number}")).collect();
    let (plain, torn, damaged) = (store(&few), torn_store(&few), store(&few));
    let segment = damaged.segment();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(9).position(|window| window == b"before 12").unwrap();
    bytes[at + 3] ^= 0x40;
    std::fs::write(&segment, bytes).unwrap();
    let imported: Vec<String> = (1..=300).map(|number| format!("imported {number}")).collect();
    let source = plain.temp.path().join("source");
    std::fs::write(&source, imported.iter().map(|message| input(message)).collect::<String>()).unwrap();
    let source = source.to_str().unwrap().to_owned();
    let one = cli_support::append_args("one");
    let scene = |name, before: Option<&Bench>, args, messages| Scene {
        name,
        before: before.map(Bench::dir),
        known: if before.is_some() { few.clone() } else { Vec::new() },
        args,
        messages,
    };
    let new = vec!["m1".to_owned(), "zeros".into(), "m3".into()];
    let rolling = vec!["m1".to_owned(), large("m2"), large("m3"), "m4".into()];
    let scenes = vec![
        scene("a new store", None, stdin_args(), new),
        scene("a segment is rolled", Some(&plain), stdin_args(), rolling),
        scene("one append", Some(&plain), owned(&one), vec!["one".into()]),
        scene("a torn tail is cleared", Some(&torn), owned(&one), vec!["one".into()]),
        scene("a rebuild", Some(&plain), owned(&["replay", "--rebuild"]), vec![]),
        scene("an import", Some(&plain), owned(&["import", &source]), imported),
        scene("a repair", Some(&damaged), owned(&["repair"]), vec![]),
    ];
    (scenes, vec![plain, torn, damaged])
}

/// Runs a scene on its store in `folder` under strace.
fn run(scene: &Scene, folder: &Path, strace: &[String]) -> Option<Run> {
    let dir = folder.join("store");
    if let Some(before) = &scene.before {
        copy_dir(before, &dir);
    }
    let trace = folder.join("trace");
    let mut child = Command::new("strace")
        .args(["-f", "-y", "-s", "4", "-o"])
        .arg(&trace)
        .args(strace)
        .arg(env!("CARGO_BIN_EXE_synclog"))
        .arg("--dir")
        .arg(&dir)
        .args(&scene.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut out = String::new();
    if scene.args.iter().any(|arg| arg == "--stdin") {
        for message in &scene.messages {
            let gone = stdin.write_all(input(message).as_bytes()).is_err();
            if gone || stdout.read_line(&mut out).unwrap() == 0 {
                break;
            }
        }
    }
    drop(stdin);
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
        rest
    });
    let done = child.wait_with_output().unwrap();
    out += &rest.join().unwrap();
    let answers = out.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
    let err = String::from_utf8(done.stderr).unwrap();
    let trace = std::fs::read_to_string(trace).unwrap_or_default();
    Some(Run { code: done.status.code(), answers, out, err, trace })
}

/// Every call of a scene that concerns the store, as often as one thread makes it.
fn points(scene: &Scene) -> Option<Vec<Point>> {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().canonicalize().unwrap();
    let run = run(scene, &folder, &["-e".into(), format!("trace={CALLS}")])?;
    if run.trace.is_empty() {
        return None;
    }
    assert_eq!(run.code, Some(0), "{}: {}", scene.name, run.err);
    let folder = format!("{}/", folder.display());
    let mut counts: HashMap<(String, String, String), usize> = HashMap::new();
    for call in calls(&run.trace) {
        // The new name of a file is as good as its old one; strace looks at both.
        let Some((_, rest)) = call.arguments.split_once(&folder) else { continue };
        let path = rest.split(['"', '>']).next().unwrap();
        if path.starts_with("store") {
            *counts.entry((call.name, path.to_owned(), call.thread)).or_default() += 1;
        }
    }
    let mut most: BTreeMap<(String, String), usize> = BTreeMap::new();
    for ((call, path, _), count) in counts {
        let entry = most.entry((call, path)).or_default();
        *entry = count.max(*entry);
    }
    let each = most.into_iter().flat_map(|((call, path), count)| {
        (1..=count).map(move |nth| Point { call: call.clone(), path: path.clone(), nth })
    });
    let points: Vec<Point> = each.collect();
    if scene.args == stdin_args() {
        let syncs = points.iter().filter(|point| point.call == "fdatasync" && point.is_segment()).count();
        assert!(syncs >= scene.messages.len(), "P1: {syncs} syncs for events that came one after the other");
    }
    Some(points)
}

#[test]
fn any_system_call_may_fail_once() {
    let (scenes, _folders) = scenes();
    let mut all = Vec::new();
    for scene in &scenes {
        let Some(points) = points(scene) else {
            println!("NOT EXERCISED: strace cannot be started, or may not trace here");
            return;
        };
        println!("{}: {} calls", scene.name, points.len());
        all.extend(points.into_iter().flat_map(|point| ERRORS.map(|error| (scene, point.clone(), error))));
    }
    let of = all.len();
    if number_from_env("SYNCLOG_ALL_FAULTS").is_none() {
        sample(&mut all);
    }
    println!("{} of {of} faults", all.len());
    let (next, hit, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((scene, point, error)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // All that is wrong is told, not only the first.
                    match std::panic::catch_unwind(|| fail(scene, point, *error)) {
                        Ok(was_hit) => hit.fetch_add(usize::from(was_hit), Ordering::Relaxed),
                        Err(_) => wrong.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    let hit = hit.into_inner();
    let wrong = wrong.into_inner();
    println!("{hit} were hit, {wrong} ended wrong");
    assert_eq!(wrong, 0);
    assert!(hit * 10 >= all.len() * 9, "calls come in the order in which they were counted");
}

/// Leaves calls on segments and directories rather than those of SQLite, which are many.
fn sample(all: &mut Vec<(&Scene, Point, (&str, &str))>) {
    let seed = number_from_env("SYNCLOG_FAULT_SEED").unwrap_or(1);
    let mut rng = Rng::new(seed);
    let mut weighed: Vec<_> = all
        .drain(..)
        .map(|fault| {
            let weight = if fault.1.is_beside() { 6 } else { 1 };
            (rng.below(1000) * weight, fault)
        })
        .collect();
    weighed.sort_by_key(|(order, _)| *order);
    weighed.truncate(SAMPLE);
    all.extend(weighed.into_iter().map(|(_, fault)| fault));
}

/// One fault, and what came of it. False where the call was not reached.
fn fail(scene: &Scene, point: &Point, (fault, words): (&str, &str)) -> bool {
    let bench = Bench::new();
    let folder = bench.temp.path().canonicalize().unwrap();
    let path = folder.join(&point.path);
    let strace = [
        "-P".to_owned(),
        path.to_str().unwrap().to_owned(),
        "-e".into(),
        format!("trace={}", point.call),
        "-e".into(),
        format!("inject={}:{fault}:when={}", point.call, point.nth),
    ];
    let run = run(scene, &folder, &strace).unwrap();
    let hit = run.trace.contains("INJECTED") || run.code.is_none();
    let killed = fault == "signal=KILL";
    let context = format!("{}: {point:?} {fault}\n{}{}{}", scene.name, run.out, run.err, run.trace);
    assert!(!run.err.contains("panicked"), "P12: {context}");
    let mut acknowledged = BTreeMap::new();
    let mut refused = BTreeSet::new();
    let mut sent: Vec<&String> = scene.messages.iter().collect();
    if scene.args.iter().any(|arg| arg == "--stdin") {
        let mut dead = false;
        for (answer, message) in run.answers.iter().zip(&scene.messages) {
            if answer["durable"] == true {
                assert!(!dead, "P10: nothing is taken after a failure: {context}");
                acknowledged.insert(answer["seq"].as_u64().unwrap(), message);
                continue;
            }
            let not_written = text(answer, "outcome") == "not_written";
            assert!(not_written || text(answer, "outcome") == "unknown", "{context}");
            if not_written {
                refused.insert(message);
            }
            // A segment that could not be made is not in its place: the next event may fit into the old one.
            dead |= !(not_written && not_made(&text(answer, "error")));
        }
        if run.answers.is_empty() && !killed {
            refused.extend(&scene.messages); // it never started
        }
    } else if scene.args[0] == "append" {
        if let Some(answer) = run.answers.first() {
            acknowledged.insert(answer["seq"].as_u64().unwrap(), &scene.messages[0]);
        }
        if !killed {
            let done = run.code == Some(0);
            assert_eq!(done, !acknowledged.is_empty(), "P10: {context}");
            let last = run.err.lines().last().unwrap_or_default();
            let told = last.contains("outcome for this event: ");
            assert!(done || told, "P10: the last line tells the outcome: {context}");
            if last.ends_with(": not_written") {
                refused.insert(&scene.messages[0]);
            }
        }
    } else if scene.args[0] == "import" && run.code == Some(0) {
        let first = scene.known.len() as u64 + 1;
        acknowledged.extend((first..).zip(&scene.messages));
    } else if scene.args[0] != "import" {
        sent.clear();
    }

    if killed {
        assert!(run.code.is_none() || !hit, "{context}");
    } else {
        let wrong = run.code.is_none_or(|code| code != 0 && code != 1);
        assert!(!wrong, "exit {:?}: {context}", run.code);
        let done = run.code == Some(0);
        // SQLite has words of its own.
        let of_sqlite = ["disk I/O error", "disk is full", "unable to open", "readonly database"];
        let told = run.err.contains(words)
            || (point.is_view() && of_sqlite.iter().any(|words| run.err.contains(words)));
        assert!(done || told, "the error is told: {context}");
        let appends = scene.args[0] == "append" || scene.args[0] == "import";
        // The witness beside the log might speak of more events, so it must be readable.
        let is_witness = point.path == "store/tail" && point.call == "openat";
        if hit && appends && point.is_beside() && !is_witness {
            assert!(done, "P2: the view and what lies beside the log fail no append: {context}");
        }
        let final_close = acknowledged.len() == scene.messages.len();
        if hit && point.is_segment() && ["pwrite64", "sync_file_range", "fdatasync"].contains(&&*point.call) {
            assert!(!done || (scene.args[0] == "append" && final_close), "P10: {context}");
        }
        if done && appends {
            assert_eq!(acknowledged.len(), scene.messages.len(), "{context}");
        }
    }
    check(scene, &bench, &acknowledged, &refused, &sent, &context);
    hit
}

/// Whether a segment could not be made. Nothing of the log was touched then.
fn not_made(error: &str) -> bool {
    error.contains(".seg.new") || error.contains("rename into place")
}

/// The store afterwards, with a system that works.
fn check(
    scene: &Scene,
    bench: &Bench,
    acknowledged: &BTreeMap<u64, &String>,
    refused: &BTreeSet<&String>,
    sent: &[&String],
    context: &str,
) {
    // Opening alone mends log and view.
    bench.feed(&["append", "--stdin"], b"").expect(0);
    let opened = bench.run(&["verify"]);
    assert_eq!(opened.code, Some(0), "P5: {}{context}", opened.out);
    let after = bench.run(&cli_support::append_args("after"));
    assert_eq!(after.code, Some(0), "P5: {}{context}", after.err);
    let export = bench.run(&["export"]).expect(0).lines();
    let mut messages: Vec<_> = export.iter().map(|event| text(event, "log_message")).collect();
    assert_eq!(messages.pop().as_deref(), Some("after"), "{context}");
    assert!(messages.starts_with(&scene.known), "P3: {context}");
    for (seq, message) in acknowledged {
        assert_eq!(messages.get(*seq as usize - 1), Some(*message), "P3: seq {seq}: {context}");
    }
    let new = &messages[scene.known.len()..];
    let mut sent = sent.iter();
    for message in new {
        assert!(!refused.contains(message), "P4: {message:.20} was not written: {context}");
        assert!(sent.any(|sent| *sent == message), "P4: {message:.20} once, in order: {context}");
    }
    let verify = bench.run(&["verify"]);
    assert_eq!(verify.code, Some(0), "{}{context}", verify.out);
}

/// The database is spoiled, and nothing can take its place. That is one fault, however many events meet it.
#[test]
fn a_fault_that_lasts_is_told_when_it_begins_and_when_it_ends() {
    let bench = Bench::new();
    bench.append("before");
    let err = tempfile::NamedTempFile::new().unwrap();
    let mut command = bench.command(&["append", "--stdin"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(err.reopen().unwrap());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    let mut ask = |projected: bool| {
        stdin.write_all((line("m") + "\n").as_bytes()).unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((&answer["durable"], &answer["projected"]), (&true.into(), &projected.into()), "{answer}");
    };
    ask(true);
    // Where damaged databases are kept.
    let quarantine = bench.dir().join("quarantine");
    std::fs::write(&quarantine, "").unwrap();
    let spoiled = bench.temp.path().join("spoiled");
    std::fs::write(&spoiled, vec![7; 4096]).unwrap();
    std::fs::rename(&spoiled, bench.dir().join("synclog.db")).unwrap();
    (0..50).for_each(|_| ask(false));
    let told = std::fs::read_to_string(err.path()).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("do not follow the log"), "{told}");
    std::fs::remove_file(&quarantine).unwrap();
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let told = std::fs::read_to_string(err.path()).unwrap();
    assert_eq!(told.lines().filter(|line| line.contains("do not follow the log")).count(), 1, "{told}");
    assert_eq!(told.lines().filter(|line| line.contains("follow the log again")).count(), 1, "{told}");
}
