//! The life of a store with SQLite: appends, closings, and whatever somebody does to the database in
//! between, against a plain list of events. Real files, in memory where that is possible.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::event::Event as _;
use crate::proof::disk::Rng;
use crate::{
    Company, Error, Filter, Level, Options, Reader, Status, Store, SyncEvent, SyncLog, SyncReader, Timestamp,
};

use super::scratch;

/// Operations of one script at most.
const LONGEST: usize = 10;

type Files = Vec<(PathBuf, Vec<u8>)>;

fn options() -> Options {
    Options::default()
        .segment_bytes(16 * 1024, 16 * 1024)
        .lock_wait(Duration::ZERO)
        .projection_wait(Duration::from_secs(20))
}

fn event(number: u64, rng: &mut Rng) -> SyncEvent {
    let company = Company::new(format!("guid {}", number % 3), "4401", "Acme\u{1b}[31m Traders");
    let time =
        Timestamp::from_micros(1_700_000_000_000_000 + number as i64 * 500_000).unwrap_or(Timestamp::MIN);
    let mut event =
        SyncEvent::new(company, Level::ALL[(number % 4) as usize], format!("event {number}")).at(time);
    match rng.below(6) {
        0 => event.status = Some(Status::ALL[(number % 4) as usize]),
        1 => event.details = Some("d\0".repeat(rng.below(12) as usize * 50)),
        2 => event.duration_seconds = Some(-0.0),
        3 => event.records_synced = None,
        4 => event.run = Some(format!("run {}", number % 2)),
        _ => event.legacy_id = Some(number as i64 % 5),
    }
    event
}

fn files_of(dir: &Path, into: &mut Files, below: &Path) {
    let Ok(entries) = fs::read_dir(dir.join(below)) else { return };
    for entry in entries.flatten() {
        let path = below.join(entry.file_name());
        if dir.join(&path).is_dir() {
            files_of(dir, into, &path);
        } else if let Ok(bytes) = fs::read(dir.join(&path)) {
            into.push((path, bytes));
        }
    }
}

struct Template {
    files: Files,
    events: Vec<(SyncEvent, Option<String>)>,
}

fn template() -> &'static Template {
    static MADE: OnceLock<Template> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = scratch();
        let mut life =
            Life { dir: dir.path().into(), store: None, events: Vec::new(), older: None, edited: false };
        life.open();
        let mut rng = Rng::new(3);
        for number in 0..9 {
            life.append(vec![(event(number, &mut rng), (number == 4).then(|| "key 4".to_owned()))]);
        }
        life.close();
        let mut files = Files::new();
        files_of(dir.path(), &mut files, Path::new(""));
        Template { files, events: life.events }
    })
}

struct Life {
    dir: PathBuf,
    store: Option<SyncLog>,
    events: Vec<(SyncEvent, Option<String>)>,
    /// An older copy of the database.
    older: Option<Vec<u8>>,
    /// Somebody has changed rows since the store was opened: keys are looked up in rows.
    edited: bool,
}

/// A script on a store with nine events, one choice a byte.
pub fn store(data: &[u8]) {
    let mut rng = Rng::from_tape(data);
    let template = template();
    let dir = scratch();
    drop(fs::create_dir(dir.path().join("log")));
    for (path, bytes) in &template.files {
        fs::write(dir.path().join(path), bytes).unwrap_or_else(|error| panic!("{error}"));
    }
    let mut life = Life {
        dir: dir.path().into(),
        store: None,
        events: template.events.clone(),
        older: None,
        edited: false,
    };
    life.older = fs::read(life.database()).ok();
    for _ in 0..LONGEST {
        if rng.is_spent() {
            break;
        }
        life.step(&mut rng);
    }
    life.close();
    life.settle(rng.chance(50));
}

impl Life {
    fn database(&self) -> PathBuf {
        self.dir.join("synclog.db")
    }

    fn open(&mut self) {
        if self.store.is_none() {
            let opened = SyncLog::open_with(&self.dir, options());
            let log = opened.unwrap_or_else(|error| panic!("P5, P7: {error}"));
            assert_eq!(log.store().last_seq(), self.events.len() as u64, "P1, P4");
            self.store = Some(log);
            self.edited = false;
        }
    }

