//! What the tests of the command line share.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod trace;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Numbers that follow from a seed (splitmix64).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A number that the environment sets.
pub(crate) fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Nothing that works takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a store in the making, and the program to run on it.
pub(crate) struct Bench {
    pub(crate) temp: tempfile::TempDir,
}

/// How a run of the program ended.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { temp: tempfile::tempdir().unwrap() }
    }

    /// A store of so many events.
    pub(crate) fn filled(events: usize) -> Self {
        let bench = Self::new();
        bench.fill(events);
        bench
    }

    /// Appends the events of [`lines`].
    pub(crate) fn fill(&self, events: usize) {
        self.feed(&["append", "--stdin"], lines(events).as_bytes()).expect(0);
    }

    /// The directory of the store.
    pub(crate) fn dir(&self) -> PathBuf {
        self.temp.path().join("store")
    }

    /// The program, on this store.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = program(args);
        command.env("SYNCLOG_DIR", self.dir());
        command
    }

    /// Runs the program to its end, without input.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        done(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// Runs the program with this input.
    pub(crate) fn feed(&self, args: &[&str], input: &[u8]) -> Done {
        let mut command = self.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        done(output)
    }

    /// Appends one event and expects that to work.
    pub(crate) fn append(&self, message: &str) -> u64 {
        let done = self.run(&append_args(message));
        assert_eq!(done.code, Some(0), "{}", done.err);
        done.json()["seq"].as_u64().unwrap()
    }

    /// The messages of the log, in order.
    pub(crate) fn messages(&self) -> Vec<String> {
        let done = self.run(&["export"]);
        assert_eq!(done.code, Some(0), "{}", done.err);
        done.lines().iter().map(|line| text(line, "log_message")).collect()
    }

    pub(crate) fn segment_path(&self, number: u64) -> PathBuf {
        self.dir().join(format!("log/{number:020}.seg"))
    }

    /// Changes a byte of event `number` of [`lines`], which lies in this segment.
    pub(crate) fn damage(&self, segment: u64, number: u32) {
        let path = self.segment_path(segment);
        let mut bytes = std::fs::read(&path).unwrap();
        let start = format!("m{number} xxx");
        let at = bytes.windows(start.len()).position(|window| window == start.as_bytes()).unwrap();
        bytes[at + 20] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
    }

    pub(crate) fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.dir().join("synclog.db")).unwrap()
    }

    pub(crate) fn remove_database(&self) {
        for suffix in ["", "-wal", "-shm"] {
            // Not every one is there.
            let _ = std::fs::remove_file(self.dir().join(format!("synclog.db{suffix}")));
        }
    }

    /// The newest segment of the log.
    pub(crate) fn segment(&self) -> PathBuf {
        let names = std::fs::read_dir(self.dir().join("log")).unwrap();
        names.map(|entry| entry.unwrap().path()).max().unwrap()
    }

    /// The content of every file that a reader must not change.
    pub(crate) fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.dir(), &mut files);
        files
    }
}

fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, files);
        } else if !name.ends_with("-shm") && !name.ends_with("-wal") {
            // Of a link that leads nowhere there are no bytes.
            files.insert(path.clone(), std::fs::read(&path).unwrap_or_default());
        }
    }
}

impl Done {
    /// The lines of stdout as JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// The one line of stdout as JSON.
    pub(crate) fn json(&self) -> Value {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{}{}", self.out, self.err);
        lines.remove(0)
    }

    /// What the last line sums up.
    pub(crate) fn summary(&self) -> Value {
        self.lines().pop().unwrap()["summary"].take()
    }

    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }
}

pub(crate) fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synclog"));
    command.args(args).env_remove("SYNCLOG_DIR").env_remove("NO_COLOR");
    command
}

pub(crate) fn done(output: Output) -> Done {
    Done {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("{field} in {value}")).to_owned()
}

pub(crate) const COMPANY: [&str; 6] =
    ["--company-guid", "8f0c1d52", "--company-alterid", "102209.0", "--company-name", "Acme Traders"];

pub(crate) fn append_args(message: &str) -> Vec<&str> {
    let mut args = vec!["append"];
    args.extend(COMPANY);
    args.extend(["--message", message]);
    args
}

/// An input line of `append --stdin`.
pub(crate) fn line(message: &str) -> String {
    serde_json::json!({
        "company_guid": "8f0c1d52", "company_alterid": "102209.0", "company_name": "Acme Traders",
        "log_message": message,
    })
    .to_string()
}

/// Input lines of `append --stdin`, in frames large enough to hit: `m1 xxx…` and so on.
pub(crate) fn lines(count: usize) -> String {
    let lines: Vec<_> = (1..=count).map(|number| line(&format!("m{number} {}", "x".repeat(300)))).collect();
    lines.join("\n")
}

/// Copies a directory with everything in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

/// A file of the fixtures from an older system.
pub(crate) fn legacy(name: &str) -> String {
    format!("{}/tests/data/legacy/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A running program that is talked to line by line.
pub(crate) struct Talk {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    /// A line that came and was not asked for yet.
    early: RefCell<Option<String>>,
}

impl Talk {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = read_lines(child.stdout.take().unwrap());
        Self { stdin: child.stdin.take(), child, lines, early: RefCell::default() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// The next line of output, which must come soon.
    pub(crate) fn answer(&self) -> Value {
        let early = self.early.take();
        let line = early.unwrap_or_else(|| self.lines.recv_timeout(PATIENCE).expect("an answer in time"));
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"))
    }

    /// Whether a line has come that was not asked for yet.
    pub(crate) fn has_answer(&self) -> bool {
        let mut early = self.early.borrow_mut();
        if early.is_none() {
            *early = self.lines.try_recv().ok();
        }
        early.is_some()
    }

    /// Whatever is still to come, until the output ends.
    pub(crate) fn rest(&self) -> Vec<Value> {
        self.early
            .take()
            .into_iter()
            .chain(self.lines.iter())
            .map_while(|line| serde_json::from_str(&line).ok())
            .collect()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// The exit code; `None` where a signal ended it.
    pub(crate) fn end(&mut self) -> Option<i32> {
        drop(self.stdin.take());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
