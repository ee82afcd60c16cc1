use proptest::prelude::*;

use super::*;

fn event() -> SyncEvent {
    SyncEvent::new(Company::new("guid", "1.0", "Acme"), Level::Info, "started")
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z]{1,8}",
        Just("a\0b\u{1b}[31m\u{202e} 😀".to_string()),
        Just("श्री गणेश".to_string()),
    ]
}

fn filled(text: String) -> String {
    if text.trim().is_empty() { format!("{text}x") } else { text }
}

prop_compose! {
    fn any_event()(
        required in prop::array::uniform4(any_text()),
        optional in prop::array::uniform4(prop::option::of(any_text())),
        (level, status) in (0..4_usize, prop::option::of(0..4_usize)),
        (records_synced, legacy_id) in any::<(Option<i64>, Option<i64>)>(),
        duration in prop::option::of(prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL),
        micros in prop::option::of(Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros()),
        origin in prop::option::of((any::<[u8; 16]>(), 1..=i64::MAX.cast_unsigned())),
    ) -> SyncEvent {
        let [guid, alterid, name, message] = required.map(filled);
        let [details, error_code, error_message, run] = optional;
        SyncEvent {
            company: Company { guid, alterid, name },
            level: Level::ALL[level],
            message,
            details,
            status: status.map(|at| Status::ALL[at]),
            records_synced,
            error_code,
            error_message,
            duration_seconds: duration,
            created_at: micros.and_then(Timestamp::from_micros),
            run: run.map(filled),
            legacy_id,
            origin: origin.map(|(store, seq)| Origin { store: StoreId(store), seq }),
        }
    }
}

proptest! {
    #[test]
    fn prepared_events_survive_bytes_and_rows(mut event in any_event()) {
        let before = event.clone();
        event.prepare(time("2025-12-17")).unwrap();
        prop_assert!(before.repeats(&event));
        prop_assert_eq!(&SyncEvent::decode(1, &event.encode(1).unwrap()).unwrap(), &event);
        let row = event.to_row();
        prop_assert_eq!(row.len(), SyncEvent::TABLE.columns.len());
        prop_assert_eq!(&SyncEvent::from_row(&row).unwrap(), &event);
        prop_assert!(event.duration_seconds.is_none_or(|seconds| seconds != 0.0 || seconds.is_sign_positive()));
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(event) = SyncEvent::decode(1, &bytes) {
            let again = SyncEvent::decode(1, &event.encode(1).unwrap()).unwrap();
            prop_assert_eq!(&SyncEvent::from_row(&event.to_row()).unwrap(), &again);
        }
    }

    #[test]
    fn a_changed_byte_never_causes_a_panic(mut event in any_event(), at in any::<prop::sample::Index>(), to: u8) {
        event.prepare(time("2025-12-17")).unwrap();
        let mut bytes = event.encode(1).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(other) = SyncEvent::decode(1, &bytes) {
            prop_assert_eq!(&SyncEvent::from_row(&other.to_row()).unwrap(), &other);
        }
    }

    #[test]
    fn rows_with_one_other_value_are_refused_or_other_events(mut event in any_event(), column in 0..16_usize, pick in 0..5_usize) {
        event.prepare(time("2025-12-17")).unwrap();
        let mut row = event.to_row();
        let other = [
            Value::Null,
            Value::Integer(-1),
            Value::Real(0.5),
            Value::Text("other".into()),
            Value::Blob(vec![1]),
        ][pick].clone();
        prop_assume!(row[column] != other);
        row[column] = other;
        match SyncEvent::from_row(&row) {
            Ok(read) => prop_assert_eq!(read.to_row(), row),
            Err(error) => prop_assert!(matches!(error, Error::Codec { .. }), "{error:?}"),
        }
    }
}

