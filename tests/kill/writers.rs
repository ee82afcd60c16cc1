//! Those who are killed. Each tells the model what it sent and which answers came.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use synclog::{Options, Store, SyncEvent};

use super::cli_support::{Rng, program};
use super::model::{HEAVY, Lane, Model, event, line};

/// The environment variable that turns this test program into a writer.
pub(crate) const WRITER: &str = "SYNCLOG_KILL_WRITER";
const THREADS: u64 = 6;
/// Numbers that each thread of that writer may use.
const OF_A_THREAD: u64 = 4000;

/// When to kill: so many answers after the start, and then so long.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    answers: u64,
    then: Duration,
}

/// A moment to kill at: often while the store is being opened, and as often while it is written to,
/// however slow the machine is.
pub(crate) fn moment(rng: &mut Rng) -> Moment {
    let (answers, most) = match rng.below(8) {
        0 => (0, 6_000),
        1 | 2 => (0, 15_000),
        3 => (0, 60_000),
        4 => (1, 1_000),
        5 | 6 => (1 + rng.below(20), 4_000),
        _ => (1 + rng.below(200), 10_000),
    };
    Moment { answers, then: Duration::from_micros(rng.below(most)) }
}

/// Runs `synclog` on the store.
pub(crate) fn start(dir: &Path, args: &[&str], input: Stdio) -> Child {
    let mut command = program(args);
    command.env("SYNCLOG_DIR", dir).stdin(input).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Kills a child at a moment; `got` counts its answers.
fn kill(mut child: Child, moment: Moment, got: &AtomicU64) {
    let start = Instant::now();
    while got.load(Ordering::Relaxed) < moment.answers
        && start.elapsed() < Duration::from_secs(5)
        && child.try_wait().unwrap().is_none()
    {
        std::thread::sleep(Duration::from_micros(100));
    }
    std::thread::sleep(moment.then);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Kills one that gives no answers on the way.
fn kill_soon(child: Child, moment: Moment) {
    kill(child, Moment { answers: 0, ..moment }, &AtomicU64::new(0));
}

/// Whole lines of output that the child wrote before it was killed, and how many there are so far.
fn output(child: &mut Child) -> (JoinHandle<String>, Arc<AtomicU64>) {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let got = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&got);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        while stdout.read_line(&mut text).unwrap() > 0 {
            count.fetch_add(1, Ordering::Relaxed);
        }
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    });
    (reader, got)
}

fn answers(text: &str) -> impl Iterator<Item = Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
}

/// The seq of an answer, which is never one of failure.
fn seq(answer: &Value) -> u64 {
    assert_eq!(answer["durable"], true, "{answer}");
    answer["seq"].as_u64().unwrap()
}

/// `append --stdin`, whose client waits for each answer.
pub(crate) fn one_by_one(dir: &Path, model: &mut Model, rng: &mut Rng) {
    let first = model.fresh(1000);
    let mut child = start(dir, &["append", "--stdin"], Stdio::piped());
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let client = std::thread::spawn(move || {
        let mut got = Vec::new();
        for number in first..first + 1000 {
            let mut answer = String::new();
            let sent = stdin.write_all(line(number, false).as_bytes());
            if sent.is_err() || stdout.read_line(&mut answer).unwrap() == 0 || !answer.ends_with('\n') {
                return (number + 1, got);
            }
            got.push((seq(&serde_json::from_str(&answer).unwrap()), number));
            counted.fetch_add(1, Ordering::Relaxed);
        }
        (first + 1000, got)
    });
    kill(child, moment(rng), &count);
    let (end, got) = client.join().unwrap();
    model.sent(Lane::new(first, end, 1));
    got.into_iter().for_each(|(seq, number)| model.acknowledged(seq, number));
}

/// Sends these events down one pipe and kills the reader, unless `whole`. Returns the last answers.
fn pipe(dir: &Path, model: &mut Model, numbers: (u64, u64), key: bool, moment: Option<Moment>) {
    let (first, end) = numbers;
    let mut child = start(dir, &["append", "--stdin"], Stdio::piped());
    let mut stdin = child.stdin.take().unwrap();
    let (reader, got) = output(&mut child);
    let client = std::thread::spawn(move || {
        for number in first..end {
            if stdin.write_all(line(number, key).as_bytes()).is_err() {
                return number + 1;
            }
        }
        end
    });
    match moment {
        Some(moment) => kill(child, moment, &got),
        None => assert_eq!(child.wait().unwrap().code(), Some(0)),
    }
    let sent = client.join().unwrap();
    model.sent(Lane::new(first + model.arrived(first, end), sent, 1));
    let text = reader.join().unwrap();
    for (answer, number) in answers(&text).zip(first..) {
        assert_eq!(answer["line"], number - first + 1);
        model.acknowledged(seq(&answer), number);
    }
    assert!(moment.is_some() || text.lines().count() as u64 == end - first);
}

/// `append --stdin`, whose client sends as fast as it can.
pub(crate) fn pipelined(dir: &Path, model: &mut Model, rng: &mut Rng) {
    let heavy = rng.below(3) == 0;
    let count = if heavy { 20 + rng.below(60) } else { 50 + rng.below(400) };
    let first = model.fresh(count) + if heavy { HEAVY } else { 0 };
    pipe(dir, model, (first, first + count), false, Some(moment(rng)));
}

/// The same with idempotency keys. Returns what to send again.
pub(crate) fn keyed(dir: &Path, model: &mut Model, rng: &mut Rng) -> (u64, u64) {
    let count = 20 + rng.below(100);
    let first = model.fresh(count);
    pipe(dir, model, (first, first + count), true, Some(moment(rng)));
    (first, first + count)
}

