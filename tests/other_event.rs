//! A second, unrelated event type: the engine is generic.

mod common;

use common::number::{Number, ORDER, READINGS};
use common::{copy_dir, patient, snapshot};
use synclog::{
    Column, ColumnType, Error, Event, FindingKind, Index, Item, Options, Reader, Store, Table, Timestamp,
    Value,
};

/// A thermometer's reading. Version 1 had whole degrees only; version 2 has tenths and a place.
#[derive(Clone, Debug, PartialEq)]
struct Reading {
    place: String,
    tenths: i64,
}

impl Event for Reading {
    const KIND: u16 = 700;
    const VERSION: u16 = 2;
    const TABLE: Table = Table {
        name: "readings",
        columns: &[
            Column::required("place", ColumnType::Text),
            Column::required("celsius", ColumnType::Real),
        ],
        indexes: &[Index { name: "readings_place", columns: &["place", "id"] }],
    };

    fn prepare(&mut self, _now: Timestamp) -> Result<(), Error> {
        if self.place.is_empty() {
            return Err(Error::invalid("place", "is empty"));
        }
        Ok(())
    }

    fn encode(&self, version: u16) -> Result<Vec<u8>, Error> {
        match version {
            1 if self.place == "unknown" && self.tenths % 10 == 0 => {
                Ok((self.tenths / 10).to_le_bytes().to_vec())
            }
            2 => Ok([&self.tenths.to_le_bytes()[..], self.place.as_bytes()].concat()),
            _ => Err(Error::codec("has no such encoding")),
        }
    }

    fn decode(version: u16, payload: &[u8]) -> Result<Self, Error> {
        let (number, rest) = payload.split_first_chunk::<8>().ok_or_else(|| Error::codec("too short"))?;
        let number = i64::from_le_bytes(*number);
        match (version, rest) {
            (1, []) => Ok(Self { place: "unknown".into(), tenths: number.saturating_mul(10) }),
            (2, place) => {
                let place = std::str::from_utf8(place).map_err(|_| Error::codec("no UTF-8"))?;
                Ok(Self { place: place.into(), tenths: number })
            }
            _ => Err(Error::codec("trailing bytes")),
        }
    }

    fn to_row(&self) -> Vec<Value> {
        vec![Value::Text(self.place.clone()), Value::Real(self.tenths as f64 / 10.0)]
    }

    fn from_row(row: &[Value]) -> Result<Self, Error> {
        match row {
            [Value::Text(place), Value::Real(celsius)] => {
                Ok(Self { place: place.clone(), tenths: (celsius * 10.0).round() as i64 })
            }
            _ => Err(Error::codec("not a reading")),
        }
    }
}

/// The same events as an older program wrote them.
type OldReading = Number<700, READINGS>;

fn reading(place: &str, tenths: i64) -> Reading {
    Reading { place: place.into(), tenths }
}

#[test]
fn another_event_type_is_stored_projected_verified_and_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::<Reading>::open(dir.path(), Options::default()).unwrap();
    let receipt = store.append(reading("roof", 215)).unwrap();
    assert_eq!((receipt.seq, receipt.projected), (1, true));
    let batch = store.append_all([reading("cellar", 90), reading("roof", 216)]).unwrap();
    assert_eq!(batch.iter().map(|receipt| receipt.seq).collect::<Vec<_>>(), [2, 3]);
    assert!(matches!(store.append(reading("", 1)), Err(Error::Invalid { field, .. }) if field == "place"));
    store.close().unwrap();

    let database = dir.path().join("synclog.db");
    let db = rusqlite::Connection::open(&database).unwrap();
    let hottest: f64 = db.query_row("SELECT max(celsius) FROM readings", [], |row| row.get(0)).unwrap();
    assert!((hottest - 21.6).abs() < 1e-9);
    db.execute_batch("UPDATE readings SET celsius = 99 WHERE id = 1").unwrap();
    drop(db);
    let summary = Reader::<Reading>::verify(dir.path(), false, |_| {}).unwrap();
    assert_eq!((summary.events, summary.differences, summary.log_damaged), (3, 1, 0));
    let (report, _) = Store::<Reading>::replay(dir.path(), Options::default(), false).unwrap();
    assert_eq!(report.replaced + report.restored, 1);
    assert!(Reader::<Reading>::verify(dir.path(), false, |_| {}).unwrap().is_sound());

    std::fs::remove_file(&database).unwrap();
    let store = Store::<Reading>::open(dir.path(), patient()).unwrap();
    assert_eq!(store.open_report().replay.restored, 3);
    let items: Vec<_> = store.reader().unwrap().items(2).unwrap().map(Result::unwrap).collect();
    assert!(matches!(&items[..], [Item::Event(first), Item::Event(second)]
        if first.event == reading("cellar", 90) && second.seq == 3));
}

