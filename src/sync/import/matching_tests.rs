#![allow(clippy::cloned_ref_to_slice_refs, reason = "lists of one and of many read alike")]

use proptest::prelude::*;

use super::*;
use crate::sync::event::{Company, Level};
use crate::time::Timestamp;

const TARGET: StoreId = StoreId([1; 16]);
const OTHER: StoreId = StoreId([2; 16]);

type Store = Vec<(u64, SyncEvent)>;

/// An event with this text, at this many milliseconds, under this id of the older system.
fn event(text: &str, millis: i64, id: impl Into<Option<i64>>) -> SyncEvent {
    let at = Timestamp::from_micros(1_765_962_000_000_000 + millis * 1000).unwrap();
    let mut event = SyncEvent::new(Company::new("g", "1", "Acme"), Level::Info, text).at(at);
    event.legacy_id = id.into();
    event
}

fn from(mut event: SyncEvent, store: StoreId, seq: u64) -> SyncEvent {
    event.origin = Some(Origin { store, seq });
    event
}

fn records(events: &[SyncEvent]) -> Vec<Record> {
    events
        .iter()
        .cloned()
        .zip(1..)
        .map(|(event, line)| Record { line, object: 0, event, key: None, wrong_time: None })
        .collect()
}

fn plan(store: &Store, source: &[SyncEvent]) -> ImportPlan {
    let mut matcher = Matcher::new(records(source), TARGET);
    for (seq, event) in store {
        matcher.observe(*seq, event);
    }
    matcher.plan(|_| false)
}

/// Imports, and returns the texts and ids of what was new, and the number of conflicts.
fn import(store: &mut Store, source: &[SyncEvent]) -> (Vec<u64>, u64) {
    let plan = plan(store, source);
    assert_eq!(plan.time_offset, None);
    assert_eq!(plan.import.len() as u64 + plan.already_present, source.len() as u64);
    let lines = plan.import.iter().map(|record| record.line).collect();
    for record in plan.import {
        store.push((store.len() as u64 + 1, record.event));
    }
    (lines, plan.id_conflicts)
}

fn store(events: &[SyncEvent]) -> Store {
    (1..).zip(events.iter().cloned()).collect()
}

/// The lines that an import into a store of these events imports.
fn imported(there: &[SyncEvent], source: &[SyncEvent]) -> Vec<u64> {
    import(&mut store(there), source).0
}

const NONE: [u64; 0] = [];

#[test]
fn a_known_id_with_equal_content_and_time_is_there() {
    let there = [event("a", 500, 7)];
    assert_eq!(imported(&there, &[event("a", 500, 7)]), NONE);
    assert_eq!(imported(&there, &[event("a", 0, 7)]), NONE, "a whole second compares seconds");
    assert_eq!(
        imported(&there, &[event("a", 500, 7), event("a", 0, 7), event("a", 500, 7)]),
        NONE,
        "repeats"
    );
    assert_eq!(imported(&[event("a", 0, 7)], &[event("a", 999, 7)]), NONE);
    for (case, other) in [
        ("time", event("a", 501, 7)),
        ("minute", event("a", 61_000, 7)),
        ("second before", event("a", -1, 7)),
        ("content", event("b", 500, 7)),
        ("id", event("a", 500, 8)),
    ] {
        let mut store = store(&there);
        let conflicts = u64::from(case != "id");
        assert_eq!(import(&mut store, &[other.clone()]), (vec![1], conflicts), "{case}");
        assert_eq!(import(&mut store, &[other]), (vec![], 0), "{case}: once only");
    }
}