/// Everything once more under the same keys: it must be there exactly once.
pub(crate) fn keyed_again(dir: &Path, model: &mut Model, numbers: (u64, u64)) {
    pipe(dir, model, numbers, true, None);
}

/// Several `append`, each killed at a moment of its own.
pub(crate) fn several(dir: &Path, model: &mut Model, rng: &mut Rng) {
    let running: Vec<_> = (0..=rng.below(4))
        .map(|_| {
            let number = model.fresh(1);
            let event = event(number);
            let status = event.status.map(|status| status.to_string());
            let records = event.records_synced.map(|records| records.to_string());
            let duration = event.duration_seconds.map(|seconds| seconds.to_string());
            let (level, time) = (event.level.to_string(), event.created_at.unwrap().to_string());
            let mut args = vec!["append", "--company-guid", &event.company.guid];
            args.extend(["--company-alterid", &event.company.alterid, "--level", &level]);
            args.extend(["--company-name", &event.company.name, "--message", &event.message]);
            args.extend(["--timestamp", &time]);
            let optional = [
                ("--details", event.details.as_ref()),
                ("--status", status.as_ref()),
                ("--records", records.as_ref()),
                ("--duration", duration.as_ref()),
            ];
            for (name, value) in optional {
                args.extend(value.into_iter().flat_map(|value| [name, value]));
            }
            // No argument holds a zero byte, and without --records it is 0.
            let fits = !args.iter().any(|arg| arg.contains('\0')) && event.records_synced.is_some();
            (fits.then(|| start(dir, &args, Stdio::null())), number, moment(rng))
        })
        .collect();
    for (child, number, moment) in running {
        let Some(mut child) = child else { continue };
        let (reader, _) = output(&mut child);
        kill_soon(child, moment);
        model.sent(Lane::new(number, number + 1, 1));
        for answer in answers(&reader.join().unwrap()) {
            model.acknowledged(seq(&answer), number);
        }
    }
}

/// An import. Returns its source, to be imported again.
pub(crate) fn import(dir: &Path, model: &mut Model, rng: &mut Rng) -> (u64, u64) {
    let count = 10 + rng.below(900);
    let first = model.fresh(count);
    let source = dir.with_extension("source");
    let lines: String = (first..first + count).map(|number| line(number, false)).collect();
    std::fs::write(&source, lines).unwrap();
    let child = start(dir, &["import", source.to_str().unwrap()], Stdio::null());
    kill_soon(child, moment(rng));
    model.sent(Lane::new(first, first + count, 256));
    (first, first + count)
}

/// The same import once more: what is missing comes, and nothing comes twice.
pub(crate) fn import_again(dir: &Path, model: &mut Model, (first, end): (u64, u64)) {
    let arrived = model.arrived(first, end);
    let source = dir.with_extension("source");
    let done = start(dir, &["import", source.to_str().unwrap()], Stdio::null()).wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (&report["already_present"], &report["imported"]),
        (&arrived.into(), &(end - first - arrived).into())
    );
    model.sent(Lane::new(first + arrived, end, 256));
    for (seq, number) in (model.known.len() as u64 + 1..).zip(first + arrived..end) {
        model.acknowledged(seq, number);
    }
}

/// Commands that append nothing of their own.
pub(crate) fn mender(dir: &Path, rng: &mut Rng) {
    let args: &[&str] = match rng.below(4) {
        0 => &["replay"],
        1 => &["append", "--stdin"],
        2 => &["repair"],
        _ => &["replay", "--rebuild"],
    };
    let child = start(dir, args, Stdio::null());
    kill_soon(child, moment(rng));
}

/// Many threads that append through the library, singly and in batches, into small segments.
pub(crate) fn threads(dir: &Path, model: &mut Model, rng: &mut Rng) {
    let first = model.fresh(THREADS * OF_A_THREAD);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_writer_that_is_killed", "--nocapture", "--test-threads=1"]);
    command.env(WRITER, format!("{first} {}", dir.display())).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (reader, got) = output(&mut child);
    kill(child, moment(rng), &got);
    for thread in 0..THREADS {
        let start = first + thread * OF_A_THREAD;
        model.sent(Lane::new(start, start + OF_A_THREAD, batch_of(thread)));
    }
    for line in reader.join().unwrap().lines() {
        // The first answer may follow on words of the test harness.
        let Some((_, answer)) = line.rsplit_once("acknowledged ") else { continue };
        let (seq, number) = answer.split_once(' ').unwrap();
        model.acknowledged(seq.parse().unwrap(), number.parse().unwrap());
    }
}

fn batch_of(thread: u64) -> u64 {
    [1, 1, 1, 4, 10, 100][thread as usize]
}

/// What [`threads`] runs in a process of its own, until it is killed.
pub(crate) fn append_until_killed(what: &str) {
    let (first, dir) = what.split_once(' ').unwrap();
    let first: u64 = first.parse().unwrap();
    let options = Options::default().segment_bytes(16 * 1024, 512 * 1024);
    let store = Store::<SyncEvent>::open(dir, options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let start = first + thread * OF_A_THREAD;
                let numbers: Vec<u64> = (start..start + OF_A_THREAD).collect();
                for batch in numbers.chunks(batch_of(thread) as usize) {
                    let receipts = store.append_all(batch.iter().copied().map(event)).unwrap();
                    for (receipt, number) in receipts.iter().zip(batch) {
                        println!("acknowledged {} {number}", receipt.seq);
                    }
                }
            });
        }
    });
}
