//! An event type whose code fails, panics and contradicts itself on demand: nothing of it is acknowledged that
//! cannot be read back, and nothing that it does ends more than one call (P1, P5, P12).

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::SeqCst};

use synclog::{
    Column, ColumnType, Error, Event, Finding, FindingKind, Item, Options, Outcome, Reader, Store, Table,
    Timestamp, Value,
};

/// The number of the events that misbehave.
const UNLUCKY: i64 = 13;

/// What they do, and how many calls still go well.
struct Whim {
    how: AtomicU32,
    grace: AtomicI64,
}

/// One for each test.
static WHIMS: [Whim; 16] = [const { Whim { how: AtomicU32::new(0), grace: AtomicI64::new(0) } }; 16];

const WELL: u32 = 0;
const PREPARE_PANICS: u32 = 1;
const ENCODE_PANICS: u32 = 2;
const ENCODE_ERRS: u32 = 3;
const DECODE_PANICS: u32 = 4;
const DECODE_ERRS: u32 = 5;
const DECODE_GIVES_ANOTHER: u32 = 6;
const TO_ROW_PANICS: u32 = 7;
const ROW_IS_SHORT: u32 = 8;
const ROW_IS_LONG: u32 = 9;
const ROW_HAS_NULL: u32 = 10;
const ROW_HAS_TEXT: u32 = 11;
const ROW_HAS_NAN: u32 = 12;
const ROW_HAS_MINUS_ZERO: u32 = 13;
const FROM_ROW_PANICS: u32 = 14;
const FROM_ROW_ERRS: u32 = 15;
const FROM_ROW_GIVES_ANOTHER: u32 = 16;
const EQ_PANICS: u32 = 17;
const CLONE_PANICS: u32 = 18;
const REPEATS_PANICS: u32 = 19;
const DROP_PANICS: u32 = 20;

fn set<const TEST: usize>(how: u32, grace: i64) {
    WHIMS[TEST].how.store(how, SeqCst);
    WHIMS[TEST].grace.store(grace, SeqCst);
}

#[derive(Debug)]
struct Odd<const TEST: usize> {
    number: i64,
    note: String,
}

impl<const TEST: usize> Odd<TEST> {
    /// Whether this event does this now.
    fn does(&self, how: u32) -> bool {
        does::<TEST>(self.number, how)
    }
}

fn does<const TEST: usize>(number: i64, how: u32) -> bool {
    number == UNLUCKY && WHIMS[TEST].how.load(SeqCst) == how && WHIMS[TEST].grace.fetch_sub(1, SeqCst) <= 0
}

impl<const TEST: usize> PartialEq for Odd<TEST> {
    fn eq(&self, other: &Self) -> bool {
        assert!(!self.does(EQ_PANICS), "eq does not want to");
        self.number == other.number && self.note == other.note
    }
}

impl<const TEST: usize> Clone for Odd<TEST> {
    fn clone(&self) -> Self {
        assert!(!self.does(CLONE_PANICS), "clone does not want to");
        Self { number: self.number, note: self.note.clone() }
    }
}

impl<const TEST: usize> Drop for Odd<TEST> {
    fn drop(&mut self) {
        assert!(!self.does(DROP_PANICS) || std::thread::panicking(), "drop does not want to");
    }
}

impl<const TEST: usize> Event for Odd<TEST> {
    const KIND: u16 = 13;
    const VERSION: u16 = 1;
    const TABLE: Table = Table {
        name: "odd",
        columns: &[
            Column::required("number", ColumnType::Integer),
            Column::nullable("half", ColumnType::Real),
            Column::nullable("note", ColumnType::Text),
        ],
        indexes: &[],
    };

    fn prepare(&mut self, _now: Timestamp) -> Result<(), Error> {
        assert!(!self.does(PREPARE_PANICS), "prepare does not want to");
        Ok(())
    }

    fn encode(&self, _version: u16) -> Result<Vec<u8>, Error> {
        assert!(!self.does(ENCODE_PANICS), "encode does not want to");
        if self.does(ENCODE_ERRS) {
            return Err(Error::codec("does not want to"));
        }
        Ok([&self.number.to_le_bytes(), self.note.as_bytes()].concat())
    }

