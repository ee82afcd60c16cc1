//! tephra: an event store on segments of seglog, with a thread that writes.

use std::path::Path;

use tephra::{
    Event, EventType, Position, Query, SegmentConfig, SegmentSet, Tag, Tags, WriteCoordinator, WriteHandle,
    WriterConfig,
};

use crate::peer::{self, Found, Log, Peer, Result};

pub struct Tephra;

struct Open {
    _coordinator: WriteCoordinator,
    handle: WriteHandle,
}

fn open(dir: &Path) -> Result<Open> {
    let set = SegmentSet::open(dir, SegmentConfig::new(4 * 1024 * 1024))?;
    let config = WriterConfig { max_batch_bytes: 1024 * 1024, ..WriterConfig::default() };
    let (coordinator, handle) = WriteCoordinator::start(set, config)?;
    Ok(Open { _coordinator: coordinator, handle })
}

impl Log for Open {
    fn append(&mut self, batch: &[&[u8]]) -> Result<()> {
        let kind = EventType::new("SyncEvent")?;
        let tags = Tags::new([Tag::new("company:8f0c1d52")?])?;
        let events = batch
            .iter()
            .map(|record| Event::new(&kind, &tags, record))
            .collect::<Result<_, tephra::event::EncodeError>>()?;
        self.handle.append(events, None)?;
        Ok(())
    }
}

impl Peer for Tephra {
    fn id(&self) -> &'static str {
        "tephra"
    }

    fn title(&self) -> String {
        format!("tephra {}", peer::version("tephra"))
    }

    fn means(&self) -> &'static str {
        "WriteHandle::append()"
    }

    fn open(&self, dir: &Path) -> Result<Box<dyn Log>> {
        Ok(Box::new(open(dir)?))
    }

    fn read(&self, dir: &Path, found: &mut Found<'_>) -> Result<()> {
        let log = open(dir)?;
        found.opened = true;
        let mut reads = log.handle.read(&Query::all(), Position::ZERO, None);
        while let Some(item) = reads.next() {
            found.record(item?.event.data());
        }
        Ok(())
    }

    fn framing_words(&self) -> &'static str {
        "commit marker of the batch before; length, checksum, event header, type and tag of this one"
    }
}