#[test]
fn a_table_may_be_a_minute_behind_its_backup() {
    for (line, row) in [(900, 1000), (999, 30_000), (1, 60_000), (60_999, 0)] {
        let (line, row) = ([event("a", line, 7)], [event("a", row, 7)]);
        for (first, second) in [(&line, &row), (&row, &line)] {
            assert_eq!(imported(first, second), NONE, "{first:?}");
        }
    }
    assert_eq!(imported(&[event("a", 500, 7)], &[event("a", 61_000, 7)]), [1], "too far");
    assert_eq!(imported(&[event("a", 500, 7)], &[event("a", 1000, 8)]), [1], "another id");
    assert_eq!(imported(&[event("a", 500, None)], &[event("a", 1000, 7)]), [1], "no id to know it by");
    assert_eq!(imported(&[event("a", 0, 7)], &[event("a", 1000, 7)]), [1], "two of a table");
}

#[test]
fn two_fractions_are_never_one_event() {
    let row = [event("a", 0, 5)];
    let lines = [event("a", 100, 5), event("a", 900, 5)];
    for (first, second, new, conflicts) in [(&row[..], &lines[..], vec![2], 1), (&lines, &row, vec![], 0)] {
        let mut store = store(first);
        assert_eq!(import(&mut store, second), (new, conflicts));
        assert_eq!(import(&mut store, second), (vec![], 0));
        assert_eq!(import(&mut store, first), (vec![], 0));
        assert_eq!(store.len(), 2, "each event once");
    }
    // One source with all three.
    let all = [&row[..], &lines[..]].concat();
    let mut empty = Store::new();
    assert_eq!(import(&mut empty, &all), (vec![1, 3], 1));
    assert_eq!(import(&mut empty, &all), (vec![], 0));
}

#[test]
fn the_nearest_is_taken_first_and_each_once() {
    let backup = [event("a", 400, 5), event("a", 20_400, 5), event("a", 40_400, 5)];
    let table = [event("a", 1000, 5), event("a", 21_000, 5), event("a", 41_000, 5)];
    assert_eq!(imported(&backup, &table), NONE);
    assert_eq!(imported(&table, &backup), NONE);
    assert_eq!(imported(&backup[1..], &table), [1]);
    assert_eq!(imported(&table[..2], &backup), [3]);
    // The row a second later is that of the line before it, not of the one a second on.
    assert_eq!(imported(&[event("a", 1000, 5)], &[event("a", 2500, 5), event("a", 900, 5)]), [1]);
}

#[test]
fn look_alikes_are_counted() {
    let count = |there: &[SyncEvent], source: &[SyncEvent]| plan(&store(there), source).look_alikes;
    assert_eq!(count(&[event("a", 500, 7)], &[event("a", 500, 8)]), 1);
    assert_eq!(count(&[event("a", 500, 7)], &[event("a", 0, 8)]), 1, "whole seconds");
    assert_eq!(count(&[event("a", 0, 7)], &[event("a", 500, 8), event("b", 500, 9)]), 1);
    assert_eq!(count(&[event("a", 500, 7)], &[event("a", 501, 8)]), 0);
    assert_eq!(count(&[event("a", 500, 7)], &[event("a", 500, 7)]), 0, "it is there");
    assert_eq!(count(&[], &[event("a", 500, 7), event("a", 500, 8), event("a", 500, 9)]), 2, "in the source");
    assert_eq!(count(&[], &[event("a", 500, None), event("a", 500, None)]), 0, "both without");
}

#[test]
fn what_has_no_field_is_no_content() {
    let plain = |details: Option<&str>| {
        let mut event = event("a", 500, 7);
        event.details = details.map(Into::into);
        event
    };
    let of = |details| [plain(details)];
    for (one, other) in [
        (Some("x"), Some("x\n[extra] host: web1")),
        (None, Some("[extra] host: web1")),
        (Some("[extra] host: web1"), Some("[extra] pid: 7")),
    ] {
        assert_eq!(imported(&of(one), &of(other)), NONE, "{other:?}");
        assert_eq!(imported(&of(other), &of(one)), NONE, "{other:?}");
    }
    assert_eq!(imported(&of(Some("x")), &of(Some("y\n[extra] host: web1"))), [1]);
    let export = |details| [from(plain(details), OTHER, 1)];
    assert_eq!(imported(&export(Some("x")), &export(Some("x\n[extra] a: 1"))), [1], "an export is exact");
}