    fn decode(_version: u16, payload: &[u8]) -> Result<Self, Error> {
        let (number, note) = payload.split_first_chunk::<8>().ok_or_else(|| Error::codec("too short"))?;
        let number = i64::from_le_bytes(*number);
        assert!(!does::<TEST>(number, DECODE_PANICS), "decode does not want to");
        if does::<TEST>(number, DECODE_ERRS) {
            return Err(Error::codec("does not want to"));
        }
        let note = String::from_utf8(note.to_vec()).map_err(|_| Error::codec("no UTF-8"))?;
        let note = if does::<TEST>(number, DECODE_GIVES_ANOTHER) { format!("{note}!") } else { note };
        Ok(Self { number, note })
    }

    fn to_row(&self) -> Vec<Value> {
        assert!(!self.does(TO_ROW_PANICS), "to_row does not want to");
        let number = Value::Integer(self.number);
        let half = |half: f64| Value::Real(half);
        let note = Value::Text(self.note.clone());
        let usual = self.number as f64 / 2.0;
        match WHIMS[TEST].how.load(SeqCst) {
            ROW_IS_SHORT if self.does(ROW_IS_SHORT) => vec![number, half(usual)],
            ROW_IS_LONG if self.does(ROW_IS_LONG) => vec![number, half(usual), note, Value::Null],
            ROW_HAS_NULL if self.does(ROW_HAS_NULL) => vec![Value::Null, half(usual), note],
            ROW_HAS_TEXT if self.does(ROW_HAS_TEXT) => vec![Value::Text("13".into()), half(usual), note],
            ROW_HAS_NAN if self.does(ROW_HAS_NAN) => vec![number, half(f64::NAN), note],
            ROW_HAS_MINUS_ZERO if self.does(ROW_HAS_MINUS_ZERO) => vec![number, half(-0.0), note],
            _ => vec![number, half(usual), note],
        }
    }

    fn from_row(row: &[Value]) -> Result<Self, Error> {
        let [Value::Integer(number), _, Value::Text(note)] = row else {
            return Err(Error::codec("not an odd thing"));
        };
        assert!(!does::<TEST>(*number, FROM_ROW_PANICS), "from_row does not want to");
        if does::<TEST>(*number, FROM_ROW_ERRS) {
            return Err(Error::codec("does not want to"));
        }
        let another = does::<TEST>(*number, FROM_ROW_GIVES_ANOTHER);
        Ok(Self { number: *number, note: if another { format!("{note}!") } else { note.clone() } })
    }

    fn repeats(&self, stored: &Self) -> bool {
        assert!(!self.does(REPEATS_PANICS), "repeats does not want to");
        self.number == stored.number && self.note == stored.note
    }
}

fn odd<const TEST: usize>(number: i64) -> Odd<TEST> {
    Odd { number, note: format!("note {number}") }
}

fn open<const TEST: usize>(dir: &Path) -> Store<Odd<TEST>> {
    Store::open(dir, Options::default()).unwrap()
}

fn verify<const TEST: usize>(dir: &Path) -> (bool, Vec<Finding>) {
    let mut findings = Vec::new();
    let summary = Reader::<Odd<TEST>>::verify(dir, false, |finding| findings.push(finding)).unwrap();
    (summary.is_sound(), findings)
}

fn kinds(findings: &[Finding]) -> Vec<(FindingKind, Option<u64>)> {
    findings.iter().map(|finding| (finding.kind, finding.seq)).collect()
}

/// What an append does with an event that would not come back, and what its error names.
const REFUSED: [(u32, &str); 17] = [
    (PREPARE_PANICS, "prepare"),
    (ENCODE_PANICS, "encode"),
    (ENCODE_ERRS, "codec"),
    (DECODE_PANICS, "decode"),
    (DECODE_ERRS, "event"),
    (DECODE_GIVES_ANOTHER, "note"),
    (TO_ROW_PANICS, "to_row"),
    (ROW_IS_SHORT, "odd"),
    (ROW_IS_LONG, "odd"),
    (ROW_HAS_NULL, "number"),
    (ROW_HAS_TEXT, "number"),
    (ROW_HAS_NAN, "half"),
    (ROW_HAS_MINUS_ZERO, "half"),
    (FROM_ROW_PANICS, "from_row"),
    (FROM_ROW_ERRS, "event"),
    (FROM_ROW_GIVES_ANOTHER, "note"),
    (EQ_PANICS, "eq"),
];

