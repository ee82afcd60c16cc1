use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value as SqlValue;

use super::*;
use crate::event::Event;
use crate::sync::event::Company;

fn parameters(values: Vec<Value>) -> rusqlite::ParamsFromIter<Vec<SqlValue>> {
    let convert = |value| match value {
        Value::Null => SqlValue::Null,
        Value::Integer(number) => SqlValue::Integer(number),
        Value::Real(number) => SqlValue::Real(number),
        Value::Text(text) => SqlValue::Text(text),
        Value::Blob(bytes) => SqlValue::Blob(bytes),
    };
    rusqlite::params_from_iter(values.into_iter().map(convert).collect())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(1_765_962_000_000_000 + second * 1_000_000).unwrap()
}

/// Few values of each column, so that filters overlap, and many events of one time.
fn events() -> Vec<(u64, SyncEvent)> {
    (0..240_u64)
        .map(|number| {
            let pick = |of: u64| usize::try_from(number % of).unwrap();
            let company = Company::new(["a", "b"][pick(2)], ["1", "2", "3"][pick(3)], "name");
            let message = ["Sync STARTED", "über 100 Straßen", "श्री गणेश", "50% _of_ it\0end"][pick(4)];
            let mut event = SyncEvent::new(company, Level::ALL[pick(4)], message);
            event.status = Status::ALL.get(pick(5)).copied();
            event.details = [None, Some("ÜBER"), Some("")][pick(3)].map(Into::into);
            event.error_message = [None, Some("ΟΔΟΣ")][pick(7) / 6].map(Into::into);
            event.error_code = [None, Some("E1"), Some("e1")][pick(3)].map(Into::into);
            event.run = [None, Some("r1"), Some("' OR 1=1 --")][pick(6) / 2].map(Into::into);
            (number + 1, event.at(at(i64::try_from(number * 37 % 24).unwrap())))
        })
        .collect()
}

fn database(events: &[(u64, SyncEvent)]) -> Connection {
    let db = Connection::open_in_memory().unwrap();
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function(CONTAINS_FUNCTION, 2, flags, |call| {
        let needle =
            call.get_raw(1).as_str().map_err(|error| rusqlite::Error::UserFunctionError(error.into()))?;
        Ok(call
            .get_raw(0)
            .as_str_or_null()
            .ok()
            .flatten()
            .is_some_and(|text| contains_any_case(text, needle)))
    })
    .unwrap();
    let table = SyncEvent::TABLE;
    let columns: Vec<_> = table.columns.iter().map(|column| column.name).collect();
    db.execute_batch(&format!(
        "CREATE TABLE {} (id INTEGER PRIMARY KEY, {})",
        table.name,
        columns.join(", ")
    ))
    .unwrap();
    for index in table.indexes {
        db.execute_batch(&format!(
            "CREATE INDEX {} ON {} ({})",
            index.name,
            table.name,
            index.columns.join(", ")
        ))
        .unwrap();
    }
    let insert = format!("INSERT INTO {} VALUES (?{})", table.name, ", ?".repeat(columns.len()));
    for (id, event) in events {
        let mut values = vec![seq(*id)];
        values.extend(event.to_row());
        db.execute(&insert, parameters(values)).unwrap();
    }
    db
}

fn list(db: &Connection, filter: &Filter) -> Vec<u64> {
    let (sql, values) = filter.to_sql("id", "sync_logs");
    let mut statement = db.prepare(&sql).unwrap();
    let ids = statement.query_map(parameters(values), |row| row.get::<_, i64>(0)).unwrap();
    ids.map(|id| u64::try_from(id.unwrap()).unwrap()).collect()
}

fn count(db: &Connection, filter: &Filter) -> u64 {
    let (sql, values) = filter.count_sql("sync_logs");
    let count: i64 = db.query_row(&sql, parameters(values), |row| row.get(0)).unwrap();
    u64::try_from(count).unwrap()
}