#[test]
fn events_of_an_older_version_are_upcast_and_newer_ones_are_kept_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let old = Store::<OldReading>::open(dir.path(), Options::default()).unwrap();
    old.append(Number(21)).unwrap();
    old.close().unwrap();
    let new = Store::<Reading>::open(dir.path(), patient()).unwrap();
    assert!(new.open_report().replay.rebuilt, "the table has another shape now");
    new.append(reading("roof", 215)).unwrap();
    new.close().unwrap();
    let items: Vec<_> =
        Reader::<Reading>::open(dir.path()).unwrap().items(1).unwrap().map(Result::unwrap).collect();
    assert!(matches!(&items[0], Item::Event(first) if first.event == reading("unknown", 210)));
    assert!(Reader::<Reading>::verify(dir.path(), false, |_| {}).unwrap().is_sound());

    // The older program meets the newer event: kept, not projected, reported.
    let old = Store::<OldReading>::open(dir.path(), Options::default()).unwrap();
    assert_eq!(old.append(Number(5)).unwrap().seq, 3);
    old.close().unwrap();
    let mut findings = Vec::new();
    let summary = Reader::<OldReading>::verify(dir.path(), false, |finding| findings.push(finding)).unwrap();
    assert!(summary.is_sound(), "{findings:?}");
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].kind.as_str(), findings[0].seq), ("unknown_event", Some(2)));
    let new = Store::<Reading>::open(dir.path(), Options::default()).unwrap();
    assert_eq!(new.last_seq(), 3);
}

#[test]
fn a_type_that_cannot_be_stored_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("new");
    let refused =
        |result: Result<(), Error>| assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
    // Its number is 0, or its table has a word of SQL for a name.
    let both_are_refused = || {
        refused(Store::<Number<0, READINGS>>::open(&new, Options::default()).map(drop));
        refused(Store::<Number<700, ORDER>>::open(&new, Options::default()).map(drop));
    };
    both_are_refused();
    assert!(!new.exists());
    // Nor does it change a store that is there, with or without its rows.
    let store = Store::<OldReading>::open(&new, Options::default()).unwrap();
    store.append(Number(20)).unwrap();
    store.close().unwrap();
    let segment = new.join("log").join("00000000000000000001.seg");
    let before = std::fs::read(&segment).unwrap();
    for _ in 0..2 {
        both_are_refused();
        assert!(before == std::fs::read(&segment).unwrap());
        std::fs::remove_file(new.join("synclog.db"))
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .unwrap();
    }
    assert!(!new.join("synclog.db").exists());
}

#[test]
fn a_changed_table_is_told_as_an_upgrade_and_not_as_damage() {
    let dir = tempfile::tempdir().unwrap();
    let old = Store::<OldReading>::open(dir.path(), Options::default()).unwrap();
    old.append_all([Number(21), Number(22)]).unwrap();
    old.close().unwrap();
    let kinds = |findings: &[synclog::Finding]| findings.iter().map(|found| found.kind).collect::<Vec<_>>();
    let mut findings = Vec::new();
    let summary = Reader::<Reading>::verify(dir.path(), false, |finding| findings.push(finding)).unwrap();
    assert_eq!(kinds(&findings), [FindingKind::TablesOutdated], "{findings:?}");
    assert!(!summary.is_sound(), "no row was compared");
    for rebuild in [false, true] {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let (_, opened) = Store::<Reading>::replay(copy.path(), Options::default(), rebuild).unwrap();
        assert_eq!(kinds(&opened.findings), [FindingKind::TablesUpgraded], "{:?}", opened.findings);
    }
    let new = Store::<Reading>::open(dir.path(), patient()).unwrap();
    let told = &new.open_report().findings;
    assert_eq!(kinds(told), [FindingKind::TablesUpgraded], "{told:?}");
    assert_eq!(told[0].kind.severity(), synclog::Severity::Note);
    assert!(told[0].detail.contains("another version of the events"), "{told:?}");
    new.close().unwrap();
    // A table that somebody changed is another thing.
    let db = rusqlite::Connection::open(dir.path().join("synclog.db")).unwrap();
    db.execute_batch("ALTER TABLE readings ADD COLUMN more").unwrap();
    drop(db);
    let new = Store::<Reading>::open(dir.path(), patient()).unwrap();
    assert_eq!(kinds(&new.open_report().findings), [FindingKind::SchemaDiffers]);
}

/// The readings of another kind of thermometer: another type, whose table has the same name.
type Stranger = Number<701, READINGS>;