#[test]
fn what_would_not_come_back_is_refused_before_it_is_written_and_the_column_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open::<0>(dir.path());
    let mut last = 0;
    for (how, named) in REFUSED {
        set::<0>(how, 0);
        let batch = || [odd::<0>(1), odd(UNLUCKY)];
        let refused = [
            store.append(odd(UNLUCKY)).map(drop).unwrap_err(),
            store.append_with_key(odd(UNLUCKY), "key").map(drop).unwrap_err(),
            store.append_all(batch()).map(drop).unwrap_err(),
            store.submit(batch()).map(drop).unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.outcome(), Outcome::NotWritten, "{error}");
            let found = match &error {
                Error::Invalid { field, .. } => field.as_str(),
                Error::Application { function, reason, .. } => {
                    assert_eq!(*reason, format!("{function} does not want to"));
                    function
                }
                Error::Codec { .. } => "codec",
                other => panic!("{how}: {other}"),
            };
            assert_eq!(found, named, "{how}: {error}");
        }
        last += 1;
        let next = store.append(odd(100 + last as i64)).unwrap();
        assert_eq!((next.seq, next.projected), (last, true), "the handle goes on: {how}");
        set::<0>(WELL, 0);
    }
    assert_eq!(store.append(odd(UNLUCKY)).unwrap().seq, last + 1);
    store.close().unwrap();
    assert_eq!(verify::<0>(dir.path()), (true, Vec::new()));
}

/// Ways in which an event of the log can no longer be read, or has no row that fits.
const UNREADABLE: [u32; 9] = [
    DECODE_PANICS,
    DECODE_ERRS,
    TO_ROW_PANICS,
    ROW_IS_SHORT,
    ROW_IS_LONG,
    ROW_HAS_NULL,
    ROW_HAS_TEXT,
    ROW_HAS_NAN,
    ROW_HAS_MINUS_ZERO,
];

#[test]
fn p5_an_event_that_can_no_longer_be_read_is_a_finding_and_opening_goes_on() {
    for how in UNREADABLE {
        for without_database in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            set::<1>(WELL, 0);
            let store = open::<1>(dir.path());
            store.append_all([odd(1), odd(UNLUCKY), odd(3)]).unwrap();
            store.close().unwrap();
            if without_database {
                std::fs::remove_file(dir.path().join("synclog.db")).unwrap();
            }
            set::<1>(how, 0);
            let store = open::<1>(dir.path());
            let receipt = store.append(odd(4)).unwrap();
            assert_eq!((receipt.seq, receipt.projected), (4, true), "{how}");
            if without_database {
                let told = kinds(&store.open_report().findings);
                assert!(told.contains(&(FindingKind::UnreadableEvent, Some(2))), "{how}: {told:?}");
            }
            let items: Vec<_> = store.reader().unwrap().items(1).unwrap().map(Result::unwrap).collect();
            assert_eq!(items.len(), 4, "{how}");
            if [DECODE_PANICS, DECODE_ERRS].contains(&how) {
                assert!(matches!(&items[1], Item::Unknown(finding)
                    if (finding.kind, finding.seq) == (FindingKind::UnreadableEvent, Some(2))));
            }
            store.close().unwrap();
            let (sound, findings) = verify::<1>(dir.path());
            assert!(!sound, "{how}");
            assert_eq!(kinds(&findings), [(FindingKind::UnreadableEvent, Some(2))], "{how}: {findings:?}");
            for rebuild in [false, true] {
                let (_, opened) = Store::<Odd<1>>::replay(dir.path(), Options::default(), rebuild).unwrap();
                let told = kinds(&opened.findings);
                assert_eq!(told, [(FindingKind::UnreadableEvent, Some(2))], "{how} {rebuild}");
                assert_eq!(kinds(&verify::<1>(dir.path()).1), told);
            }
            // Mended code reads it again, and its row is back.
            set::<1>(WELL, 0);
            let (report, _) = Store::<Odd<1>>::replay(dir.path(), Options::default(), false).unwrap();
            assert_eq!((report.restored, report.rebuilt), (1, false), "{how}");
            assert_eq!(verify::<1>(dir.path()), (true, Vec::new()), "{how}");
        }
    }
}

