use std::io::{BufReader, Read};

use proptest::prelude::*;

use super::*;
use crate::sync::event::{Level, Status};
use crate::sync::import::{Extra, Record, utc};

fn read(bytes: &[u8]) -> Source {
    read_lines(bytes, Path::new("-"), &Reading::of(&utc)).unwrap()
}

/// A good line, with fields replaced (a JSON value), added, or left out (an empty one).
fn line(changes: &[(&str, &str)]) -> String {
    let mut fields = vec![
        ("log_id", "7"),
        ("company_guid", "\"g\""),
        ("company_alterid", "\"1\""),
        ("company_name", "\"Acme\""),
        ("log_level", "\"INFO\""),
        ("log_message", "\"text\""),
        ("timestamp", "\"2025-12-17T09:00:00.5\""),
    ];
    for (name, value) in changes {
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    let fields: Vec<_> = fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn reason(changes: &[(&str, &str)]) -> String {
    let source = read(line(changes).as_bytes());
    assert_eq!(source.records, [], "{changes:?}");
    assert_eq!(source.rejections.len(), 1, "{changes:?}");
    source.rejections[0].reason.clone()
}

fn accept(changes: &[(&str, &str)]) -> Record {
    let source = read(line(changes).as_bytes());
    assert_eq!(source.rejections, [], "{changes:?}");
    source.records[0].clone()
}

#[test]
fn a_good_line_is_read_as_it_is() {
    let record = accept(&[
        ("log_level", "\"warning\""),
        ("sync_status", "\"in_progress\""),
        ("records_synced", "-3"),
        ("duration_seconds", "2"),
        ("log_details", "\" a\\u0000b \""),
    ]);
    assert_eq!((record.line, record.event.legacy_id), (1, Some(7)));
    assert_eq!((record.event.level, record.event.status), (Level::Warning, Some(Status::InProgress)));
    assert_eq!((record.event.records_synced, record.event.duration_seconds), (Some(-3), Some(2.0)));
    assert_eq!(record.event.details.as_deref(), Some(" a\0b "));
    assert_eq!(record.event.created_at.unwrap().to_string(), "2025-12-17 09:00:00.500000");
    let other = accept(&[
        ("log_id", ""),
        ("id", "null"),
        ("timestamp", ""),
        ("created_at", "\"2025-12-17 09:00:00\""),
    ]);
    assert_eq!(other.event.legacy_id, None);
    assert_eq!(other.event.records_synced, None, "what is not given is not made up");
    assert!(other.event.created_at.unwrap().is_whole_second());
    let zero = accept(&[("duration_seconds", "-0.0")]);
    assert_eq!(zero.event.duration_seconds.map(f64::to_bits), Some(0));
}

#[test]
fn what_is_no_event_is_rejected_with_a_reason() {
    for (changes, expected) in [
        (&[("records_synced", "\"many\"")][..], "records_synced is text, not an integer"),
        (&[("records_synced", "true")], "records_synced is true or false, not an integer"),
        (&[("records_synced", "1.5")], "records_synced is a number with a fraction, not an integer"),
        (
            &[("records_synced", "9223372036854775808")],
            "records_synced is an integer beyond 64 bits, not an integer",
        ),
        (&[("records_synced", "[1]")], "records_synced is an array, not an integer"),
        (&[("log_id", "\"7\"")], "log_id is text, not an integer"),
        (&[("company_alterid", "102209.0")], "company_alterid is a number with a fraction, not text"),
        (&[("company_name", "7")], "company_name is an integer, not text"),
        (&[("log_details", "{\"a\":{\"b\":1}}")], "log_details is an object, not text"),
        (&[("duration_seconds", "\"1\"")], "duration_seconds is text, not a number"),
        (
            &[("duration_seconds", "9007199254740993")],
            "duration_seconds is an integer too large to keep every digit",
        ),
        (&[("company_guid", "")], "company_guid is missing"),
        (&[("company_guid", "null")], "company_guid is empty"),
        (&[("company_guid", "\" \\t\"")], "company_guid is empty"),
        (&[("log_message", "")], "log_message is missing"),
        (&[("log_message", "\"\"")], "log_message is empty"),
        (&[("log_level", "")], "log_level is missing"),
        (&[("timestamp", "")], "timestamp is missing"),
        (&[("timestamp", "1765962000")], "timestamp is an integer, not text"),
        (&[("run", "[]")], "run is an array, not text"),
    ] {
        assert_eq!(reason(changes), expected);
    }
    assert!(reason(&[("timestamp", "\"yesterday\"")]).starts_with("timestamp is not a date"), "no time");
    let twice = line(&[]).replace("\"log_id\":7", "\"log_id\":7,\"log_id\":7");
    assert_eq!(read(twice.as_bytes()).rejections[0].reason, "log_id is given twice");
    let long = format!("\"{}\"", "x".repeat(5000));
    assert!(read(long.as_bytes()).rejections[0].reason.len() < 300);
}

#[test]
fn export_lines_need_their_identity() {
    let store = "\"01010101010101010101010101010101\"";
    let own = |more: &[(&'static str, &'static str)]| {
        let mut fields = vec![("log_id", ""), ("seq", "5"), ("store", store)];
        fields.extend(more);
        fields
    };
    let record = accept(&own(&[("key", "\"k\""), ("run", "\"r\""), ("legacy_id", "9")]));
    assert_eq!(record.origin().map(|origin| origin.seq), Some(5));
    assert_eq!((record.key.as_deref(), record.event.legacy_id), (Some("k"), Some(9)));
    let record =
        accept(&own(&[("origin_store", "\"02020202020202020202020202020202\""), ("origin_seq", "8")]));
    assert_eq!(
        record.origin().map(|origin| (origin.seq, origin.store.to_string().starts_with("02"))),
        Some((8, true))
    );
    for (changes, expected) in [
        (own(&[("origin_seq", "8")]), "only one of origin_store and origin_seq is given"),
        (own(&[("seq", "0")]), "seq is 0, not a number from 1 on"),
        (own(&[("seq", ""), ("appended_at", "\"2025-12-17\"")]), "seq is missing"),
        (own(&[("store", ""), ("appended_at", "\"2025-12-17\"")]), "store is missing"),
        (own(&[("log_level", "\"LOUD\"")]), "log_level is the unknown word \"LOUD\""),
        (own(&[("store", "\"01\"")]), "store is not 32 hex digits"),
        (own(&[("log_id", "5")]), "log_id does not belong into an export line"),
        (own(&[("run", "\"\"")]), "run is empty"),
    ] {
        assert_eq!(reason(&changes), expected);
    }
    assert!(
        reason(&own(&[("appended_at", "\"x\"")])).starts_with("appended_at is not a date"),
        "checked too"
    );
}

#[test]
fn lines_are_counted_and_ends_do_not_matter() {
    let good = line(&[]);
    let text = format!("\u{feff}{good}\r\n\n  \t\r\n{good} \n{{\"torn\": \n\u{feff}{good}\n{good}");
    let source = read(text.as_bytes());
    assert_eq!(source.records.iter().map(|record| record.line).collect::<Vec<_>>(), [1, 4, 6, 7]);
    assert_eq!(source.rejections.iter().map(|rejection| rejection.line).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(read(b""), Source::default());
    assert_eq!(read(b"\n\n"), Source::default());

    let mut bytes = b"{\"company_guid\":\"\xff\"}\n".to_vec();
    bytes.extend_from_slice(good.as_bytes());
    let source = read(&bytes);
    assert_eq!(source.rejections[0].reason, "the line is not UTF-8 from byte 18 on");
    assert_eq!(source.records[0].line, 2);
    for text in ["[]", "7", "null", "\"x\"", "NaN", "{\"duration_seconds\":1e999}"] {
        assert_eq!(read(text.as_bytes()).rejections.len(), 1, "{text}");
    }
}

/// Lines and objects.
type Places = Vec<(u64, u64)>;

/// Where each record and each rejection stands.
fn places(source: &Source) -> (Places, Places) {
    let records = source.records.iter().map(|record| (record.line, record.object)).collect();
    (records, source.rejections.iter().map(|rejection| (rejection.line, rejection.object)).collect())
}

#[test]
fn two_objects_on_one_line_are_both_taken() {
    let good = line(&[("company_name", "\"a {\\\"b\\\": 1} c\"")]);
    for between in ["", " ", ",", ", \t"] {
        let source = read(format!("{good}{between}{good}\n{good}").as_bytes());
        assert_eq!(places(&source), (vec![(1, 1), (1, 2), (2, 0)], vec![]), "{between:?}");
    }
    // As `sqlite3 -json` writes a table.
    let source = read(format!("[{good},\n{good}]\n").as_bytes());
    assert_eq!(places(&source), (vec![(1, 0), (2, 0)], vec![]));
    let source = read(format!("{good} and {good} more {{}}").as_bytes());
    assert_eq!(places(&source), (vec![(1, 1), (1, 3)], vec![(1, 2), (1, 4)]));
    let json = serde_json::to_string(&source.rejections[0]).unwrap();
    assert!(json.starts_with("{\"line\":1,\"object\":2,\"rejected\":"), "{json}");
}

#[test]
fn behind_a_torn_line_the_next_object_is_taken() {
    let good = line(&[("company_name", "\"श्री गणेश \\\"x\\\" {\"")]);
    let nested = line(&[("other", "{\"a\":[{\"b\":1}]}")]);
    for whole in [&good, &nested] {
        // Also inside a letter, an escape, a number, behind a colon.
        for at in 1..whole.len() {
            let torn = [&whole.as_bytes()[..at], good.as_bytes()].concat();
            let source = read(&torn);
            assert_eq!(places(&source), (vec![(1, 2)], vec![(1, 1)]), "torn at {at}");
            assert_eq!(source.records[0].event.company.name, "श्री गणेश \"x\" {");
        }
    }
}

#[test]
fn a_line_of_many_beginnings_is_not_read_once_for_each() {
    for piece in ["{\"a\":", "{\"company_guid\":\"", "{\"a\":{}} {\"b\":["] {
        let source = read(piece.repeat(300_000).as_bytes());
        assert_eq!(source.records, []);
    }
}

#[test]
fn what_the_older_system_accepted_is_not_lost() {
    for empty in ["\"\"", "\" \"", "null"] {
        let source = read(line(&[("company_alterid", empty)]).as_bytes());
        assert_eq!(source.records[0].event.company.alterid, "-", "{empty}");
        assert_eq!(source.empty_alterids, 1);
    }
    assert_eq!(reason(&[("company_alterid", "")]), "company_alterid is missing");

    let source = read(
        line(&[("log_level", "\"CRITICAL\""), ("sync_status", "\"timed_out\""), ("log_details", "\"more\"")])
            .as_bytes(),
    );
    let event = &source.records[0].event;
    assert_eq!((event.level, event.status), (Level::Info, None));
    assert_eq!(event.details.as_deref(), Some("more\nlog_level: CRITICAL\nsync_status: timed_out"));
    assert_eq!(source.unknown_words, 2);
    let event = accept(&[("log_level", "\"fatal\""), ("sync_status", "\"failed\"")]).event;
    assert_eq!((event.level, event.details.as_deref()), (Level::Error, Some("log_level: fatal")));
    assert_eq!(accept(&[("sync_status", "\"\"")]).event.status, None);
}

#[test]
fn unknown_fields_go_into_the_details_or_are_dropped() {
    let text = line(&[
        ("host", "\"web 1\""),
        ("nothing", "null"),
        ("stats", "{\"a\": [1, 2.50]}"),
        ("ex\\u001btra", "7"),
        ("store", "\"north\""),
        ("log_details", "\"Batch 3\""),
    ]);
    let source = read(text.as_bytes());
    assert_eq!(source.rejections, []);
    let wanted = "Batch 3\n[extra] host: web 1\n[extra] stats: {\"a\": [1, 2.50]}\n[extra] \"ex\\u{1b}tra\": 7\n\
        [extra] store: north";
    assert_eq!(source.records[0].event.details.as_deref(), Some(wanted));
    assert_eq!(source.extra_fields, ["host", "stats", "\"ex\\u{1b}tra\"", "store"]);
    let drop = Reading { extra: Extra::Drop, ..Reading::of(&utc) };
    let dropped = read_lines(text.as_bytes(), Path::new("-"), &drop).unwrap();
    assert_eq!(dropped.records[0].event.details.as_deref(), Some("Batch 3"));
    assert_eq!(dropped.extra_fields, source.extra_fields, "told all the same");
    for source in [source, dropped] {
        assert_eq!(super::super::fields::details_of(&source.records[0].event), Some("Batch 3"));
    }
    assert_eq!(accept(&[("nothing", "null")]).event.details, None);
}

#[test]
fn run_and_key_are_taken_and_names_in_any_letters() {
    let record = accept(&[("run", "\"nightly\""), ("key", "\"k1\"")]);
    assert_eq!((record.event.run.as_deref(), record.key.as_deref()), (Some("nightly"), Some("k1")));
    let record = accept(&[("run", "17"), ("key", "\"\"")]);
    assert_eq!((record.event.run.as_deref(), record.key), (Some("17"), None));
    let text = line(&[]).replace("company_guid", "Company_GUID").replace("log_id", "LOG_ID");
    let source = read(text.as_bytes());
    assert_eq!((source.records[0].event.legacy_id, source.extra_fields.len()), (Some(7), 0));
    // Two names of one field: the first one is meant, and the other is one more.
    let event = accept(&[("id", "8"), ("created_at", "\"2020-01-01\"")]).event;
    assert_eq!(event.legacy_id, Some(7));
    assert_eq!(event.details.as_deref(), Some("[extra] id: 8\n[extra] created_at: 2020-01-01"));
    assert_eq!(accept(&[("id", "7"), ("created_at", "null")]).event.details, None);
}

#[test]
fn deep_nesting_is_no_danger() {
    for (open, depth) in [("[", 1_000_000), ("{\"a\":", 1_000_000), ("{\"log_details\":[", 100_000)] {
        let source = read(open.repeat(depth).as_bytes());
        assert_eq!((source.records.len(), source.rejections.len()), (0, 1), "{open}");
    }
}

#[test]
fn long_lines_are_passed_over_without_being_kept() {
    let line = |text: &'static str, limit: usize| {
        let mut input = BufReader::with_capacity(3, text.as_bytes());
        let (mut bytes, mut found) = (Vec::new(), Vec::new());
        loop {
            bytes.clear();
            match next(&mut input, &mut bytes, limit).unwrap() {
                Line::End => return found,
                Line::Whole => found.push(String::from_utf8(bytes.clone()).unwrap()),
                Line::TooLong => found.push(format!("more than {}", bytes.len())),
            }
            assert!(bytes.len() <= limit, "no more is kept than the limit");
        }
    };
    assert_eq!(line("12345\n\n1234\n123456789\n1", 5), ["12345", "", "1234", "more than 3", "1"]);
    assert_eq!(line("123456", 5), ["more than 3"]);
    assert_eq!(line("", 5), [] as [&str; 0]);

    let good = self::line(&[]);
    let endless = std::io::repeat(b' ').take(MAX_LINE as u64 + 1);
    let input = BufReader::new(endless.chain("\n".as_bytes()).chain(good.as_bytes()));
    let source = read_lines(input, Path::new("-"), &Reading::of(&utc)).unwrap();
    assert_eq!((source.rejections[0].line, source.records[0].line), (1, 2));
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read(&bytes);
    }

    #[test]
    fn no_changed_line_causes_a_panic(at in any::<prop::sample::Index>(), to: u8) {
        let mut bytes = line(&[("records_synced", "1"), ("duration_seconds", "1.5")]).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let source = read(&bytes);
        prop_assert!(source.rejections.len() + source.records.len() <= 3);
    }
}
