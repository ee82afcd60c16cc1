//! The two stores that the older system left behind, with all their flaws.

use std::path::PathBuf;

use super::*;
use crate::store_id::StoreId;
use crate::sync::runs::{RunJoiner, RunState, STUCK_AFTER};

const TARGET: StoreId = StoreId([1; 16]);

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/legacy").join(name)
}

/// Imports a file into a store that is only a list, and returns what the report would say.
fn import(store: &mut Vec<SyncEvent>, path: &Path) -> (u64, u64, Vec<u64>) {
    let source = read_path(path, &Reading::of(&utc)).unwrap();
    let mut matcher = Matcher::new(source.records, TARGET);
    for (event, seq) in store.iter().zip(1..) {
        matcher.observe(seq, event);
    }
    let plan = matcher.plan(|_| false);
    assert_eq!((plan.id_conflicts, plan.deleted, plan.time_offset), (0, 0, None));
    let imported = plan.import.len() as u64;
    store.extend(plan.import.into_iter().map(|record| record.event));
    let rejected = source.rejections.iter().map(|rejection| rejection.line).collect();
    (imported, plan.already_present, rejected)
}

fn both(store: &mut Vec<SyncEvent>) {
    assert_eq!(import(store, &fixture("sync_logs_backup.jsonl")), (331, 0, vec![91, 131, 171]));
    assert_eq!(import(store, &fixture("legacy.db")), (9, 297, vec![]));
}

#[test]
fn both_files_give_340_events_once() {
    let before = std::fs::read(fixture("legacy.db")).unwrap();
    let mut store = Vec::new();
    both(&mut store);
    assert_eq!(store.len(), 340);
    assert_eq!(import(&mut store, &fixture("sync_logs_backup.jsonl")), (0, 331, vec![91, 131, 171]));
    assert_eq!(import(&mut store, &fixture("legacy.db")), (0, 306, vec![]));
    assert_eq!(std::fs::read(fixture("legacy.db")).unwrap(), before, "a source is never changed");
    assert!(!fixture("legacy.db-wal").exists() && !fixture("legacy.db-shm").exists());
}

#[test]
fn the_other_order_gives_the_same_events() {
    let mut store = Vec::new();
    assert_eq!(import(&mut store, &fixture("legacy.db")), (306, 0, vec![]));
    assert_eq!(import(&mut store, &fixture("sync_logs_backup.jsonl")), (34, 297, vec![91, 131, 171]));
    assert_eq!(store.len(), 340);
}

#[test]
fn each_rejection_says_why() {
    let source = read_path(&fixture("sync_logs_backup.jsonl"), &Reading::of(&utc)).unwrap();
    let reasons: Vec<_> = source.rejections.iter().map(|rejection| rejection.reason.as_str()).collect();
    assert!(reasons[0].contains("EOF while parsing a string at column 57"), "{}", reasons[0]);
    assert_eq!(reasons[1], "company_guid is empty");
    assert_eq!(reasons[2], "records_synced is text, not an integer");
    assert!(source.records.iter().all(|record| record.key.is_none() && record.origin().is_none()));
    assert_eq!(source.records[0].event.legacy_id, Some(174));
}

#[test]
fn a_wrong_zone_is_noticed_before_anything_is_written() {
    let mut store = Vec::new();
    both(&mut store);
    let kolkata = |text: &str| Timestamp::parse_in_zone(text, 19800).map(Into::into);
    let source = read_path(&fixture("sync_logs_backup.jsonl"), &Reading::of(&kolkata)).unwrap();
    let mut matcher = Matcher::new(source.records, TARGET);
    for (event, seq) in store.iter().zip(1..) {
        matcher.observe(seq, event);
    }
    let offset = matcher.plan(|_| false).time_offset.unwrap();
    assert_eq!((offset.seconds, offset.line, offset.seq, offset.records), (-19800, 1, 1, 325));
}