#[test]
fn a_wrong_zone_is_noticed_although_the_table_is_late() {
    let hour = 3_600_000;
    let there = store(&[event("a", 900, 7)]);
    let off = |events: &[SyncEvent]| plan(&there, events).time_offset.map(|offset| offset.seconds);
    assert_eq!(off(&[event("a", hour + 31_000, 7)]), Some(3600));
    assert_eq!(off(&[event("a", hour - 31_000, 7)]), None, "a table is never early");
    assert_eq!(off(&[event("a", hour + 31_000, 7), event("a", 1000, 7)]), None, "one that fits");
    let there = store(&[event("a", 31_000, 7)]);
    assert_eq!(plan(&there, &[event("a", hour + 900, 7)]).time_offset.unwrap().seconds, 3600);
}

#[test]
fn each_content_column_counts() {
    type Change = fn(&mut SyncEvent);
    let changes: [Change; 11] = [
        |event| event.company.guid.push('x'),
        |event| event.company.alterid.push('x'),
        |event| event.company.name.push('x'),
        |event| event.level = Level::Error,
        |event| event.message.push('x'),
        |event| event.details = Some(String::new()),
        |event| event.status = Some(crate::sync::event::Status::Started),
        |event| event.records_synced = None,
        |event| event.error_code = Some(String::new()),
        |event| event.error_message = Some(String::new()),
        |event| event.duration_seconds = Some(0.0),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for id in [None, Some(7)] {
            let mut other = event("a", 0, id);
            change(&mut other);
            assert_eq!(imported(&[event("a", 0, id)], &[other.clone()]), [1], "column {number}");
            assert_eq!(imported(&[other.clone()], &[other]), NONE);
        }
    }
}

#[test]
fn repeats_within_the_source_need_an_id() {
    assert_eq!(imported(&[], &[event("a", 0, 7), event("a", 0, 7), event("a", 300, 7)]), [1]);
    assert_eq!(
        imported(&[], &[event("a", 0, None), event("a", 0, None)]),
        [1, 2],
        "two events in one second"
    );
    let mut empty = Store::new();
    assert_eq!(import(&mut empty, &[event("a", 100, 7), event("a", 200, 7)]), (vec![1, 2], 1));
}

#[test]
fn an_id_claims_an_event_without_one_once() {
    let there = [event("a", 0, None)];
    assert_eq!(imported(&there, &[event("a", 0, 7)]), NONE);
    assert_eq!(imported(&there, &[event("a", 0, 7), event("a", 0, 8)]), [2]);
    assert_eq!(imported(&there, &[event("a", 0, 7), event("a", 0, 7)]), NONE, "the second is a repeat");
    assert_eq!(imported(&there, &[event("a", 0, None), event("a", 0, 7)]), [1], "an id comes first");
    assert_eq!(imported(&[event("a", 0, 9)], &[event("a", 0, 7)]), [1], "never an event of another id");
}

#[test]
fn a_record_without_an_id_claims_an_event_once() {
    let with_id = event("a", 0, 7);
    let without = event("a", 0, None);
    assert_eq!(imported(&[with_id.clone()], &[without.clone()]), NONE);
    assert_eq!(imported(&[with_id.clone()], &[without.clone(), without.clone()]), [2]);
    assert_eq!(imported(&[with_id.clone()], &[without.clone(), with_id.clone()]), [1], "claimed by its id");
    let both = [with_id.clone(), without.clone()];
    assert_eq!(imported(&both, &[without.clone(), without.clone()]), NONE);
    assert_eq!(imported(&both, &[without.clone(), without.clone(), without.clone()]), [3]);
    assert_eq!(imported(&both, &[without.clone(), event("a", 0, 8)]), NONE, "8 takes the free one");
    assert_eq!(imported(&[], &[with_id, without]), [1, 2], "only what was there before can be claimed");
}

