//! The command line's fuzz target: arguments, lines and times as anybody may give them, and a check of
//! every byte that is written (P12).

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;

use clap::Parser;
use jiff::tz::TimeZone;
use synclog::{Company, ExportLine, ImportOptions, Level, StoreId, SyncEvent, SyncLog, Timestamp};

use super::args::Cli;
use super::exit::Stop;
use super::out::{Fields, Out, json_text};
use super::stdin_line::{self, Line};
use super::text::{cell, escape, escape_lines, is_unsafe};
use super::time;

const HISTORY: &str = include_str!("../../tests/data/legacy/sync_logs_backup.jsonl");

thread_local! {
    /// What went to stderr, while somebody listens.
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes what goes to stderr, if somebody listens.
pub(crate) fn overhear(text: &str) -> bool {
    HEARD.with_borrow_mut(|heard| match heard {
        Some(heard) => {
            heard.push_str(text);
            true
        }
        None => false,
    })
}

/// The first byte chooses what the others are.
pub(crate) fn command_line(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 8 {
        0 => arguments(rest),
        1..=3 => command(store(), rest),
        4 | 5 => lines(rest),
        6 => times(&String::from_utf8_lossy(rest)),
        _ => texts(&String::from_utf8_lossy(rest)),
    }
}

/// Arguments between zero bytes: taken, or refused with a message that is safe to show.
fn arguments(bytes: &[u8]) {
    let given = bytes.split(|byte| *byte == 0).map(os_text);
    if let Err(error) = Cli::try_parse_from(std::iter::once("synclog".into()).chain(given)) {
        assert_safe(&escape_lines(&error.render().to_string()));
    }
}

#[cfg(unix)]
fn os_text(bytes: &[u8]) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

#[cfg(not(unix))]
fn os_text(bytes: &[u8]) -> std::ffi::OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[track_caller]
fn assert_safe(text: &str) {
    let bad = text.chars().find(|letter| is_unsafe(*letter) && *letter != '\n');
    assert_eq!(bad, None, "P12: {text:?}");
}

/// A store with some real history and some hostile events. Commands here only read it.
fn store() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let above = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
        let above = above.into_iter().find(|dir| dir.is_dir()).unwrap_or_default();
        remove_orphans(&above);
        let dir = above.join(format!("{PREFIX}{}", std::process::id()));
        make(&dir);
        dir
    })
}

const PREFIX: &str = "synclog-fuzz-";

/// Nothing runs at the end of a fuzzer, so the next one cleans up.
fn remove_orphans(above: &Path) {
    for entry in std::fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| {
            Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists()
        }) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes the store for [`command`].
fn make(dir: &Path) {
    let log = SyncLog::open(dir).unwrap_or_else(|error| panic!("{error}"));
    let source = dir.join("source.jsonl");
    let some: String = HISTORY.lines().take(40).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&source, some).unwrap_or_else(|error| panic!("{error}"));
    log.import(&source, &ImportOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let _ = std::fs::remove_file(&source);
    for (number, text) in HOSTILE.iter().enumerate() {
        let company = Company::new(format!("g{text}"), *text, format!("{text}n"));
        let mut event =
            SyncEvent::new(company, Level::Error, format!("m{text}\u{7}")).with_error(*text, *text);
        event.run = Some(format!("{text}."));
        event.details = Some((*text).into());
        event.duration_seconds = [1e300, 0.5, -1.0].get(number).copied();
        event.records_synced = [i64::MIN, i64::MAX].get(number).copied();
        event.created_at = [Timestamp::MIN, Timestamp::MAX].get(number).copied();
        log.store().append_with_key(event, &format!("{text}k")).unwrap_or_else(|error| panic!("{error}"));
    }
    log.close().unwrap_or_else(|error| panic!("{error}"));
}

const HOSTILE: [&str; 8] = [
    "\u{1b}]0;title\u{7}",
    "\u{9b}2J",
    "\u{202e}txt.exe\r\n",
    "\0\t\u{7f}",
    "\u{feff}\u{200b}\u{2066}",
    "\"'\\,;<>&",
    "ß\u{130}İ Σ",
    "𝔘\u{fffb}\u{e000}",
];

