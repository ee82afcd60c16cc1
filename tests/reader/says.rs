//! What each reader says about a store, in one form.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use synclog::{Error, Finding, FindingKind, Item, Reader, Severity};

use super::Raw;

/// An event as both can show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub seq: u64,
    /// Append time, key, length and CRC-32 of the content; `None` where the reader does not know the
    /// version, or the payload is too short.
    pub known: Option<(i64, Option<String>, u64, u32)>,
}

/// What a reader says about a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Says {
    pub events: Vec<Seen>,
    pub damaged: bool,
    /// What the library's verify says, and whether it is less than what its reader says.
    pub verified: bool,
    pub verify_missed: bool,
    /// The seqs that are said to be lost.
    pub missing: BTreeSet<u64>,
    pub verdict: String,
    /// Events behind or around damage at the log's end that nothing proves.
    pub unproved: BTreeSet<u64>,
    pub end_named: bool,
    /// Events that were given up, by gaps.
    pub lost: Vec<(u64, u64)>,
    pub deleted: BTreeSet<u64>,
    /// A frame without an event is damaged at the end, and nothing follows.
    pub eventless_end: bool,
    pub last_seq: u64,
    /// Nothing is damaged but that there are bytes in a segment that has no frame and is not the last.
    pub stray_without_frames: bool,
    /// The last segment cannot be read at all.
    pub end_refused: bool,
    /// All it said, for whoever reads a failure.
    pub words: Vec<String>,
}

/// Whatever has a range of seqs, cut where nobody counts.
fn seqs(first: u64, last: u64) -> impl Iterator<Item = u64> {
    first..=last.min(first + 100_000)
}

/// What the library says.
pub fn rust(dir: &Path) -> Says {
    let mut says = Says { verdict: "clean end".into(), ..Says::default() };
    let reader = match Reader::<Raw<1>>::open(dir) {
        Ok(reader) => reader,
        Err(error) => {
            says.damaged = true;
            says.verdict = "refuse".into();
            says.words.push(format!("{error:?}"));
            if let Error::Damaged { findings, .. } = error {
                findings.iter().for_each(|finding| note(&mut says, finding, dir));
            }
            return says;
        }
    };
    for finding in reader.findings() {
        note(&mut says, finding, dir);
    }
    for item in reader.items(1).unwrap() {
        match item {
            Ok(Item::Event(stored)) => says.events.push(Seen {
                seq: stored.seq,
                known: Some((
                    stored.appended_at.as_micros(),
                    stored.key,
                    stored.event.0.len() as u64,
                    crc32fast::hash(&stored.event.0),
                )),
            }),
            Ok(Item::Unknown(finding)) => says.events.push(Seen { seq: finding.seq.unwrap(), known: None }),
            Ok(Item::Lost(finding)) => {
                says.lost.push((finding.seq.unwrap(), finding.last_seq.or(finding.seq).unwrap()));
            }
            Ok(Item::Damage(finding)) => note(&mut says, &finding, dir),
            Ok(_) => {}
            Err(error) => {
                says.damaged = true;
                says.words.push(format!("stopped: {error:?}"));
            }
        }
    }
    let summary = Reader::<Raw<1>>::verify(dir, true, |_| {});
    says.verified = summary.is_ok_and(|summary| summary.log_damaged == 0);
    says.verify_missed = says.damaged && says.verified;
    says.damaged |= !says.verified; // what takes no event away, verify alone tells
    says
}