#[test]
fn empty_required_fields_are_refused_by_name() {
    type Change = fn(&mut SyncEvent);
    let cases: [(&str, Change); 6] = [
        ("company_guid", |event| event.company.guid = " \t\n".into()),
        ("company_alterid", |event| event.company.alterid.clear()),
        ("company_name", |event| event.company.name = "\u{3000}".into()),
        ("log_message", |event| event.message.clear()),
        ("run", |event| event.run = Some(String::new())),
        ("origin_seq", |event| event.origin = Some(Origin { store: StoreId([1; 16]), seq: 1 << 63 })),
    ];
    for (name, change) in cases {
        let mut event = event();
        change(&mut event);
        match event.prepare(Timestamp::MIN) {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn text_is_kept_as_given_and_numbers_become_canonical() {
    let mut event = event().with_duration(-0.0).with_details("");
    event.message = "  two  blanks \0\u{7} ".into();
    event.prepare(time("2025-12-17 09:00:00.5")).unwrap();
    assert_eq!(event.message, "  two  blanks \0\u{7} ");
    assert_eq!(event.details.as_deref(), Some(""));
    assert_eq!(event.duration_seconds.map(f64::to_bits), Some(0));
    assert_eq!(event.created_at, Some(time("2025-12-17 09:00:00.5")));
    event.prepare(time("2026-01-01")).unwrap();
    assert_eq!(event.created_at, Some(time("2025-12-17 09:00:00.5")), "a given time stays");
    for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(event.clone().with_duration(seconds).prepare(Timestamp::MIN).is_err());
    }
}

#[test]
fn payloads_of_impossible_values_are_refused() {
    let mut event = event().with_duration(0.75).at(time("2025-12-17"));
    event.origin = Some(Origin { store: StoreId([9; 16]), seq: 5 });
    let good = event.encode(1).unwrap();
    assert!(SyncEvent::decode(1, &good).is_ok());
    for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0] {
        let bytes = event.clone().with_duration(seconds).encode(1).unwrap();
        assert!(matches!(SyncEvent::decode(1, &bytes), Err(Error::Codec { .. })), "{seconds}");
        let row = event.clone().with_duration(seconds).to_row();
        assert!(matches!(SyncEvent::from_row(&row), Err(Error::Codec { .. })), "{seconds}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(SyncEvent::decode(1, &longer).is_err(), "trailing bytes");
    for end in 0..good.len() {
        assert!(SyncEvent::decode(1, &good[..end]).is_err(), "cut at {end}");
    }
    for seq in [0, 1 << 63] {
        event.origin = Some(Origin { store: StoreId([9; 16]), seq });
        assert!(SyncEvent::decode(1, &event.encode(1).unwrap()).is_err(), "origin seq {seq}");
    }
    assert!(matches!(event.encode(2), Err(Error::Codec { .. })));
    assert!(matches!(SyncEvent::decode(0, &good), Err(Error::Codec { .. })));
    event.created_at = None;
    assert!(matches!(event.encode(1), Err(Error::Codec { .. })), "not prepared");
}

#[test]
fn rows_in_another_form_are_refused() {
    let row = event().with_status(Status::Failed).at(time("2025-12-17")).to_row();
    assert!(SyncEvent::from_row(&row).is_ok());
    assert!(SyncEvent::from_row(&row[1..]).is_err(), "a column less");
    let changes = [
        (3, "info"),
        (3, "LOUD"),
        (6, "Failed"),
        (6, ""),
        (11, "2025-12-17"),
        (11, "2025-12-17T00:00:00.000000"),
        (11, "2025-12-17 00:00:00.000000Z"),
        (14, "ABCDEFABCDEFABCDEFABCDEFABCDEFAB"),
    ];
    for (column, text) in changes {
        let mut row = row.clone();
        row[column] = Value::Text(text.into());
        row[15] = if column == 14 { Value::Integer(1) } else { Value::Null };
        assert!(matches!(SyncEvent::from_row(&row), Err(Error::Codec { .. })), "{text:?}");
    }
}

#[test]
fn a_repeat_may_leave_only_the_time_open() {
    let mut stored = event().with_duration(0.0);
    stored.prepare(time("2025-12-17")).unwrap();
    assert!(event().with_duration(-0.0).repeats(&stored));
    assert!(event().with_duration(0.0).at(time("2025-12-17")).repeats(&stored));
    assert!(!event().with_duration(0.0).at(time("2025-12-18")).repeats(&stored));
    assert!(!event().repeats(&stored));
    assert!(!event().with_duration(0.0).with_run("r").repeats(&stored));
}

#[test]
fn words_go_out_exact_and_come_in_in_any_case() {
    for level in Level::ALL {
        assert_eq!(level.to_string().to_lowercase().parse::<Level>().unwrap(), level);
    }
    for status in Status::ALL {
        assert_eq!(status.to_string().to_uppercase().parse::<Status>().unwrap(), status);
    }
    assert_eq!(Level::ALL.map(Level::as_str), ["INFO", "WARNING", "ERROR", "SUCCESS"]);
    assert_eq!(Status::ALL.map(Status::as_str), ["started", "in_progress", "completed", "failed"]);
    for word in ["", "INFO ", "fatal", "ınfo"] {
        assert!(word.parse::<Level>().is_err(), "{word:?}");
    }
    assert!("in progress".parse::<Status>().is_err());
    assert_eq!(Level::default_for(None), Level::Info);
    assert_eq!(
        Status::ALL.map(|status| Level::default_for(Some(status))),
        [Level::Info, Level::Info, Level::Success, Level::Error]
    );
}

/// Every kind of field, in an order that the golden file follows line by line.
fn golden_events() -> Vec<SyncEvent> {
    let acme = Company::new("8f0c1d52-41c7-4b0e-9a57-2f6a5f0c7d11", "102209.0", "Acme Traders Pvt Ltd 25-26");
    let ganesh = Company::new("c1b7a0de", "4401", "श्री गणेश ट्रेडर्स");
    let at = time("2025-12-17 09:00:00.123456");
    let mut imported = SyncEvent::new(ganesh, Level::Warning, "a\0b\u{1b}[31m 😀").at(Timestamp::MIN);
    imported.records_synced = None;
    imported.legacy_id = Some(-174);
    imported.origin = Some(Origin { store: StoreId(*b"0123456789abcdef"), seq: i64::MAX.cast_unsigned() });
    vec![
        SyncEvent::new(acme.clone(), Level::Info, "Sync started")
            .with_details("Range 01-04-2025 to 31-03-2026")
            .with_status(Status::Started)
            .with_run("run-1")
            .at(at),
        SyncEvent::new(acme.clone(), Level::Info, "100 vouchers inserted")
            .with_status(Status::InProgress)
            .with_records(100)
            .at(at),
        SyncEvent::new(acme.clone(), Level::Success, "Sync completed")
            .with_status(Status::Completed)
            .with_records(i64::MAX)
            .with_duration(0.1)
            .at(time("9999-12-30 21:59:59.999999")),
        SyncEvent::new(acme, Level::Error, "Sync failed")
            .with_status(Status::Failed)
            .with_records(i64::MIN)
            .with_error("FETCH_ERROR", "[HY000] timeout\n  at fetch()")
            .with_duration(f64::MIN_POSITIVE)
            .at(Timestamp::from_micros(-1).unwrap()),
        imported,
    ]
}

#[test]
fn version_1_keeps_its_bytes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/sync_event_v1.hex");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let lines: Vec<String> = std::fs::read_to_string(path).unwrap().lines().map(Into::into).collect();
    let events = golden_events();
    let written: Vec<String> = events.iter().map(|event| hex(&event.encode(1).unwrap())).collect();
    assert_eq!(written, lines, "these bytes are in people's logs: add a version, never change one");
    for (line, event) in lines.iter().zip(&events) {
        let bytes: Vec<u8> =
            (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect();
        assert_eq!(SyncEvent::decode(1, &bytes).unwrap(), *event);
    }
}

#[test]
fn the_table_keeps_its_columns() {
    let names: Vec<_> = SyncEvent::TABLE.columns.iter().map(|column| column.name).collect();
    assert_eq!(
        names.join(" "),
        "company_guid company_alterid company_name log_level log_message log_details sync_status \
         records_synced error_code error_message duration_seconds created_at run legacy_id \
         origin_store origin_seq"
    );
    for index in SyncEvent::TABLE.indexes {
        assert!(index.name.starts_with("sync_logs_"), "{}", index.name);
        assert!(index.columns.iter().all(|name| *name == "id" || names.contains(name)), "{index:?}");
    }
}