/// A command that reads, with options of which the values come from `bytes`, between zero bytes; the
/// first byte of each says which option.
fn command(dir: &Path, bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let commands: [(&[&str], &[&str]); 8] = [
        (&["list"], &FILTERS),
        (&["list"], &FILTERS),
        (&["tail"], &["--number", "--after"]),
        (&["runs"], &["--state", "--older-than", "--company-guid", "--company-alterid"]),
        (&["status"], &[]),
        (&["verify"], &[]),
        (&["export"], &[]),
        (&["repair", "--dry-run"], &[]),
    ];
    let (words, options) = commands[usize::from(choice & 7)];
    let globals = ["--output=table", "--output=json", "--output=ndjson", "--color=always"];
    let mut given: Vec<std::ffi::OsString> = vec!["synclog".into(), "--dir".into(), dir.into()];
    given.extend(words.iter().map(Into::into));
    given.push(globals[usize::from(choice >> 3 & 3)].into());
    for piece in rest.split(|byte| *byte == 0) {
        let Some((choice, value)) = piece.split_first() else { continue };
        match choice % 16 {
            15 => given.push("--utc".into()),
            14 => given.push("--reverse".into()),
            13 => {
                let mut option = std::ffi::OsString::from("--tz=");
                option.push(os_text(value));
                given.push(option);
            }
            other if !options.is_empty() => {
                // With an equals sign no value is ever taken for another option.
                let mut option = std::ffi::OsString::from(options[usize::from(other) % options.len()]);
                option.push("=");
                option.push(os_text(value));
                given.push(option);
            }
            _ => {}
        }
    }
    let Some(shown) = run(&given) else { return };
    if words[0] == "list" {
        check_count(&given, &shown);
    }
}

const FILTERS: [&str; 12] = [
    "--grep",
    "--since",
    "--until",
    "--level",
    "--status",
    "--run",
    "--error-code",
    "--after",
    "--page",
    "--company-guid",
    "--company-alterid",
    "--number",
];

/// A sink that somebody can look into.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a command; what it wrote to stdout, unless the arguments were refused or it failed.
fn run(given: &[std::ffi::OsString]) -> Option<String> {
    let cli = match Cli::try_parse_from(given) {
        Ok(cli) => cli,
        Err(error) => {
            assert_safe(&escape_lines(&error.render().to_string()));
            return None;
        }
    };
    let sink = Sink::default();
    HEARD.set(Some(String::new()));
    let done = super::run_into(&cli, Out::to(Box::new(sink.clone())));
    if let Err(Stop::Failed(failure)) = &done {
        failure.tell();
    }
    assert_safe(&HEARD.take().unwrap_or_default());
    let written = String::from_utf8(sink.0.take()).unwrap_or_else(|error| panic!("P12: {error}"));
    // Our own colors are the only escape sequences.
    let plain = ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"]
        .into_iter()
        .fold(written.clone(), |text, color| text.replace(color, ""));
    assert_safe(&plain);
    done.is_ok().then_some(written)
}

fn given_output(given: &[std::ffi::OsString], output: &str) -> Vec<std::ffi::OsString> {
    let kept = given.iter().filter(|option| {
        let option = option.to_string_lossy();
        !option.starts_with("--output=") && !option.starts_with("--number=")
    });
    kept.cloned().chain([output.into()]).collect()
}

/// Counting is listing, and each form has the same rows.
fn check_count(given: &[std::ffi::OsString], shown: &str) {
    let mut all = given_output(given, "--output=ndjson");
    all.push("--all".into());
    let Some(rows) = run(&all) else { panic!("it was listed before") };
    for line in rows.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}"));
        assert!(row["id"].as_u64().is_some_and(|id| id > 0));
    }
    let mut count = given_output(given, "--output=ndjson");
    count.push("--count".into());
    let Some(counted) = run(&count) else { panic!("it was listed before") };
    let counted: serde_json::Value = serde_json::from_str(&counted).unwrap_or_else(|error| panic!("{error}"));
    // A time such as `24h` means another moment at each call; no row of the store is that young.
    assert_eq!(counted["count"].as_u64(), Some(rows.lines().count() as u64), "counting is listing");
    if given.iter().any(|option| option == "--output=json") {
        let array: Vec<serde_json::Value> =
            serde_json::from_str(shown).unwrap_or_else(|error| panic!("one array: {error}: {shown}"));
        assert!(array.len() <= rows.lines().count());
    }
}

/// Lines as `append --stdin` reads them: cut the same whatever the buffer, and taken or rejected.
fn lines(bytes: &[u8]) {
    let limit = 4096;
    let mut whole = io::BufReader::with_capacity(1 << 16, bytes);
    let mut pieces = io::BufReader::with_capacity(1 + bytes.len() % 7, bytes);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    loop {
        let line = stdin_line::next(&mut whole, &mut one, limit).unwrap_or_else(|error| panic!("{error}"));
        let again =
            stdin_line::next(&mut pieces, &mut other, limit).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(line, again);
        match line {
            Line::End => return,
            Line::TooLong => {}
            Line::Whole => {
                assert_eq!(one, other);
                assert!(one.len() <= limit && !one.contains(&b'\n'));
                event_line(&one);
            }
        }
    }
}