    fn close(&mut self) {
        if let Some(log) = self.store.take() {
            log.close().unwrap_or_else(|error| panic!("{error}"));
        }
    }

    fn append(&mut self, events: Vec<(SyncEvent, Option<String>)>) {
        self.open();
        let Some(log) = &self.store else { return };
        let first = self.events.len() as u64 + 1;
        let mut patience = 500;
        let receipts = loop {
            let tickets = log.store().submit_keyed(events.clone());
            match tickets.and_then(crate::Ticket::wait) {
                Ok(receipts) => break receipts,
                // Somebody has spoiled the database; it is mended in a moment, without being asked.
                Err(Error::KeysUnavailable { .. }) if patience > 0 => patience -= 1,
                Err(error) => panic!("P1: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let seqs: Vec<u64> = receipts.iter().map(|receipt| receipt.seq).collect();
        assert_eq!(seqs, (first..first + events.len() as u64).collect::<Vec<_>>(), "P4");
        for (mut event, key) in events {
            // What an append makes canonical.
            event.prepare(Timestamp::MIN).unwrap_or_else(|error| panic!("{error}"));
            self.events.push((event, key));
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        let number = self.events.len() as u64;
        match rng.below(12) {
            0 | 1 => self.append(vec![(event(number, rng), None)]),
            2 => {
                let batch = (0..=rng.below(4)).map(|index| (event(number + index, rng), None)).collect();
                self.append(batch);
            }
            3 => self.append(vec![(event(number, rng), Some(format!("key {number}")))]),
            4 => self.repeat(rng),
            5 => {
                self.open();
                self.close();
            }
            6 | 7 => self.edit(rng),
            8 => {
                self.close();
                self.mangle(rng);
            }
            9 => {
                self.close();
                self.settle(rng.chance(50));
            }
            10 => {
                self.close();
                self.older = fs::read(self.database()).ok();
            }
            _ => {
                // The process dies: nothing is closed. What it had written stays.
                self.open();
                let mut files = Files::new();
                files_of(&self.dir, &mut files, Path::new(""));
                self.close();
                for (path, bytes) in files {
                    drop(fs::write(self.dir.join(path), bytes));
                }
            }
        }
    }

    /// An append under a key that is taken.
    fn repeat(&mut self, rng: &mut Rng) {
        if self.edited {
            self.close();
        }
        self.open();
        let Some(log) = &self.store else { return };
        let keyed: Vec<(usize, &(SyncEvent, Option<String>))> =
            self.events.iter().enumerate().filter(|(_, (_, key))| key.is_some()).collect();
        let (index, (event, key)) = keyed[rng.below(keyed.len() as u64) as usize];
        let key = key.as_deref().unwrap_or_default();
        match log.store().append_with_key(event.clone(), key) {
            Ok(receipt) => assert_eq!(receipt.seq, index as u64 + 1, "the same seq"),
            Err(Error::KeysUnavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let other = SyncEvent { message: "another one".into(), ..event.clone() };
        let refused = log.store().append_with_key(other, key);
        assert!(
            matches!(refused, Err(Error::KeyConflict { .. } | Error::KeysUnavailable { .. })),
            "{refused:?}"
        );
    }

    /// Somebody changes rows by hand, beside a writer or not.
    fn edit(&mut self, rng: &mut Rng) {
        let id = 1 + rng.below(self.events.len() as u64 + 1);
        let statements = [
            format!("DELETE FROM sync_logs WHERE id = {id}"),
            "DELETE FROM sync_logs".to_owned(),
            format!("UPDATE sync_logs SET log_message = 'changed' WHERE id = {id}"),
            format!("UPDATE sync_logs SET records_synced = 'x', created_at = 'never' WHERE id = {id}"),
            format!("UPDATE sync_logs SET id = id + 1000 WHERE id = {id}"),
            "UPDATE sync_logs SET id = -id WHERE id = 2".to_owned(),
            "DROP TABLE sync_logs".to_owned(),
            "DROP INDEX IF EXISTS sync_logs_time".to_owned(),
            "ALTER TABLE sync_logs ADD COLUMN more TEXT".to_owned(),
            "UPDATE synclog_meta SET value = value + 1".to_owned(),
            "DELETE FROM synclog_meta".to_owned(),
            format!("INSERT INTO synclog_absent VALUES ({id})"),
            "DROP TABLE synclog_set_aside".to_owned(),
            format!("INSERT INTO sync_logs SELECT * FROM sync_logs WHERE id = {id}"),
            "INSERT INTO sync_logs (id, company_guid, company_alterid, company_name, log_level, log_message, \
             created_at) VALUES (5000, 'g', 'a', 'n', 'INFO', 'm', '2025-01-01 00:00:00.000000')"
                .to_owned(),
            "CREATE TABLE theirs (a)".to_owned(),
            "PRAGMA user_version = 7; PRAGMA application_id = 9".to_owned(),
            "PRAGMA journal_mode = DELETE".to_owned(),
        ];
        self.edited = true;
        let Ok(db) = rusqlite::Connection::open(self.database()) else { return };
        drop(db.busy_timeout(Duration::from_secs(5)));
        // What does not fit this database is refused by it; that is no find.
        drop(db.execute_batch(&statements[rng.below(statements.len() as u64) as usize]));
    }

    /// Somebody changes the files of the database. Nobody has it open.
    fn mangle(&mut self, rng: &mut Rng) {
        let path = self.database();
        let beside = |suffix: &str| self.dir.join(format!("synclog.db{suffix}"));
        match rng.below(9) {
            0 => {
                for suffix in ["", "-wal", "-shm"] {
                    drop(fs::remove_file(beside(suffix)));
                }
            }
            1 => drop(fs::remove_file(path)),
            2 => drop(fs::write(path, b"")),
            3 => drop(fs::write(path, b"SQLite format 3\0 and nothing more")),
            4 => {
                if let Some(older) = &self.older {
                    drop(fs::write(path, older));
                }
            }
            5 => drop(fs::write(beside("-wal"), vec![rng.next() as u8; 5000])),
            6 => {
                drop(fs::remove_file(&path));
                drop(fs::create_dir(&path));
                drop(fs::remove_dir(&path));
            }
            7 => drop(fs::remove_file(self.dir.join("tail"))),
            _ => {
                let Ok(mut bytes) = fs::read(&path) else { return };
                if bytes.is_empty() {
                    return;
                }
                for _ in 0..=rng.below(4) {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 + rng.below(255) as u8;
                }
                drop(fs::write(path, bytes));
            }
        }
    }

    /// Replay, and then every row equals its event, whatever was done to the database (P7).
    fn settle(&mut self, rebuild: bool) {
        let done = Store::<SyncEvent>::replay(&self.dir, options(), rebuild);
        let (report, opened) = done.unwrap_or_else(|error| panic!("P7: {error}"));
        assert_eq!(opened.last_seq, self.events.len() as u64, "P1, P4");
        let mut findings = Vec::new();
        let summary = Reader::<SyncEvent>::verify(&self.dir, false, |finding| findings.push(finding));
        let summary = summary.unwrap_or_else(|error| panic!("P7: {error}"));
        assert!(summary.is_sound(), "P7: {findings:?} after {report:?}");
        assert_eq!((summary.events, summary.rows), (opened.last_seq, opened.last_seq), "P7");

        let reader = SyncReader::open(&self.dir).unwrap_or_else(|error| panic!("{error}"));
        let mut rows = reader.list(&Filter::new()).unwrap_or_else(|error| panic!("P7: {error}"));
        rows.sort_by_key(|row| row.seq);
        assert_eq!(rows.len(), self.events.len(), "P7");
        for ((row, (event, key)), seq) in rows.iter().zip(&self.events).zip(1..) {
            assert_eq!((row.seq, &row.event, &row.key), (seq, event, key), "P4, P7");
        }
        // Counting is listing.
        let level = Filter::new().level(Level::Error);
        let counted = reader.count(&level).unwrap_or_else(|error| panic!("{error}"));
        let wanted =
            self.events.iter().zip(1..).filter(|((event, _), seq)| level.matches(*seq, event)).count();
        assert_eq!(counted, wanted as u64);
    }
}