#[test]
fn rows_that_can_be_made_again_long_after_come_back_with_replay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open::<2>(dir.path());
    store.append_all([odd(1), odd(UNLUCKY)]).unwrap();
    store.append_all((20..=120).map(odd)).unwrap();
    store.close().unwrap();
    std::fs::remove_file(dir.path().join("synclog.db")).unwrap();
    set::<2>(TO_ROW_PANICS, 0);
    open::<2>(dir.path()).close().unwrap();
    set::<2>(WELL, 0);
    let (report, _) = Store::<Odd<2>>::replay(dir.path(), Options::default(), false).unwrap();
    assert_eq!(report.restored, 1);
    assert_eq!(verify::<2>(dir.path()), (true, Vec::new()));
    let db = rusqlite::Connection::open(dir.path().join("synclog.db")).unwrap();
    let absent: i64 = db.query_row("SELECT count(*) FROM synclog_absent", [], |row| row.get(0)).unwrap();
    assert_eq!(absent, 0, "it is counted as a row, and no longer as one that lawfully is none");
}

/// The code changes its mind between the append and the row.
#[test]
fn p1_a_row_that_cannot_be_made_after_all_is_not_called_projected() {
    for (how, grace) in [(TO_ROW_PANICS, 1), (DECODE_PANICS, 1), (ROW_HAS_NULL, 1)] {
        let dir = tempfile::tempdir().unwrap();
        set::<3>(WELL, 0);
        let store = open::<3>(dir.path());
        store.append(odd(1)).unwrap();
        set::<3>(how, grace);
        let receipt = store.append(odd(UNLUCKY)).unwrap();
        assert_eq!((receipt.seq, receipt.projected), (2, false), "{how}");
        let receipt = store.append(odd(3)).unwrap();
        assert_eq!((receipt.seq, receipt.projected), (3, true), "{how}");
        store.close().unwrap();
        assert_eq!(kinds(&verify::<3>(dir.path()).1), [(FindingKind::UnreadableEvent, Some(2))]);
    }
}

#[test]
fn p12_a_panic_where_keys_are_compared_ends_that_call_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open::<4>(dir.path());
    store.append_with_key(odd(UNLUCKY), "k").unwrap();
    store.append(odd(2)).unwrap();
    for reopened in [false, true] {
        let store = if reopened { open::<4>(dir.path()) } else { store.clone() };
        for how in [REPEATS_PANICS, CLONE_PANICS] {
            set::<4>(how, 0);
            let error = store.append_with_key(odd(UNLUCKY), "k").unwrap_err();
            assert!(matches!(&error, Error::Application { .. }), "{error}");
            assert_eq!(error.seq(), (how == REPEATS_PANICS).then_some(1));
            assert_eq!(error.outcome(), Outcome::NotWritten);
            set::<4>(WELL, 0);
            assert_eq!(store.append_with_key(odd(UNLUCKY), "k").unwrap().seq, 1);
        }
        // Nobody can say any more whether the append repeats that event.
        if reopened {
            set::<4>(DECODE_PANICS, 1);
            let error = store.append_with_key(odd(UNLUCKY), "k").unwrap_err();
            assert!(matches!(&error, Error::KeyUnreadable { seq: 1, .. }), "{error}");
            assert_eq!(error.outcome(), Outcome::NotWritten, "{error}");
            set::<4>(WELL, 0);
        }
        if !reopened {
            store.clone().close().unwrap();
        }
    }
}

#[test]
fn p12_an_event_that_panics_when_it_is_dropped_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = open::<5>(dir.path());
    store.append(odd(1)).unwrap();
    set::<5>(DROP_PANICS, 0);
    // The caller's own event is dropped in its own thread; what the store holds of it is ours to guard.
    let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.submit_keyed(vec![(odd(UNLUCKY), Some("k".into()))])?.wait()
    }));
    set::<5>(WELL, 0);
    assert_eq!(answer.unwrap().unwrap()[0].seq, 2);
    assert_eq!(store.append(odd(3)).unwrap().seq, 3);
    store.close().unwrap();
    assert_eq!(verify::<5>(dir.path()), (true, Vec::new()));
}
