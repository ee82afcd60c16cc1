//! A file system that is full, and one that is read-only: appends are refused and say so (P10), reads go
//! on (P11), closing needs no space, and nothing acknowledged is lost (P3).
//!
//! The tests mount a small tmpfs in a namespace of their own, in which they run themselves again.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cli_support::{COMPANY, Done, append_args, done, line, program, text};

/// Set where a test runs inside: the directory of the mounted file system.
const INSIDE: &str = "SYNCLOG_FULL_INSIDE";

/// Runs the test of this name again in a namespace with a tmpfs of 3 MiB; `None` inside.
fn outside(test: &str) -> Option<()> {
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let mount = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=3m none "$1" || exit 99
        exec "$2" --exact "$3" --nocapture --test-threads=1"#;
    for options in [&["-m"][..], &["-Urm"]] {
        let run = Command::new("unshare")
            .args(options)
            .args(["sh", "-c", script, "sh"])
            .arg(mount.path())
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env(INSIDE, mount.path())
            .output();
        let Ok(run) = run else { continue };
        let said =
            format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        if said.contains("running 1 test") {
            assert!(run.status.success(), "{said}");
            return Some(());
        }
    }
    println!("NOT EXERCISED: no file system can be mounted in a namespace of its own here");
    Some(())
}

/// The mounted file system, and the store on it.
struct Disk {
    root: PathBuf,
    /// By seq.
    acknowledged: BTreeMap<u64, String>,
}

impl Disk {
    fn new() -> Self {
        Self { root: std::env::var_os(INSIDE).unwrap().into(), acknowledged: BTreeMap::new() }
    }

    fn dir(&self) -> PathBuf {
        self.root.join("store")
    }

    fn run(&self, args: &[&str]) -> Done {
        let mut command = program(args);
        done(command.env("SYNCLOG_DIR", self.dir()).stdin(Stdio::null()).output().unwrap())
    }

    /// Takes all space that is left.
    fn fill(&self) {
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(self.root.join("filler")).unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.root.join("filler")).unwrap();
    }

    /// `append --stdin` with these messages; keeps what is acknowledged, returns what is refused.
    fn feed(&mut self, messages: &[String]) -> (Done, Vec<String>) {
        let mut command = program(&["append", "--stdin"]);
        command.env("SYNCLOG_DIR", self.dir()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let lines: String = messages.iter().map(|message| line(message) + "\n").collect();
        let writer = std::thread::spawn(move || drop(stdin.write_all(lines.as_bytes())));
        let done = done(child.wait_with_output().unwrap());
        writer.join().unwrap();
        let mut refused = Vec::new();
        for (answer, message) in done.lines().iter().zip(messages) {
            if answer["durable"] == true {
                self.acknowledged.insert(answer["seq"].as_u64().unwrap(), message.clone());
            } else {
                assert_eq!(text(answer, "outcome"), "not_written", "P10: {answer}");
                assert!(text(answer, "error").contains("No space left on device"), "{answer}");
                refused.push(message.clone());
            }
        }
        (done, refused)
    }

    /// What is acknowledged is there, and nothing else.
    fn check_log(&self) {
        let export = self.run(&["export"]).expect(0).lines();
        let found: Vec<_> = export.iter().map(|event| text(event, "log_message")).collect();
        assert!(found.iter().eq(self.acknowledged.values()), "P3, P4: {} events", found.len());
    }

    /// Every command that reads. `verify` may tell that rows are missing.
    fn check_reads(&self, verified: &[i32]) {
        let last = self.acknowledged.len() as u64;
        self.check_log();
        self.run(&["verify", "--log-only"]).expect(0);
        let verify = self.run(&["verify"]);
        // Without a byte left SQLite may find no room for its `-shm` beside a `-wal`: then verify says that it
        // could not look at the rows.
        let unread = verified.contains(&3) && verify.code == Some(1) && verify.err.contains("disk I/O error");
        assert!(unread || verified.contains(&verify.code.unwrap()), "{}{}", verify.out, verify.err);
        let status = self.run(&["status"]);
        assert!(verified.contains(&status.code.unwrap()), "{}{}", status.out, status.err);
        assert_eq!(status.json()["last_seq"], last);
        let tail = self.run(&["tail", "-n", "3"]).expect(0).lines();
        assert_eq!(tail.last().unwrap()["seq"], last);
        let list = self.run(&["list", "-n", "3"]);
        assert!(verified.contains(&list.code.unwrap()), "{}{}", list.out, list.err);
        assert!(list.code != Some(0) || list.lines().len() == 3);
    }
}

fn bytes(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(bytes(&path));
        } else {
            files.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    files
}