/// What the filter says, worked out without SQL and without `Filter::matches`.
fn expected(filter: &Filter, events: &[(u64, SyncEvent)]) -> Vec<u64> {
    let mut keys: Vec<(Timestamp, u64)> = Vec::new();
    for (id, event) in events {
        let time = event.created_at.unwrap();
        let texts = [Some(event.message.clone()), event.details.clone(), event.error_message.clone()];
        let hit = filter.text.as_ref().is_none_or(|needle| {
            texts.iter().flatten().any(|text| text.to_lowercase().contains(&needle.to_lowercase()))
        });
        let pass = filter.company_guid.as_ref().is_none_or(|guid| *guid == event.company.guid)
            && filter.company_alterid.as_ref().is_none_or(|alterid| *alterid == event.company.alterid)
            && (filter.level.is_none() || filter.level == Some(event.level))
            && (filter.status.is_none() || filter.status == event.status)
            && (filter.run.is_none() || filter.run == event.run)
            && (filter.error_code.is_none() || filter.error_code == event.error_code)
            && filter.since.is_none_or(|since| since <= time)
            && filter.until.is_none_or(|until| until > time)
            && *id > filter.after_seq.unwrap_or(0)
            && *id < filter.before_seq.unwrap_or(u64::MAX)
            && hit;
        assert_eq!(filter.matches(*id, event), pass, "event {id} with {filter:?}");
        if pass {
            keys.push((time, *id));
        }
    }
    keys.sort_unstable();
    if !filter.reverse {
        keys.reverse();
    }
    keys.into_iter().map(|(_, id)| id).collect()
}