fn note(says: &mut Says, finding: &Finding, dir: &Path) {
    says.words.push(finding.to_string());
    let last_file = || super::damage::segments(dir).pop();
    match finding.kind {
        FindingKind::TornTail if says.verdict != "refuse" => says.verdict = "torn tail".into(),
        FindingKind::DamagedFiller if says.verdict != "refuse" => says.verdict = "damaged filler".into(),
        FindingKind::MissingSegment | FindingKind::BadSegment => says.verdict = "refuse".into(),
        FindingKind::DamagedFrame | FindingKind::MissingEvents | FindingKind::AppliedBeyondLog
            if says.verdict != "refuse" && finding.file == last_file() =>
        {
            says.verdict = "corruption".into();
        }
        _ => {}
    }
    if finding.kind.severity() == Severity::LogDamaged {
        says.damaged = true;
        if let Some(first) = finding.seq {
            says.missing.extend(seqs(first, finding.last_seq.unwrap_or(first)));
        }
    }
}

/// What the second reader prints about these stores; `None` where there is no python3.
pub fn lines(options: &[&str], dirs: &[PathBuf]) -> Option<Vec<Value>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reader/read_log.py");
    let mut child = Command::new("python3")
        .arg(script)
        .args(options)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let list: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    let feeder = std::thread::spawn(move || stdin.write_all(list.join("\n").as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success(), "the second reader must never fail (P12)");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// What the second reader says about each store; `None` where there is no python3.
pub fn python(dirs: &[PathBuf]) -> Option<Vec<Says>> {
    let mut all: Vec<Says> = Vec::new();
    let mut last_file = None;
    for value in lines(&[], dirs)? {
        if value.get("store").is_some() {
            let path = super::damage::segments(&dirs[all.len()]).pop();
            last_file = path.map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
            all.push(Says::default());
        } else {
            take(all.last_mut().unwrap(), &value, last_file.as_deref());
        }
    }
    assert_eq!(all.len(), dirs.len());
    Some(all)
}

/// A line as `events.txt` beside a golden log has it.
pub fn as_golden(value: &Value) -> Option<String> {
    if let Some(seq) = value.get("event") {
        let [kind, version, flags, time] = ["type", "version", "flags", "time"].map(|name| &value[name]);
        let payload = value["payload"].as_str().unwrap();
        Some(format!("event {seq} type {kind} version {version} flags {flags} time {time} payload {payload}"))
    } else if let Some(seq) = value.get("deleted") {
        Some(format!("erased {seq}"))
    } else if let Some(gap) = value.get("gap") {
        Some(format!("lost {} to {}, given up at {}", gap[0], gap[1], value["when"]))
    } else {
        let stretches = value.get("deletion_record")?.as_array().unwrap();
        let stretches: Vec<_> =
            stretches.iter().map(|s| (s[0].as_u64().unwrap(), s[1].as_u64().unwrap())).collect();
        Some(format!("deletion {stretches:?}"))
    }
}

fn take(says: &mut Says, value: &Value, last_file: Option<&str>) {
    if let Some(seq) = value.get("event") {
        if value["unproved"] == true {
            says.unproved.insert(seq.as_u64().unwrap());
        }
        let content = value.get("content").filter(|_| value["version"] == 1);
        let known = content.map(|content| {
            let key = value.get("key").map(|key| key.as_str().unwrap().to_owned());
            let length = content["length"].as_u64().unwrap();
            (value["time"].as_i64().unwrap(), key, length, content["crc32"].as_u64().unwrap() as u32)
        });
        says.events.push(Seen { seq: seq.as_u64().unwrap(), known });
        return;
    }
    if value.get("damage").is_some() {
        let stray = value["damage"] == "bytes behind the last frame" && value["offset"] == 8192;
        says.stray_without_frames = stray && (says.stray_without_frames || !says.damaged);
        says.damaged = true;
        let eventless = ["damaged mark", "damaged deletion record", "damaged gap"];
        says.eventless_end |=
            eventless.iter().any(|kind| value["damage"] == *kind) && value["unproved"] == true;
        let refused = value["damage"].as_str().unwrap().starts_with("bad segment");
        says.end_refused |= refused && value["file"].as_str() == last_file;
        if let Some(first) = value["first"].as_u64() {
            let mut lost = seqs(first, value["last"].as_u64().unwrap_or(first));
            if value["unproved"] == true {
                // The library names the first event that nothing proves, and not the others.
                if !says.end_named {
                    says.end_named = true;
                    says.missing.extend(lost.next());
                }
                says.unproved.extend(lost);
            } else {
                says.missing.extend(lost);
            }
        }
    } else if let Some(gap) = value["gap"].as_array() {
        let (first, last) = (gap[0].as_u64().unwrap(), gap[1].as_u64().unwrap());
        if value["unproved"] == true {
            says.unproved.extend(seqs(first, last));
        } else {
            says.lost.push((first, last));
        }
    } else if let Some(seq) = value["deleted"].as_u64() {
        says.deleted.insert(seq);
    } else if let Some(summary) = value.get("summary") {
        says.last_seq = summary["last_seq"].as_u64().unwrap();
        says.damaged = summary["damaged"].as_bool().unwrap();
        says.verdict = summary["verdict"].as_str().unwrap().into();
    }
    says.words.push(value.to_string());
}

/// Where the library and the second reader differ, in words; empty where they agree. `forged`: a segment's
/// header is not as any writer makes it, and the format does not say what follows from that.
pub fn differences(rust: &Says, python: &Says, forged: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, rust: &dyn Debug, python: &dyn Debug| {
        let (rust, python) = (format!("{rust:?}"), format!("{python:?}"));
        if rust != python {
            found.push(format!("{what}: library {rust}, second reader {python}"));
        }
    };
    let (rust_said, python_all) = (rust, python);
    let (rust, python) = (&as_the_format_has_it(rust, python), &without_unproved(python));
    if !forged {
        compare("damaged", &rust.damaged, &python.damaged);
        compare("verify missed damage", &rust_said.verify_missed, &false);
    }
    let newer = |says: &Says| says.words.iter().any(|word| word.to_lowercase().contains("newer"));
    compare("newer format", &newer(rust), &newer(python));
    if newer(rust) {
        // The library then reads nothing at all; the second reader, the segments of its own format.
    } else if forged || python.end_refused {
        let only = rust.events.iter().find(|seen| !python_all.events.contains(seen));
        compare("only the library shows", &only, &None::<Seen>);
    } else {
        compare("given up", &rust.lost, &python.lost);
        compare("missing", &rust.missing, &python.missing);
        compare("verdict", &rust.verdict, &python.verdict);
        let seqs = |says: &Says| says.events.iter().map(|seen| seen.seq).collect::<Vec<_>>();
        compare("seqs", &seqs(rust), &seqs(python));
        let first = rust.events.iter().zip(&python.events).find(|(rust, python)| rust != python);
        if let Some((rust, python)) = first {
            compare("an event", rust, python);
        }
    }
    found
}

/// The second reader shows events behind damage that nothing vouches for; the library leaves them out.
fn without_unproved(python: &Says) -> Says {
    let mut says = python.clone();
    says.events.retain(|seen| !python.unproved.contains(&seen.seq));
    says
}

/// What the library says, put right where it is known to say less, or something else, than the format.
fn as_the_format_has_it(rust: &Says, python: &Says) -> Says {
    let mut says = rust.clone();
    // It names the first event at a damaged end that nothing proves, and others only in part.
    says.missing.retain(|seq| !python.unproved.contains(seq));
    // It takes a damaged frame without an event at the log's end for an event.
    if python.eventless_end {
        let next = python.last_seq + 1;
        says.missing.retain(|&seq| seq != next || python.missing.contains(&seq));
    }
    // It gives out events that a deletion record further on covers, while their bodies are there.
    says.events.retain(|seen| !python.deleted.contains(&seen.seq));
    // It does not tell of stray bytes in a segment that has no frame and is not the last.
    says.damaged |= python.stray_without_frames;
    // It gives out keys of other lengths than the format has.
    for seen in &mut says.events {
        if matches!(&seen.known, Some((_, Some(key), ..)) if !(1..=255).contains(&key.len())) {
            seen.known = None;
        }
    }
    says
}
