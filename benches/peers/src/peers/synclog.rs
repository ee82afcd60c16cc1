//! synclog itself, through its public API. Twice: with its database, and with the database deleted before
//! the damage.

use std::ops::Range;
use std::path::Path;

use synclog::{
    Company, Error, Finding, Item, Level, Options, Outcome, Reader, Store, SyncEvent, SyncLog, Timestamp,
};

use crate::peer::{self, Found, Log, Peer, Result};
use crate::records;

pub struct Synclog {
    pub keeps_database: bool,
}

struct Open(SyncLog);

fn event(record: &[u8]) -> Result<SyncEvent> {
    let [guid, alterid, name, message, details] = records::fields(record).ok_or("no record")?;
    let time: Timestamp = "2026-04-01T06:30:00Z".parse()?;
    Ok(SyncEvent::new(Company::new(guid, alterid, name), Level::Info, message).with_details(details).at(time))
}

fn record(event: &SyncEvent) -> Vec<u8> {
    let company = &event.company;
    let details = event.details.as_deref().unwrap_or_default();
    [&company.guid, &company.alterid, &company.name, &event.message, details].join("|").into_bytes()
}

fn tell(found: &mut Found<'_>, when: &str, findings: &[Finding]) {
    found.told.extend(findings.iter().map(|finding| format!("{when}: {finding}")));
}

impl Log for Open {
    fn append(&mut self, batch: &[&[u8]]) -> Result<()> {
        let events = batch.iter().map(|record| event(record)).collect::<Result<Vec<_>>>()?;
        self.0.append_all(events).map_err(|error| -> peer::Failure {
            match error.outcome() {
                Outcome::NotWritten => format!("not written: {error}").into(),
                Outcome::Unknown => format!("outcome unknown: {error}").into(),
                Outcome::Durable => format!("durable: {error}").into(),
            }
        })?;
        Ok(())
    }
}

impl Peer for Synclog {
    fn id(&self) -> &'static str {
        if self.keeps_database { "synclog" } else { "synclog-no-db" }
    }

    fn title(&self) -> String {
        let setup = if self.keeps_database { "" } else { " (database deleted)" };
        format!("synclog {}{setup}", peer::version("synclog"))
    }

    fn means(&self) -> &'static str {
        "SyncLog::append_all()"
    }

    fn open(&self, dir: &Path) -> Result<Box<dyn Log>> {
        Ok(Box::new(Open(SyncLog::open(dir)?)))
    }

    /// Opens for writing, then reads; where either says that the log is damaged, runs `repair` and reads
    /// what there is.
    fn read(&self, dir: &Path, found: &mut Found<'_>) -> Result<()> {
        let damaged = match SyncLog::open(dir) {
            Ok(log) => {
                tell(found, "open", &log.store().open_report().findings);
                log.close()?;
                let summary = Reader::<SyncEvent>::verify(dir, false, |finding| {
                    found.told.push(format!("verify: {finding}"));
                })?;
                summary.log_damaged > 0
            }
            Err(Error::Damaged { findings, .. }) => {
                tell(found, "refused to append", &findings);
                true
            }
            Err(error) => return Err(error.into()),
        };
        found.opened = true;
        if damaged {
            let report = Store::<SyncEvent>::repair(dir, Options::default(), false, false)?;
            tell(found, "repair", &report.findings);
            tell(found, "lost", &report.lost);
        }
        for item in Reader::<SyncEvent>::open(dir)?.items(1)? {
            match item? {
                Item::Event(stored) => found.record(&record(&stored.event)),
                Item::Damage(finding) => tell(found, "reading", &[finding]),
                _ => {}
            }
        }
        Ok(())
    }

    fn data_files(&self) -> &'static str {
        ".seg"
    }

    fn before_damage(&self, dir: &Path) -> Result<()> {
        if !self.keeps_database {
            for name in ["synclog.db", "synclog.db-wal", "synclog.db-shm"] {
                if dir.join(name).exists() {
                    std::fs::remove_file(dir.join(name))?;
                }
            }
        }
        Ok(())
    }

    /// The message: the other fields are stored apart.
    fn needle<'r>(&self, record: &'r [u8]) -> &'r [u8] {
        records::fields(record).map_or(record, |fields| fields[3].as_bytes())
    }

    /// The frame's header: 48 bytes from `F1` to `1F`, at a multiple of 8.
    fn framing(&self, file: &[u8], before: usize, at: usize) -> Option<Range<usize>> {
        (before.next_multiple_of(8)..at.saturating_sub(48))
            .step_by(8)
            .find(|&start| file[start] == 0xF1 && file[start + 1] == 1 && file[start + 47] == 0x1F)
            .map(|start| start..start + 48)
    }

    fn framing_words(&self) -> &'static str {
        "the frame's header of 48 bytes"
    }
}
