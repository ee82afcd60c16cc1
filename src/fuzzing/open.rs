//! Whole stores with a damaged log and a damaged database, on real files.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crate::disk;
use crate::log::segment::file_name;
use crate::{Company, Item, Level, Options, Reader, Severity, Store, SyncEvent};

use super::scratch;

/// The files of a small whole store: segments, database and `tail`, and the messages of its events.
struct Template {
    files: Vec<(String, Vec<u8>)>,
    messages: Vec<String>,
}

fn options() -> Options {
    Options::default().segment_bytes(16 * 1024, 16 * 1024).lock_wait(Duration::ZERO)
}

fn event(number: u64) -> SyncEvent {
    let company = Company::new("8f0c1d52", "4401", "Acme");
    SyncEvent::new(company, Level::Info, format!("event {number}")).with_details("d".repeat(300))
}

fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let dir = scratch();
        let store = Store::open(dir.path(), options()).unwrap_or_else(|error| panic!("{error}"));
        for number in 1..=20 {
            store.append(event(number)).unwrap_or_else(|error| panic!("{error}"));
        }
        store.close().unwrap_or_else(|error| panic!("{error}"));
        let names = (1..=2)
            .map(|number| format!("log/{}", file_name(number)))
            .chain(["synclog.db".into(), "tail".into()]);
        let read = |name: String| {
            let bytes = disk::read_small(&dir.path().join(&name), 1 << 24);
            (name, bytes.unwrap_or_else(|error| panic!("{error}")))
        };
        Template {
            files: names.map(read).collect(),
            messages: (1..=20).map(|n| format!("event {n}")).collect(),
        }
    })
}

/// A store whose files are changed as `data` says: the first byte chooses what happens to the
/// database and whether a file consists of nothing but `data`; then come changes of five bytes each.
pub fn open(data: &[u8]) {
    let Some((mode, changes)) = data.split_first() else { return };
    let template = template();
    let dir = scratch();
    let mut files = template.files.clone();
    let raw = mode & 3 == 3;
    if raw {
        let file = usize::from(mode >> 2) % files.len();
        files[file].1 = changes.to_vec();
    } else {
        for change in changes.chunks_exact(5) {
            let file = usize::from(change[0]) % files.len();
            let bytes = &mut files[file].1;
            let at = (usize::from(change[1]) | usize::from(change[2]) << 8) % bytes.len();
            match change[3] {
                0..=199 => bytes[at] ^= change[4],
                // From the frames' own bytes to other places.
                200..=229 => {
                    let from = at.saturating_sub(usize::from(change[4]) * 8);
                    let len = 64.min(bytes.len() - at);
                    bytes.copy_within(from..from + len, at);
                }
                230..=249 => {
                    let end = bytes.len().min(at / 512 * 512 + 512);
                    bytes[at / 512 * 512..end].fill(0);
                }
                _ => bytes.truncate(at),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
    }
    let without_database = mode & 3 == 1;
    // With both witnesses gone or spoiled, the loss of the newest events cannot be known.
    let spoiled = |file: usize| files[file] != template.files[file];
    let no_witness = (without_database || spoiled(2)) && spoiled(3);
    if disk::make_dirs(&dir.path().join("log")).is_err() {
        return;
    }
    for (name, bytes) in files {
        if without_database && name == "synclog.db" {
            continue;
        }
        if disk::replace_small(&dir.path().join(name), &bytes).is_err() {
            return;
        }
    }
    judge(dir.path(), &template.messages, no_witness);
}

/// Every event is there, unchanged and in order, or somebody says that something is wrong.
fn judge(dir: &Path, messages: &[String], no_witness: bool) {
    let mut named = no_witness;
    let summary = Reader::<SyncEvent>::verify(dir, false, |finding| {
        named |= finding.kind.severity() == Severity::LogDamaged;
    });
    named |= summary.is_err();
    if let Ok(reader) = Reader::<SyncEvent>::open(dir) {
        check_items(&reader, messages, named);
    }
    let Ok(store) = Store::<SyncEvent>::open(dir, options()) else { return };
    let report = store.open_report();
    // Opening may have healed; what it could not heal it must have refused.
    let told = !report.findings.is_empty() || named;
    let receipt = store.append(event(99)).unwrap_or_else(|error| panic!("{error}"));
    store.close().unwrap_or_else(|error| panic!("{error}"));
    let reader = Reader::<SyncEvent>::open(dir).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(reader.last_seq(), receipt.seq);
    check_items(&reader, messages, told);
}

fn check_items(reader: &Reader<SyncEvent>, messages: &[String], told: bool) {
    let Ok(items) = reader.items(1) else { return };
    let (mut found, mut last, mut damage) = (0, 0, false);
    for item in items {
        match item {
            Ok(Item::Event(stored)) => {
                assert!(stored.seq > last, "P4: order");
                last = stored.seq;
                let own = messages.get(stored.seq as usize - 1).map_or("event 99", String::as_str);
                assert!(
                    stored.event.message == own || stored.event.message == "event 99",
                    "P4: nothing is invented"
                );
                found += usize::from(stored.event.message != "event 99");
            }
            Ok(Item::Damage(_)) | Err(_) => damage = true,
            Ok(Item::Lost(_)) => panic!("P4: nobody gave anything up"),
            Ok(Item::Unknown(_)) => panic!("P4: an event of another kind"),
        }
    }
    assert!(found == messages.len() || damage || told, "P3: {found} events and no word of it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_left_alone_is_whole() {
        open(&[0]);
        open(&[1]);
        let messages = &template().messages;
        assert_eq!(messages.len(), 20);
    }

    /// A stand-in for the fuzzer where that cannot run: random changes from a fixed seed.
    #[test]
    fn random_changes_are_survived() {
        let mut rng = crate::proof::disk::Rng::new(77);
        for _ in 0..300 {
            let len = 1 + rng.below(40) as usize;
            let data: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
            open(&data);
        }
    }
}