#[test]
fn a_store_of_another_event_type_is_refused_before_anything_of_it_is_touched() {
    let small = || Options::default().segment_bytes(16 * 1024, 16 * 1024);
    let with_events = |dir: &std::path::Path| {
        let store = Store::<OldReading>::open(dir, small()).unwrap();
        (0..1000).for_each(|number| drop(store.append_all([Number(number)])));
        store.close().unwrap();
        assert!(std::fs::read_dir(dir.join("log")).unwrap().count() > 2);
    };
    let without_events = |dir: &std::path::Path| {
        Store::<OldReading>::open(dir, small()).unwrap().close().unwrap();
    };
    let without_database = |dir: &std::path::Path| {
        with_events(dir);
        std::fs::remove_file(dir.join("synclog.db")).unwrap();
    };
    // The oldest segment says nothing any more; the others do.
    let with_damage = |dir: &std::path::Path| {
        with_events(dir);
        let path = dir.join("log").join("00000000000000000001.seg");
        let mut segment = std::fs::read(&path).unwrap();
        segment[8192..8240].fill(0x55);
        std::fs::write(path, segment).unwrap();
    };
    let with_a_segment_of_its_own = |dir: &std::path::Path| {
        with_events(dir);
        let other = tempfile::tempdir().unwrap();
        let store = Store::<Stranger>::open(other.path(), small()).unwrap();
        store.append(Number(1)).unwrap();
        store.close().unwrap();
        let first = std::path::Path::new("log").join("00000000000000000001.seg");
        std::fs::copy(other.path().join(&first), dir.join(first)).unwrap();
    };
    let makers: [&dyn Fn(&std::path::Path); 5] =
        [&with_events, &without_events, &without_database, &with_damage, &with_a_segment_of_its_own];
    for (case, make) in makers.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        make(dir);
        let before = snapshot(dir);
        let refused = |result: Result<(), Error>, what: &str| {
            assert!(
                matches!(&result, Err(Error::OtherEvents { found: 700, expected: 701, .. })),
                "{case}, {what}: {result:?}"
            );
            assert!(snapshot(dir) == before, "{case}, {what}: nothing was touched");
        };
        refused(Store::<Stranger>::open(dir, small()).map(drop), "open");
        refused(Store::<Stranger>::open(dir, small().projection(false)).map(drop), "open without rows");
        refused(Reader::<Stranger>::open(dir).map(drop), "read");
        refused(Reader::<Stranger>::verify(dir, true, |_| {}).map(drop), "verify the log");
        refused(Reader::<Stranger>::verify(dir, false, |_| {}).map(drop), "verify");
        for flag in [false, true] {
            refused(Store::<Stranger>::replay(dir, small(), flag).map(drop), "replay");
            refused(Store::<Stranger>::repair(dir, small(), flag, false).map(drop), "repair");
        }
        refused(Store::<Stranger>::accept_loss(dir, small(), 1).map(drop), "accept a loss");
        if case < 3 {
            Store::<OldReading>::open(dir, small()).unwrap().close().unwrap();
        }
    }
}

#[test]
fn keys_count_also_where_the_event_is_not_understood() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let new = Store::<Reading>::open(dir, Options::default()).unwrap();
    new.append_with_key(reading("roof", 215), "of the newer").unwrap();
    new.append(reading("roof", 216)).unwrap();
    new.close().unwrap();
    let taken = |store: &Store<OldReading>| {
        let error = store.append_with_key(Number(5), "of the newer").unwrap_err();
        assert!(matches!(&error, Error::KeyUnreadable { key, seq: 1 } if key == "of the newer"), "{error}");
        assert_eq!((error.outcome(), error.seq()), (synclog::Outcome::NotWritten, Some(1)));
        assert_eq!(store.append_with_key(Number(6), "of the older").unwrap().seq, 3);
    };
    let verify = || {
        let mut findings = Vec::new();
        Reader::<OldReading>::verify(dir, false, |finding| findings.push(finding)).unwrap();
        findings.retain(|finding| finding.kind != FindingKind::UnknownEvent);
        findings
    };
    let open = || {
        let store = Store::<OldReading>::open(dir, Options::default()).unwrap();
        assert!(store.wait_projected(std::time::Duration::from_mins(1)));
        store
    };
    taken(&open());
    taken(&open());
    for rebuild in [false, true] {
        Store::<OldReading>::replay(dir, Options::default(), rebuild).unwrap();
        taken(&open());
    }
    std::fs::remove_file(dir.join("synclog.db")).unwrap();
    taken(&open());
    assert_eq!(verify(), []);
    // What was kept of it is compared and mended like a row.
    for sql in ["DELETE FROM synclog_unread_keys", "UPDATE synclog_unread_keys SET key = 'another'"] {
        rusqlite::Connection::open(dir.join("synclog.db")).unwrap().execute_batch(sql).unwrap();
        let found = verify();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].kind, found[0].seq), (FindingKind::RowDiffers, Some(1)));
        assert_eq!(found[0].column.as_deref(), Some("idempotency_key"));
        Store::<OldReading>::replay(dir, Options::default(), false).unwrap();
        assert_eq!(verify(), []);
        taken(&open());
    }
    // Whoever understands the event finds it repeated.
    let new = Store::<Reading>::open(dir, Options::default()).unwrap();
    assert!(new.wait_projected(std::time::Duration::from_mins(1)));
    assert_eq!(new.append_with_key(reading("roof", 215), "of the newer").unwrap().seq, 1);
    assert_eq!(new.last_seq(), 3);
}