#[test]
fn exact_times_are_matched_before_whole_seconds() {
    let whole = event("a", 0, None);
    let (two, five) = (event("a", 200, None), event("a", 500, None));
    assert_eq!(imported(&[two.clone(), five.clone()], &[whole.clone(), two.clone()]), NONE);
    assert_eq!(imported(&[whole.clone(), five.clone()], &[whole.clone(), two.clone()]), NONE);
    assert_eq!(imported(&[whole.clone()], &[two.clone(), five.clone()]), [2]);
    assert_eq!(imported(&[two], &[five]), [1]);
}

#[test]
fn our_own_export_matches_by_origin_only() {
    let native = event("a", 0, None);
    // Lines 1 and 2 are the target's own events, 3 is that of another store.
    let source =
        [from(native.clone(), TARGET, 1), from(native.clone(), TARGET, 2), from(native.clone(), OTHER, 1)];
    let mut there = store(&[native.clone(), native.clone()]);
    assert_eq!(import(&mut there, &source), (vec![3], 0));
    assert_eq!(import(&mut there, &source), (vec![], 0));
    assert_eq!(import(&mut there, &[from(native.clone(), TARGET, 3)]), (vec![1], 0), "3 came from elsewhere");
    assert_eq!(imported(&[], &[source[0].clone(), source[0].clone()]), [1], "a repeat");

    // A copied store went on by itself: the same origin, another event.
    let other = from(event("b", 0, None), TARGET, 1);
    assert_eq!(import(&mut there, &[other.clone(), other.clone()]), (vec![1], 1));
    assert_eq!(import(&mut there, &[other, source[0].clone()]), (vec![], 0));
    let later = from(event("a", 1, None), TARGET, 1);
    assert_eq!(import(&mut there, &[later]), (vec![1], 1), "times are compared to the microsecond");
}

#[test]
fn a_wrong_zone_is_noticed() {
    let hour = 3_600_000;
    let there = store(&[event("a", 123, 7), event("b", 0, 8)]);
    let off = |millis: i64| plan(&there, &[event("x", 0, 1), event("a", millis, 7)]).time_offset;
    let expected = |seconds: i64| Some(TimeOffset { seconds, line: 2, seq: 1, records: 1 });
    assert_eq!(off(5 * hour + hour / 2 + 123), expected(19800));
    assert_eq!(off(-hour / 4 + 123), expected(-900));
    assert_eq!(off(14 * hour + 123), expected(14 * 3600));
    assert_eq!(off(hour), expected(3600), "whole seconds against a fraction");
    for millis in [123, 0, 14 * hour + hour / 4 + 123, hour + 124, hour + 1123, 7 * 60_000 + 123] {
        assert_eq!(off(millis), None, "{millis}");
    }
    let of = |source: &[SyncEvent]| plan(&there, source).time_offset;
    assert_eq!(of(&[event("a", hour + 123, 9)]), None, "another id");
    assert_eq!(of(&[event("b", hour + 123, 7)]), None, "other content");
    assert_eq!(of(&[event("a", hour + 123, None)]), None, "no id");
    assert_eq!(of(&[from(event("a", hour + 123, 7), OTHER, 1)]), None, "our own export is exact");
    let both = of(&[event("a", hour + 123, 7), event("b", hour, 8), event("b", 0, 8)]).unwrap();
    assert_eq!((both.line, both.records, both.zone().as_str()), (1, 2, "+01:00"));
    assert_eq!(TimeOffset { seconds: -34200, ..both }.zone(), "-09:30");

    let twice = store(&[event("a", 123, 7), event("a", hour + 123, 7)]);
    assert_eq!(
        plan(&twice, &[event("a", 123, 7), event("a", hour + 123, 7)]).time_offset,
        None,
        "both are there"
    );
    assert_eq!(plan(&Store::new(), &[event("a", 0, 7), event("a", hour, 7)]).time_offset, None);
}

