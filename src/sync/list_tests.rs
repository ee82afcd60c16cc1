//! Lists are read in short pages: what that promises, and what it must not keep others from.

use proptest::prelude::*;

use crate::sync::{Company, Filter, Level, PageCursor, SyncEvent, SyncLog};
use crate::time::Timestamp;

fn event(number: u64, second: i64) -> SyncEvent {
    let time = Timestamp::from_micros(1_765_962_000_000_000 + second * 1_000_000).unwrap();
    SyncEvent::new(
        Company::new(["a", "b"][(number % 2) as usize], "1", "n"),
        Level::Info,
        format!("m{number}"),
    )
    .at(time)
}

/// Times that do not follow the seqs, many of them equal, as imported history has them.
fn store(events: u64) -> (tempfile::TempDir, SyncLog) {
    let dir = tempfile::tempdir().unwrap();
    let log = SyncLog::open(dir.path()).unwrap();
    log.store().append_all((1..=events).map(|number| event(number, (number * 37 % 24) as i64))).unwrap();
    (dir, log)
}

#[test]
fn a_slow_reader_of_a_list_keeps_nobody_from_cutting_the_write_ahead_log_back() {
    let (dir, log) = store(40);
    let (mut given, mut busy) = (0, Vec::new());
    log.reader()
        .unwrap()
        .each(&Filter::new(), |_| {
            given += 1;
            let other = rusqlite::Connection::open(dir.path().join("synclog.db")).unwrap();
            let cut =
                other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).unwrap();
            busy.push(cut);
            true
        })
        .unwrap();
    assert_eq!(given, 40);
    assert!(busy.iter().all(|busy| *busy == 0), "{busy:?}");
}

#[test]
fn rows_that_come_meanwhile_are_given_once_where_their_place_is_ahead() {
    for reverse in [false, true] {
        let (_dir, log) = store(30);
        let mut given: Vec<PageCursor> = Vec::new();
        log.reader()
            .unwrap()
            .each(&Filter::new().reverse(reverse), |entry| {
                if given.len().is_multiple_of(5) && given.len() < 60 {
                    log.store().append(event(1000, (given.len() as i64 * 7) % 24)).unwrap();
                }
                given.push(entry.page_cursor());
                true
            })
            .unwrap();
        assert!(given.is_sorted_by(|one, next| if reverse { one < next } else { one > next }), "{given:?}");
        for seq in 1..=30 {
            assert!(given.iter().any(|place| place.id == seq), "row {seq} is missing");
        }
        assert!(given.len() > 30, "some came");
    }
}

#[test]
fn imported_history_is_paged_forward_and_back_as_a_whole() {
    let (_dir, log) = store(100);
    let reader = log.reader().unwrap();
    let config = ProptestConfig { cases: 64, ..ProptestConfig::default() };
    let inputs = (1..40_u64, any::<bool>(), any::<bool>(), prop::option::of(0..100_u64));
    proptest!(config, |((limit, reverse, company, after_seq) in inputs)| {
        let mut filter = Filter::new().reverse(reverse);
        filter.company_guid = company.then(|| "a".into());
        filter.after_seq = after_seq;
        let ids = |filter: &Filter| -> Vec<u64> {
            reader.list(filter).unwrap().iter().map(|entry| entry.seq).collect()
        };
        let all = ids(&filter);
        let mut pages: Vec<Vec<crate::sync::LogEntry>> = Vec::new();
        let mut next = filter.clone().limit(limit);
        loop {
            let page = reader.list(&next).unwrap();
            let Some(last) = page.last() else { break };
            next = next.after(last.page_cursor().to_string().parse().unwrap());
            pages.push(page);
        }
        let forward: Vec<u64> = pages.iter().flatten().map(|entry| entry.seq).collect();
        prop_assert_eq!(&forward, &all, "each row once");
        for pair in pages.windows(2) {
            let back = reader.list(&filter.clone().limit(limit).before(pair[1][0].page_cursor())).unwrap();
            prop_assert_eq!(&back, &pair[0], "the page before");
        }
        if let (Some(first), Some(last)) = (pages.first(), pages.last()) {
            let between = filter.clone().after(first[0].page_cursor()).before(last[0].page_cursor());
            let expected: Vec<u64> = pages[..pages.len() - 1].iter().flatten().map(|entry| entry.seq).skip(1).collect();
            prop_assert_eq!(ids(&between), expected);
            prop_assert_eq!(reader.count(&between).unwrap(), all.len() as u64, "a count looks at no page");
        }
    });
}

#[test]
fn a_page_cursor_reads_back_and_nothing_else_does() {
    for place in [
        PageCursor { created_at: Timestamp::MIN, id: 0 },
        PageCursor { created_at: Timestamp::MAX, id: u64::MAX },
        PageCursor { created_at: Timestamp::from_micros(-1).unwrap(), id: 7 },
    ] {
        let text = place.to_string();
        assert_eq!(text.parse::<PageCursor>().unwrap(), place);
        for bad in [&text[1..], &format!("{text}0"), &text.replace('0', "x"), &format!("+{}", &text[1..])] {
            assert!(*bad == text || bad.parse::<PageCursor>().is_err(), "{bad}");
        }
    }
    assert!("7fffffffffffffff0000000000000001".parse::<PageCursor>().is_err(), "no time");
}