#[test]
fn the_340_events_are_48_runs() {
    let mut store = Vec::new();
    both(&mut store);
    let mut events: Vec<(u64, SyncEvent)> = (1..).zip(store).collect();
    events.sort_by_key(|(seq, event)| {
        (event.company.guid.clone(), event.company.alterid.clone(), event.created_at, *seq)
    });
    let mut joiner = RunJoiner::new("2026-01-01".parse().unwrap(), STUCK_AFTER);
    let mut runs: Vec<_> = events.iter().filter_map(|(seq, event)| joiner.push(*seq, event, None)).collect();
    runs.extend(joiner.finish());
    let count = |state: RunState| runs.iter().filter(|run| run.state == state).count();
    assert_eq!(RunState::ALL.map(count), [0, 3, 38, 7]);
    assert_eq!(runs.len(), 48);
    assert!(
        runs.iter().all(|run| run.started_at.is_some() && run.records.is_some_and(|records| records >= 300))
    );
}

#[test]
fn export_and_import_lose_nothing() {
    let mut store = Vec::new();
    both(&mut store);
    let mut odd =
        store[0].clone().with_duration(0.1 + 0.2).with_run("r\0un").with_details("\u{1b}[31m\u{2028}\"😀");
    odd.created_at = Some(Timestamp::MIN);
    odd.origin = Some(crate::sync::event::Origin { store: StoreId([9; 16]), seq: i64::MAX.cast_unsigned() });
    store.push(odd);
    for bits in [1, 0x3fd5_5555_5555_5555, f64::MAX.to_bits(), 5e-324_f64.to_bits(), 1.0e23_f64.to_bits()] {
        store.push(store[0].clone().with_duration(f64::from_bits(bits)));
    }
    let export = |store: &[SyncEvent], id: StoreId| -> String {
        let line = |(seq, event): (u64, &SyncEvent)| {
            let key = (seq % 3 == 0).then(|| format!("key {seq}"));
            let line = ExportLine::new(seq, id, event, key.as_deref(), Timestamp::MIN);
            serde_json::to_string(&line).unwrap() + "\n"
        };
        (1..).zip(store).map(line).collect()
    };
    // The reader's zone is far off: our own export is always UTC.
    let read = |text: &str| {
        let zone = |text: &str| Timestamp::parse_in_zone(text, 7200).map(Into::into);
        read_lines(text.as_bytes(), Path::new("-"), &Reading::of(&zone)).unwrap()
    };
    let source = read(&export(&store, TARGET));
    assert_eq!(source.rejections, []);
    assert_eq!(source.records.len(), store.len());
    for ((record, event), seq) in source.records.iter().zip(&store).zip(1..) {
        let mut expected = event.clone();
        expected.origin = event.origin.or(Some(crate::sync::event::Origin { store: TARGET, seq }));
        assert_eq!(record.event, expected);
        assert_eq!(record.key, (seq % 3 == 0).then(|| format!("key {seq}")));
    }
    // On to a third store: where each event was first appended stays.
    let second: Vec<_> = source.records.into_iter().map(|record| record.event).collect();
    let third: Vec<_> =
        read(&export(&second, StoreId([3; 16]))).records.into_iter().map(|record| record.event).collect();
    assert_eq!(third, second);
}

#[test]
fn export_fields_keep_their_names_and_order() {
    let event =
        SyncEvent::new(crate::sync::event::Company::new("g", "1", "n"), crate::sync::event::Level::Info, "m");
    let line = serde_json::to_string(&ExportLine::new(7, TARGET, &event, None, Timestamp::MIN)).unwrap();
    let mut from = 0;
    for name in ExportLine::FIELDS {
        let at = line[from..].find(&format!("\"{name}\":"));
        from += at.unwrap_or_else(|| panic!("{name} in {line}"));
    }
    assert!(line.starts_with(&format!("{{\"seq\":7,\"store\":\"{TARGET}\",")), "{line}");
    assert!(line.ends_with("\"key\":null,\"appended_at\":\"0001-01-01 00:00:00.000000\"}"), "{line}");
    assert_eq!(ExportLine::values(7, TARGET, &event, None, Timestamp::MIN).len(), ExportLine::FIELDS.len());
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json.as_object().unwrap().len(), ExportLine::FIELDS.len());
}