#[test]
fn a_full_disk_refuses_appends_and_keeps_reads() {
    if outside("a_full_disk_refuses_appends_and_keeps_reads").is_some() {
        return;
    }
    let mut disk = Disk::new();
    let messages = |round: u32| -> Vec<String> {
        (0..300).map(|number| format!("m{round}.{number} {}", "x".repeat(12_000))).collect()
    };
    // The disk fills up while one process appends; small events may still fit where large ones do not.
    let (full, refused) = disk.feed(&messages(0));
    assert_eq!(full.code, Some(1), "{}", full.err);
    assert!(!refused.is_empty() && disk.acknowledged.len() > 40, "{} were taken", disk.acknowledged.len());
    assert!(full.err.contains("No space left on device"));
    disk.check_reads(&[0, 3]);
    // Not one byte is left. Each append is refused, or fits into the segment that is there.
    disk.fill();
    disk.check_reads(&[0, 3]);
    let mut args = vec!["append"];
    args.extend(COMPANY);
    let long = "y".repeat(30_000);
    args.extend(["--message", "too long to fit", "--details"]);
    let mut large = args.clone();
    large.push(&long);
    for _ in 0..2 {
        let before = bytes(&disk.dir().join("log"));
        let refused = disk.run(&large);
        if refused.code == Some(0) {
            disk.acknowledged.insert(refused.json()["seq"].as_u64().unwrap(), "too long to fit".into());
            continue;
        }
        refused.expect(1);
        assert_eq!(bytes(&disk.dir().join("log")), before, "P10: not a byte of the log was written");
    }
    let (done, refused) = disk.feed(&messages(1));
    assert_eq!((done.code, refused.is_empty()), (Some(1), false), "{}", done.err);
    disk.check_reads(&[0, 3]);
    for args in [&["replay", "--rebuild"][..], &["replay"]] {
        let replay = disk.run(args);
        assert!([0, 1].contains(&replay.code.unwrap()), "{}", replay.err);
        disk.check_reads(&[0, 3]);
    }
    // With space again everything goes on, and the rows are whole.
    let small: Vec<String> = (0..20).map(|number| format!("small {number}")).collect();
    std::fs::remove_file(disk.root.join("filler")).unwrap();
    mount(&["-o", "remount,size=16m", disk.root.to_str().unwrap()]);
    let (done, refused) = disk.feed(&small);
    assert_eq!((done.code, refused.len()), (Some(0), 0), "{}", done.err);
    disk.check_reads(&[0]);
    println!("{} events", disk.acknowledged.len());
}

#[test]
fn without_room_for_quarantine_recovery_touches_nothing() {
    if outside("without_room_for_quarantine_recovery_touches_nothing").is_some() {
        return;
    }
    let mut disk = Disk::new();
    disk.feed(&["a".into(), "b".into()]);
    let segment = disk.dir().join("log/00000000000000000001.seg");
    let before = std::fs::read(&segment).unwrap();
    disk.run(&append_args(&"torn ".repeat(800))).expect(0);
    let mut torn = std::fs::read(&segment).unwrap();
    let start = before.iter().zip(&torn).position(|(old, new)| old != new).unwrap();
    torn[start + 1024..].fill(0);
    std::fs::write(&segment, &torn).unwrap();
    // Neither witness has seen the append.
    for name in ["synclog.db", "tail"] {
        std::fs::remove_file(disk.dir().join(name)).unwrap();
    }
    disk.fill();
    let untouched = bytes(&disk.dir().join("log"));
    for args in [&append_args("c")[..], &["replay"], &["repair"], &["append", "--stdin"]] {
        let refused = disk.run(args).expect(1);
        assert!(refused.err.contains("No space left on device"), "{args:?}: {}", refused.err);
        assert!(refused.err.contains("quarantine"), "{args:?}: {}", refused.err);
        assert_eq!(bytes(&disk.dir().join("log")), untouched, "{args:?}");
    }
    disk.check_log();
    disk.run(&["verify", "--log-only"]).expect(0);
    disk.free();
    disk.run(&append_args("c")).expect(0);
    disk.acknowledged.insert(3, "c".into());
    disk.check_reads(&[0]);
}

fn mount(args: &[&str]) {
    assert!(Command::new("mount").args(args).status().unwrap().success(), "{args:?}");
}