fn event_line(bytes: &[u8]) {
    let (event, key) = match stdin_line::parse(bytes, &TimeZone::UTC) {
        Ok(parsed) => parsed,
        Err(reason) => {
            assert!(reason.len() < 4096, "short");
            assert_safe(&json_text(&Fields::new().with("line", 1).with("rejected", reason)));
            return;
        }
    };
    // The same fields, written by us, are the same event.
    let time = event.created_at.map(|time| time.to_string());
    let fields = Fields::new()
        .with("company_guid", event.company.guid.as_str())
        .with("company_alterid", event.company.alterid.as_str())
        .with("company_name", event.company.name.as_str())
        .with("log_level", event.level.as_str())
        .with("log_message", event.message.as_str())
        .with("log_details", event.details.as_deref())
        .with("sync_status", event.status.map(synclog::Status::as_str))
        .with("records_synced", event.records_synced)
        .with("error_code", event.error_code.as_deref())
        .with("error_message", event.error_message.as_deref())
        .with("duration_seconds", event.duration_seconds)
        .with("timestamp", time)
        .with("run", event.run.as_deref())
        .with("key", key.as_deref());
    let text = json_text(&fields);
    assert_safe(&text);
    assert_safe(&fields.lines());
    match stdin_line::parse(text.as_bytes(), &TimeZone::UTC) {
        Ok(again) => assert_eq!(again, (event.clone(), key.clone()), "{text}"),
        Err(reason) => panic!("{reason}: {text}"),
    }
    let store: StoreId = "a5".repeat(16).parse().unwrap_or_else(|error| panic!("{error}"));
    assert_safe(&json_text(&ExportLine::new(1, store, &event, key.as_deref(), Timestamp::MIN)));
}

/// A zone and a time, with a zero byte between.
fn times(text: &str) {
    let (zone, text) = text.split_once('\0').unwrap_or(("UTC", text));
    let _ = time::duration(text);
    let zone = time::zone(zone).unwrap_or(TimeZone::UTC);
    let _ = time::instant(text, &zone);
    let Ok(read) = time::read(text, &zone) else { return };
    assert!((Timestamp::MIN..=Timestamp::MAX).contains(&read));
    assert_eq!(read.to_string().parse::<Timestamp>().ok(), Some(read), "its own form");
    let shown = time::show(read, &zone);
    assert_safe(&shown);
    let offset = zone.to_offset(jiff::Timestamp::from_second(read.whole_seconds()).unwrap_or_default());
    // Zones of long ago had odd seconds, which are not shown; and the first and the last days of the
    // calendar are shown in years that it does not have.
    let inside = read.saturating_add_micros(-86_400_000_000) > Timestamp::MIN
        && read.saturating_add_micros(86_400_000_000) < Timestamp::MAX;
    if offset.seconds() % 60 == 0 && inside {
        let again = time::read(&shown, &TimeZone::UTC).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(again.whole_seconds(), read.whole_seconds(), "{shown}");
        assert!(again.is_whole_second());
    }
}

/// Text that is shown: escaped, on one line, as wide as wanted; as JSON it reads back the same.
fn texts(text: &str) {
    let escaped = escape(text);
    assert_safe(&escaped);
    assert!(!escaped.contains('\n') && escape(&escaped) == escaped);
    assert_safe(&escape_lines(text));
    for width in [1, 5, 24] {
        let cell = cell(text, width);
        assert_safe(&cell);
        assert_eq!(cell.chars().count(), width);
    }
    let json = json_text(&text);
    assert_safe(&json);
    assert_eq!(serde_json::from_str::<String>(&json).ok().as_deref(), Some(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for the fuzzer where that cannot run: the committed seeds, and random bytes from a
    /// fixed seed, most of them characters that mean something somewhere.
    #[test]
    fn command_lines_of_any_bytes() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/import_cli");
        for entry in std::fs::read_dir(seeds).into_iter().flatten().flatten() {
            let data = std::fs::read(entry.path()).unwrap();
            if data.first().is_some_and(|choice| *choice >= 96) {
                command_line(&data[1..]);
            }
        }
        let letters = "\0\0\u{1b}\u{9b}\u{202e}{}[]\":,\\-=+0192.TZdhms \nnull\u{ff}é\u{130}/".as_bytes();
        let mut state = 77_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for _ in 0..1500 {
            let mut data: Vec<u8> = (0..2 + next() % 60).map(|_| letters[next() % letters.len()]).collect();
            data[0] = next() as u8;
            data[1] = next() as u8;
            command_line(&data);
        }
        let _ = std::fs::remove_dir_all(store());
    }
}
