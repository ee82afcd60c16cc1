//! S12: space on disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::check;
use crate::contestant::Result;
use crate::events;
use crate::fixture::{self, Fixture};
use crate::report::{Figure, Goal, Row};

const MIB: f64 = 1024.0 * 1024.0;

/// Bytes that files have by their lengths, and bytes of the blocks that they take.
#[derive(Clone, Copy, Default)]
struct Space {
    lengths: u64,
    blocks: u64,
}

impl Space {
    fn add(&mut self, path: &Path) -> Result<()> {
        let metadata = std::fs::symlink_metadata(path)?;
        if metadata.is_dir() {
            self.blocks += metadata.blocks() * 512;
            for entry in std::fs::read_dir(path)? {
                self.add(&entry?.path())?;
            }
        } else {
            self.lengths += metadata.len();
            self.blocks += metadata.blocks() * 512;
        }
        Ok(())
    }
}

/// S12.
pub fn run(fixture: &Fixture, dir: &Path) -> Result<Row> {
    let mut payload = 0_u64;
    for number in 0..fixture.events {
        payload += events::payload(&events::event(number))?.len() as u64;
    }
    let mut log = Space::default();
    for path in check::segments(&fixture.store)? {
        log.add(&path)?;
    }
    let frames = check::frames(&fixture.store)?;
    let mut all = Space::default();
    all.add(&fixture.store)?;
    let dir = tempfile::Builder::new().prefix("small").tempdir_in(dir)?;
    fixture::fill_store(&dir.path().join("store"), 10)?;
    let mut small = Space::default();
    small.add(&dir.path().join("store"))?;

    let mut row = Row::new("S12", format!("space, {} events and 10 events", fixture.events));
    let figures = [
        ("payloads", payload),
        ("log, frames", frames.bytes),
        ("log, lengths", log.lengths),
        ("log, blocks", log.blocks),
        ("whole store, blocks", all.blocks),
        ("store of 10 events, lengths", small.lengths),
        ("store of 10 events, blocks", small.blocks),
    ];
    for (name, bytes) in figures {
        row.figures.push(Figure::new(name, "MiB", vec![bytes as f64 / MIB]));
    }
    let payload = [payload as f64];
    row.ratio("log frames / payloads", &[frames.bytes as f64], &payload, Goal::None);
    row.ratio("log lengths / payloads", &[log.lengths as f64], &payload, Goal::AtMost(1.3));
    row.ratio("log blocks / payloads", &[log.blocks as f64], &payload, Goal::AtMost(1.3));
    row.ratio("store of 10 events, lengths / 1 MiB", &[small.lengths as f64], &[MIB], Goal::AtMost(1.0));
    row.ratio("store of 10 events, blocks / 1 MiB", &[small.blocks as f64], &[MIB], Goal::AtMost(1.0));
    let average = payload[0] / fixture.events as f64;
    row.notes.push(format!("{average:.1} bytes of payload in an event"));
    Ok(row)
}
