//! Runs as a store gives them: of an older system's history, of ids that are used again, of clocks that
//! are wrong.

use std::time::Duration;

use synclog::{Company, Level, RunFilter, RunState, RunSummary, Status, SyncEvent, SyncLog, Timestamp};

const SECOND: i64 = 1_000_000;

fn company() -> Company {
    Company::new("8f0c1d52", "102209.0", "Acme Traders")
}

fn event(status: Status, micros: i64) -> SyncEvent {
    let text = status.as_str();
    let at = Timestamp::from_micros(micros).unwrap();
    SyncEvent::new(company(), Level::default_for(Some(status)), text).with_status(status).at(at)
}

fn runs(log: &SyncLog, filter: &RunFilter) -> Vec<RunSummary> {
    log.reader().unwrap().runs(filter).unwrap()
}

/// The states of the runs with `events`, oldest first.
fn states(events: impl IntoIterator<Item = SyncEvent>) -> Vec<&'static str> {
    let dir = tempfile::tempdir().unwrap();
    let log = SyncLog::open(dir.path()).unwrap();
    log.append_all(events).unwrap();
    let states = runs(&log, &RunFilter::default()).iter().map(|run| run.state.as_str()).collect();
    log.close().unwrap();
    states
}

/// 60 syncs as an older system wrote them: a good one ends with three `completed`, of which the last has
/// the records; most that failed had been verified before. Each end counted as a run gives 157.
fn sixty_syncs() -> Vec<SyncEvent> {
    let mut events = Vec::new();
    let mut at = 1_765_962_000 * SECOND + 500_000;
    for sync in 0..60 {
        events.push(event(Status::Started, at));
        events.push(event(Status::InProgress, at + 200_000).with_records(100 + sync));
        let verified = event(Status::Completed, at + 5 * SECOND);
        match sync % 15 {
            3 | 11 => {
                if sync != 3 {
                    events.push(verified);
                }
                events.push(event(Status::Failed, at + 7 * SECOND).with_error("FETCH_ERROR", "timeout"));
            }
            7 | 13 if sync != 7 => {} // never ended
            _ => {
                events.push(verified);
                events.push(event(Status::InProgress, at + 6 * SECOND));
                events.push(event(Status::Completed, at + 8 * SECOND).with_records(0));
                events.push(
                    event(Status::Completed, at + 9 * SECOND).with_records(300 + sync).with_duration(8.5),
                );
            }
        }
        at += 30 * 60 * SECOND;
    }
    for (event, id) in events.iter_mut().zip(1..) {
        event.legacy_id = Some(id);
    }
    events
}

#[test]
fn sixty_syncs_of_the_older_system_are_sixty_runs() {
    let dir = tempfile::tempdir().unwrap();
    let log = SyncLog::open(dir.path()).unwrap();
    let mut events = sixty_syncs();
    let ends = |status| events.iter().filter(|event| event.status == Some(status)).count();
    assert_eq!(ends(Status::Completed) + ends(Status::Failed) + 7, 157);
    // Every third is known from the table alone, whose times have no fraction.
    for event in events.iter_mut().step_by(3) {
        let at = event.created_at.unwrap();
        event.created_at = Timestamp::from_micros(at.whole_seconds() * SECOND);
    }
    log.append_all(events).unwrap();
    let runs = runs(&log, &RunFilter::default());
    let count = |state: RunState| runs.iter().filter(|run| run.state == state).count();
    assert_eq!(RunState::ALL.map(count), [0, 7, 45, 8]);
    for run in &runs {
        assert!(run.started_at.is_some());
        match run.state {
            RunState::Ok => {
                assert!(run.records >= Some(300) && run.duration_seconds == Some(8.5), "{run:?}");
                assert_eq!(run.events, 6);
            }
            RunState::Failed => assert_eq!(run.error_code.as_deref(), Some("FETCH_ERROR")),
            _ => assert!(run.ended_at.is_none()),
        }
    }
    log.close().unwrap();
}