fn any_filter() -> impl Strategy<Value = Filter> {
    fn sometimes(from: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
        prop::option::weighted(0.25, prop::sample::select(from).prop_map(String::from))
    }
    let texts = (
        sometimes(&["a", "b", "c", "A"]),
        sometimes(&["1", "2", "3"]),
        sometimes(&["r1", "' OR 1=1 --", ""]),
        sometimes(&["E1", "e1", "E2"]),
        sometimes(&["sync", "ÜB", "गणेश", "%", "_", "", "it\0E", "οδο", "'", "nothing"]),
    );
    let words = (
        prop::option::weighted(0.25, prop::sample::select(&Level::ALL[..])),
        prop::option::weighted(0.25, prop::sample::select(&Status::ALL[..])),
    );
    let ranges = (
        prop::option::weighted(0.25, (0..26_i64).prop_map(at)),
        prop::option::weighted(0.25, (0..26_i64).prop_map(at)),
        prop::option::weighted(0.25, prop_oneof![0..250_u64, Just(u64::MAX)]),
        prop::option::weighted(0.25, prop_oneof![0..250_u64, Just(u64::MAX)]),
        any::<bool>(),
    );
    (texts, words, ranges).prop_map(|(texts, words, ranges)| Filter {
        company_guid: texts.0,
        company_alterid: texts.1,
        run: texts.2,
        error_code: texts.3,
        text: texts.4,
        level: words.0,
        status: words.1,
        since: ranges.0,
        until: ranges.1,
        after_seq: ranges.2,
        before_seq: ranges.3,
        reverse: ranges.4,
        after: None,
        before: None,
        limit: None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn lists_counts_and_pages_agree_with_a_plain_walk(filters in prop::collection::vec(any_filter(), 8), page in 1..60_u64) {
        let events = events();
        let db = database(&events);
        for filter in filters {
            let expected = expected(&filter, &events);
            prop_assert_eq!(&list(&db, &filter), &expected, "{:?}", filter);
            prop_assert_eq!(count(&db, &filter), expected.len() as u64);

            let mut paged = Vec::new();
            let mut next = filter.clone().limit(page);
            loop {
                let ids = list(&db, &next);
                prop_assert!(ids.len() as u64 <= page);
                prop_assert_eq!(count(&db, &next), expected.len() as u64, "a count looks at no page");
                paged.extend_from_slice(&ids);
                let Some(last) = ids.last() else { break };
                let created_at = events[usize::try_from(*last).unwrap() - 1].1.created_at.unwrap();
                next = next.after(Key { created_at, id: *last });
            }
            prop_assert_eq!(paged, expected);
        }
    }
}

#[test]
fn no_filter_is_every_event_newest_first() {
    let events = events();
    let db = database(&events);
    let all = list(&db, &Filter::new());
    assert_eq!(all.len(), 240);
    assert_eq!(list(&db, &Filter::new().limit(3)), all[..3]);
    assert_eq!(list(&db, &Filter::new().limit(0)), [] as [u64; 0]);
    assert_eq!(list(&db, &Filter::new().limit(u64::MAX)), all);
    let oldest = list(&db, &Filter::new().reverse(true));
    assert_eq!(oldest, all.into_iter().rev().collect::<Vec<_>>());
}

#[test]
fn input_is_never_part_of_the_sql() {
    let evil = "'; DROP TABLE sync_logs; --";
    let filter = Filter::new().company(evil, evil).run(evil).error_code(evil).text(evil).after_seq(7);
    let (sql, values) = filter.to_sql("id", "sync_logs");
    assert!(!sql.contains("DROP") && !sql.contains('\''), "{sql}");
    assert_eq!(values.iter().filter(|value| **value == Value::Text(evil.into())).count(), 4);
    let lowered = Value::Text(evil.to_lowercase());
    assert_eq!(values.iter().filter(|value| **value == lowered).count(), 1);
}

#[test]
fn text_matches_in_any_case_of_any_script() {
    let pairs = [
        ("Straße", "STRASSE"),
        ("STRASSE", "straße"),
        ("STRAẞE", "straße"),
        ("ΟΔΟΣ ΕΡΜΟΥ", "οδος"),
        ("οδός", "ΟΔΌΣ"),
        ("ὈΔΥΣΣΕΎΣ", "ὀδυσσεύς"),
        ("ÜBERTRAGUNG", "übertragung"),
        ("ИМПОРТ", "импорт"),
        ("श्री गणेश ट्रेडर्स", "गणेश"),
        ("İstanbul", "i̇STANBUL"),
        ("300 K\u{212a}", "kk"),
        ("a\0B", "A\0b"),
        ("anything", ""),
    ];
    for (haystack, needle) in pairs {
        assert!(contains_any_case(haystack, &fold_case(needle)), "{haystack:?} {needle:?}");
    }
    for (haystack, needle) in
        [("Strase", "straße"), ("गण", "गणेश"), ("uber", "über"), ("abc", "a%c"), ("", "a")]
    {
        assert!(!contains_any_case(haystack, &fold_case(needle)), "{haystack:?} {needle:?}");
    }
}

#[test]
fn queries_use_the_indexes() {
    let db = database(&events());
    let explain = |(sql, values): (String, Vec<Value>)| -> String {
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let lines = statement.query_map(parameters(values), |row| row.get::<_, String>(3)).unwrap();
        lines.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    for (filter, index) in [
        (Filter::new(), "sync_logs_time"),
        (Filter::new().company("a", "1"), "sync_logs_company"),
        (Filter::new().level(Level::Error), "sync_logs_level"),
        (Filter::new().status(Status::Failed), "sync_logs_status"),
        (Filter::new().after(Key { created_at: at(3), id: 9 }), "sync_logs_time"),
    ] {
        let plan = explain(filter.to_sql("id", "sync_logs"));
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
    }
    // However a list is filtered, its pages together look at each row once.
    let after = PageCursor { created_at: at(3), id: 9 };
    for filter in [
        Filter::new().company_guid("a"),
        Filter::new().run("r1"),
        Filter::new().company_guid("a").run("r1").error_code("E1").text("x").after_seq(3),
        Filter::new().company("a", "1").run("r1"),
        Filter::new().level(Level::Error).status(Status::Failed).company_guid("b"),
    ] {
        for filter in [filter.clone().after(after), filter.reverse(true).after(after)] {
            let plan = explain(filter.one_of_many_sql("id", "sync_logs"));
            assert!(plan.contains("created_at") && !plan.contains("TEMP B-TREE"), "{filter:?}: {plan}");
        }
    }
}