#[test]
fn deleted_records_stay_away() {
    let mut matcher = Matcher::new(
        records(&[event("a", 0, 7), event("a", 0, 7), event("b", 0, 8), event("c", 0, 9)]),
        TARGET,
    );
    matcher.observe(1, &event("b", 0, 8));
    let plan = matcher.plan(|record| record.event.message != "c");
    assert_eq!((plan.deleted, plan.already_present, plan.id_conflicts), (2, 1, 0));
    assert_eq!(plan.import.len(), 1);
    assert_eq!(plan.import[0].line, 4);
}

/// Events of one content around one second, so that everything matches nearly everything.
fn crowd() -> impl Strategy<Value = Vec<SyncEvent>> {
    let one = (
        prop::sample::select(vec![0, 0, 100, 200, 300, 1000, 1100, 59_000]),
        prop::sample::select(vec![None, None, None, Some(1), Some(2)]),
        prop::sample::select(vec![None, None, None, None, Some(1), Some(2)]),
        prop::sample::select(vec!["a", "a", "a", "b"]),
    );
    let one = one.prop_map(|(millis, id, seq, text)| {
        let event = event(text, millis, id);
        seq.map_or(event.clone(), |seq| from(event, OTHER, seq))
    });
    prop::collection::vec(one, 0..9)
}

/// The largest number of records without an id, or of other ones, that claims can serve.
fn can_claim(records: &[SyncEvent], events: &[SyncEvent]) -> bool {
    fn place(
        record: usize,
        records: &[SyncEvent],
        events: &[SyncEvent],
        holder: &mut [Option<usize>],
        seen: &mut [bool],
    ) -> bool {
        for at in 0..events.len() {
            let (ours, theirs) = (micros(&records[record]), micros(&events[at]));
            let near = ours == theirs
                || (second(&records[record]) == second(&events[at]) && (is_whole(ours) || is_whole(theirs)));
            if seen[at] || !near || !same_content(&records[record], &events[at]) {
                continue;
            }
            seen[at] = true;
            if holder[at].is_none_or(|other| place(other, records, events, holder, seen)) {
                holder[at] = Some(record);
                return true;
            }
        }
        false
    }
    let mut holder = vec![None; events.len()];
    (0..records.len())
        .all(|record| place(record, records, events, &mut holder, &mut vec![false; events.len()]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_second_import_finds_everything(there in crowd(), first in crowd(), other in crowd()) {
        let mut store = store(&there);
        import(&mut store, &first);
        prop_assert_eq!(import(&mut store, &first), (vec![], 0));
        import(&mut store, &other);
        prop_assert_eq!(import(&mut store, &other), (vec![], 0));
    }

    #[test]
    fn a_store_holds_what_it_holds(there in crowd()) {
        // All that is there comes again, as the older system or our export would tell it.
        let source: Vec<_> = there.iter().filter(|event| event.origin.is_none()).cloned().collect();
        prop_assert_eq!(imported(&there, &source), NONE);
    }

    #[test]
    fn records_without_ids_are_served_wherever_they_can_be(there in crowd(), source in crowd()) {
        let plain = |events: Vec<SyncEvent>| -> Vec<SyncEvent> {
            events.into_iter().map(|mut event| { event.legacy_id = None; event.origin = None; event }).collect()
        };
        let (there, source) = (plain(there), plain(source));
        let new = imported(&there, &source);
        prop_assert_eq!(new.is_empty(), can_claim(&source, &there));
        let matched = source.len() - new.len();
        let line = |index: usize| index as u64 + 1;
        let rest: Vec<_> = source.iter().enumerate().filter(|(index, _)| !new.contains(&line(*index))).map(|(_, event)| event.clone()).collect();
        prop_assert_eq!(rest.len(), matched);
        prop_assert!(can_claim(&rest, &there), "each claim is used once");
    }
}