#[test]
fn an_end_belongs_to_an_ok_run_for_ten_minutes() {
    let minutes = |minutes: i64| minutes * 60 * SECOND;
    let (start, end) = (event(Status::Started, 0), event(Status::Completed, SECOND));
    let later = |micros: i64| event(Status::Completed, SECOND + micros);
    assert_eq!(states([start.clone(), end.clone(), later(minutes(10))]), ["ok"]);
    assert_eq!(states([start.clone(), end.clone(), later(minutes(10) + 1)]), ["ok", "ok"]);
    // Ten minutes from the last end, not from the first.
    assert_eq!(states([start.clone(), end.clone(), later(minutes(9)), later(minutes(18))]), ["ok"]);
    let failed = event(Status::Failed, SECOND);
    assert_eq!(states([start, failed, later(1)]), ["failed", "ok"], "only an ok end is followed by more");
    assert_eq!(states([end, later(1)]), ["ok", "ok"], "there is no run that started");
}

#[test]
fn whole_seconds_are_compared_by_second_and_legacy_id() {
    let with_id = |mut event: SyncEvent, id: i64| {
        event.legacy_id = Some(id);
        event
    };
    let base = 1_765_962_000 * SECOND;
    let (start, end) = (event(Status::Started, base + 500_000), event(Status::Completed, base));
    assert_eq!(states([with_id(start.clone(), 1), with_id(end.clone(), 2)]), ["ok"]);
    assert_eq!(
        states([with_id(end.clone(), 2), with_id(start.clone(), 1)]),
        ["ok"],
        "whatever came in first"
    );
    let (start, end) = (event(Status::Started, base), event(Status::Completed, base));
    assert_eq!(states([with_id(end, 2), with_id(start, 1)]), ["ok"]);
    // Two times that both have fractions are in their own order.
    let start = event(Status::Started, base + 100_000);
    let end = event(Status::Completed, base + 900_000);
    assert_eq!(states([with_id(end.clone(), 1), with_id(start.clone(), 2)]), ["ok"]);
    // A second of another company says nothing.
    let mut other = with_id(event(Status::Started, base), 3);
    other.company.alterid = "2".into();
    assert_eq!(states([with_id(end, 1), with_id(start, 2), other]), ["stuck", "ok"]);
}

#[test]
fn a_run_id_that_is_used_every_night_gives_a_run_every_night() {
    let night = |number: i64, status| event(status, number * 86_400 * SECOND).with_run("nightly");
    let dir = tempfile::tempdir().unwrap();
    let log = SyncLog::open(dir.path()).unwrap();
    for number in 0..3 {
        log.append(night(number, Status::Started)).unwrap();
        if number < 2 {
            log.append(night(number, Status::Completed)).unwrap();
        }
    }
    let all = runs(&log, &RunFilter::default());
    let states: Vec<_> = all.iter().map(|run| (run.run.as_deref(), run.state.as_str())).collect();
    assert_eq!(states, [(Some("nightly"), "ok"), (Some("nightly"), "ok"), (Some("nightly"), "stuck")]);
    let stuck = RunFilter { state: Some(RunState::Stuck), ..RunFilter::default() };
    assert_eq!(runs(&log, &stuck)[0].first_seq, 5);
    log.close().unwrap();
}

#[test]
fn an_event_dated_far_ahead_is_silent_from_its_append_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = SyncLog::open(dir.path()).unwrap();
    let hours = |hours: i64| Timestamp::now().saturating_add_micros(hours * 3600 * SECOND);
    for (run, at) in [("ahead", hours(25)), ("soon", hours(23))] {
        let event = event(Status::Started, at.as_micros()).with_run(run);
        assert_eq!(event.is_ahead(Timestamp::now()), run == "ahead");
        log.append(event).unwrap();
    }
    let at_once = RunFilter { older_than: Duration::ZERO, ..RunFilter::default() };
    let stuck = |filter| -> Vec<_> {
        runs(&log, filter).into_iter().map(|run| (run.run.unwrap(), run.state.as_str())).collect()
    };
    assert_eq!(stuck(&at_once), [("soon".into(), "open"), ("ahead".into(), "stuck")]);
    assert_eq!(stuck(&RunFilter::default()), [("soon".into(), "open"), ("ahead".into(), "open")]);
    log.close().unwrap();
}