#[test]
fn reads_work_on_a_read_only_file_system() {
    if outside("reads_work_on_a_read_only_file_system").is_some() {
        return;
    }
    let mut disk = Disk::new();
    let root = disk.root.to_str().unwrap().to_owned();
    disk.feed(&(1..=20).map(|number| format!("m{number}")).collect::<Vec<_>>());
    let check = |disk: &mut Disk, rows: &[i32]| {
        mount(&["-o", "remount,ro", &root]);
        let before = bytes(&disk.dir());
        disk.check_reads(rows);
        disk.run(&["list", "--count"]).expect(0);
        disk.run(&["runs"]).expect(0);
        for args in [&append_args("refused")[..], &["replay"], &["repair"], &["append", "--stdin"]] {
            let refused = disk.run(args).expect(1);
            assert!(refused.err.contains("Read-only file system"), "{args:?}: {}", refused.err);
        }
        assert_eq!(bytes(&disk.dir()), before, "P11");
        mount(&["-o", "remount,rw", &root]);
    };
    check(&mut disk, &[0]);
    // As a kill leaves it: rows only in SQLite's own write-ahead log, no mark behind the last event.
    let mut command = program(&["append", "--stdin"]);
    let mut child =
        command.env("SYNCLOG_DIR", disk.dir()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut answers = std::io::BufReader::new(child.stdout.take().unwrap());
    for number in 21..=25 {
        let message = format!("m{number}");
        child.stdin.as_mut().unwrap().write_all((line(&message) + "\n").as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::BufRead::read_line(&mut answers, &mut answer).unwrap();
        disk.acknowledged.insert(number, message);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    check(&mut disk, &[0, 1]);
    disk.run(&append_args("and on")).expect(0);
}

/// Calls of a trace that use the database or what SQLite keeps beside it.
fn of_database(call: &cli_support::trace::Call) -> bool {
    // Whether the file is there is looked at by its name; that touches no byte of it.
    call.arguments.contains("/synclog.db") && !call.name.contains("stat")
}

#[test]
fn sqlite_is_left_alone_while_there_is_no_room() {
    if outside("sqlite_is_left_alone_while_there_is_no_room").is_some() {
        return;
    }
    let works = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("NOT EXERCISED: strace cannot be started, or may not trace here");
        return;
    }
    let disk = Disk::new();
    let (trace, err) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "200", "-e", "trace=file,desc,memory", "-o"]).arg(trace.path());
    strace.arg(env!("CARGO_BIN_EXE_synclog")).args(["append", "--stdin"]).env("SYNCLOG_DIR", disk.dir());
    let mut child =
        strace.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(err.reopen().unwrap()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut ask = |message: &str| -> serde_json::Value {
        stdin.write_all((line(message) + "\n").as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::BufRead::read_line(&mut answers, &mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer:?}"))
    };
    let large = "y".repeat(30_000);
    let mut asked = 0;
    let mut acknowledged = 0;
    loop {
        let answer = ask(&large);
        asked += 1;
        assert!(asked < 200, "the disk does not fill up");
        if answer["durable"] == true {
            acknowledged += 1;
            continue;
        }
        break;
    }
    disk.fill();
    // Refused like the one before, so that all who were at work meanwhile have met it.
    for _ in 0..5 {
        assert_eq!(text(&ask(&large), "outcome"), "not_written");
    }
    let first = ask("small, the first");
    // The segment that is there still takes small ones: they are durable and have no rows.
    let mut last = first.clone();
    for number in 0..30 {
        assert_eq!((&last["durable"], &last["projected"]), (&true.into(), &false.into()), "{last}");
        acknowledged += 1;
        last = ask(&format!("small {number}"));
    }
    acknowledged += 1;
    let untouched = (first["line"].as_u64().unwrap(), last["line"].as_u64().unwrap());
    // With room again rows follow by themselves.
    disk.free();
    mount(&["-o", "remount,size=16m", disk.root.to_str().unwrap()]);
    let start = std::time::Instant::now();
    while disk.run(&["list", "--count"]).lines().first().is_none_or(|count| count["count"] != acknowledged) {
        assert!(start.elapsed() < cli_support::PATIENCE, "rows do not follow");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    disk.run(&["verify"]).expect(0);
    let calls = cli_support::trace::calls(&std::fs::read_to_string(trace.path()).unwrap());
    let answer_to = |line: u64| {
        let wanted = format!("\\\"line\\\":{line},");
        calls.iter().position(|call| call.name == "write" && call.arguments.contains(&wanted)).unwrap()
    };
    let during = &calls[answer_to(untouched.0)..answer_to(untouched.1)];
    let touched: Vec<_> = during.iter().filter(|call| of_database(call)).collect();
    assert!(
        touched.is_empty(),
        "{} {} and {} more",
        touched[0].name,
        touched[0].arguments,
        touched.len() - 1
    );
    assert!(calls[..answer_to(untouched.0)].iter().any(of_database), "the trace shows it otherwise");
    // One fault is told once, not for each line and each attempt.
    let told = std::fs::read_to_string(err.path()).unwrap();
    assert!(told.matches("No space left on device").count() <= 2, "{told}");
    assert!(told.contains("rows follow the log again") && told.contains("events are taken again"), "{told}");
}
