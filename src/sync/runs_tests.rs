use super::*;
use crate::sync::event::Level;

const NOW: i64 = 100_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000).unwrap()
}

/// An event of company `guid`, at a second, with a run id unless that is empty.
fn event(guid: &str, run: &str, second: i64, status: Option<Status>) -> SyncEvent {
    let mut event = SyncEvent::new(Company::new(guid, "1", "name"), Level::Info, "text").at(at(second));
    event.status = status;
    event.run = (!run.is_empty()).then(|| run.into());
    event.records_synced = None;
    event
}

fn join(events: &[(u64, SyncEvent)]) -> Vec<RunSummary> {
    let mut joiner = RunJoiner::new(at(NOW), STUCK_AFTER);
    let mut runs: Vec<_> = events.iter().filter_map(|(seq, event)| joiner.push(*seq, event, None)).collect();
    runs.extend(joiner.finish());
    assert!(joiner.finish().is_none());
    runs
}

/// States and numbers of events of the runs that statuses make, a second apart, up to now.
fn states(run: &str, statuses: &str) -> String {
    let events: Vec<_> = statuses
        .chars()
        .zip(0_u64..)
        .map(|(letter, number)| {
            let status = match letter {
                's' => Some(Status::Started),
                'p' => Some(Status::InProgress),
                'c' => Some(Status::Completed),
                'f' => Some(Status::Failed),
                _ => None,
            };
            (number + 1, event("a", run, NOW - 100 + number.cast_signed(), status))
        })
        .collect();
    let words: Vec<_> = join(&events).iter().map(|run| format!("{}{}", run.state, run.events)).collect();
    words.join(" ")
}

#[test]
fn without_a_run_id_order_joins() {
    for (statuses, expected) in [
        ("", ""),
        ("s", "open1"),
        ("sppc", "ok4"),
        ("spf", "failed3"),
        ("spsc", "open2 ok2"),
        ("sss", "open1 open1 open1"),
        ("c", "ok1"),
        ("cf", "ok1 failed1"),
        ("scc", "ok3"),
        ("p", ""),
        ("pppsc", "ok2"),
        ("scpps", "ok2 open1"),
        ("scppcpf-s", "failed7 open1"),
        ("scfc", "failed3 ok1"),
        ("sfc", "failed2 ok1"),
        ("ccc", "ok1 ok1 ok1"),
        ("s-p-c", "ok3"),
        ("--", ""),
    ] {
        assert_eq!(states("", statuses), expected, "{statuses}");
    }
}

#[test]
fn a_run_id_ties_everything_together() {
    for (statuses, expected) in [
        ("p", "open1"),
        ("-", "open1"),
        ("s-p-c", "ok5"),
        ("ssfp", "failed4"),
        ("sfpc", "ok4"),
        ("c", "ok1"),
        ("cp", "ok2"),
        ("scspfs-", "ok2 failed3 open2"),
        ("css", "ok1 open2"),
    ] {
        assert_eq!(states("r", statuses), expected, "{statuses}");
    }
}

#[test]
fn run_id_and_company_pair_tell_runs_apart() {
    let started = Some(Status::Started);
    let mut other = event("a", "r", 3, Some(Status::Completed));
    other.company.alterid = "2".into();
    let mut renamed = event("b", "r", 5, Some(Status::InProgress));
    renamed.company.name = "new name".into();
    let events = [
        (1, event("a", "", 1, started)),
        (9, event("b", "", 1, Some(Status::Failed))),
        (2, event("a", "q", 2, started)),
        (3, event("a", "r", 2, started)),
        (4, other),
        (6, event("b", "r", 4, started)),
        (5, renamed),
    ];
    let runs = join(&events);
    assert_eq!(runs.len(), 6);
    assert_eq!(runs[5].company.name, "new name");
    assert_eq!((runs[5].first_seq, runs[5].last_seq, runs[5].events), (5, 6, 2));
    assert_eq!((runs[5].started_at, runs[5].last_at), (Some(at(4)), at(5)));
}

#[test]
fn a_summary_holds_the_last_of_each() {
    let mut end = event("a", "", 7, Some(Status::Failed)).with_error("E2", "gone");
    end.duration_seconds = Some(0.5);
    let mut events = vec![
        (1, event("a", "", 1, Some(Status::Started)).with_records(0)),
        (2, event("a", "", 4, Some(Status::InProgress)).with_records(100).with_error("E1", "slow")),
        (3, end),
    ];
    let run = &join(&events)[0];
    assert_eq!(run.records, Some(100));
    assert_eq!((run.started_at, run.ended_at, run.last_at), (Some(at(1)), Some(at(7)), at(7)));
    assert_eq!((run.error_code.as_deref(), run.error_message.as_deref()), (Some("E2"), Some("gone")));
    assert_eq!(run.duration_seconds, Some(0.5));

    events[2].1 = event("a", "", 7, Some(Status::Completed));
    let run = &join(&events)[0];
    assert_eq!(run.duration_seconds, Some(6.0), "from start to end, where the end gives none");
    assert_eq!((&run.error_code, &run.error_message), (&None, &None), "it ended well");
    let run = &join(&events[2..])[0];
    assert_eq!((run.started_at, run.duration_seconds), (None, None));
}

#[test]
fn an_open_run_is_stuck_once_it_is_silent_for_longer() {
    for (second, state) in [
        (NOW - 3600, RunState::Open),
        (NOW - 3601, RunState::Stuck),
        (NOW, RunState::Open),
        (NOW + 9999, RunState::Open),
    ] {
        let events = [
            (1, event("a", "", 1, Some(Status::Started))),
            (2, event("a", "", second, Some(Status::InProgress))),
        ];
        assert_eq!(join(&events)[0].state, state, "{second}");
    }
    let mut joiner = RunJoiner::new(Timestamp::MAX, Duration::MAX);
    assert_eq!(joiner.push(1, &event("a", "r", 1, None), None), None);
    assert_eq!(joiner.finish().unwrap().state, RunState::Open);
}

#[test]
fn stuck_runs_are_open_ones_too() {
    let run = |state: RunState| {
        let mut run = empty(1, &event("a", "", 1, None));
        run.state = state;
        run.ended_at = match state {
            RunState::Open | RunState::Stuck => None,
            RunState::Ok | RunState::Failed => Some(at(2)),
        };
        run
    };
    let matching = |state: Option<RunState>| {
        let filter = RunFilter { state, ..RunFilter::default() };
        RunState::ALL.into_iter().filter(|state| filter.matches(&run(*state))).collect::<Vec<_>>()
    };
    assert_eq!(matching(None), RunState::ALL);
    assert_eq!(matching(Some(RunState::Open)), [RunState::Open, RunState::Stuck]);
    for state in [RunState::Stuck, RunState::Ok, RunState::Failed] {
        assert_eq!(matching(Some(state)), [state]);
    }
    let company = |guid: &str, alterid: &str| RunFilter {
        company: Some((guid.into(), alterid.into())),
        ..RunFilter::default()
    };
    assert!(company("a", "1").matches(&run(RunState::Ok)));
    assert!(!company("a", "2").matches(&run(RunState::Ok)));
    assert!(!company("b", "1").matches(&run(RunState::Ok)));
}

#[test]
fn json_has_plain_names_and_readable_times() {
    let json = serde_json::to_string(&join(&[(1, event("a", "r", 1, Some(Status::Started)))])[0]).unwrap();
    assert_eq!(
        json,
        "{\"run\":\"r\",\"company_guid\":\"a\",\"company_alterid\":\"1\",\"company_name\":\"name\",\
         \"state\":\"stuck\",\"started_at\":\"1970-01-01 00:00:01.000000\",\"ended_at\":null,\
         \"last_at\":\"1970-01-01 00:00:01.000000\",\"first_seq\":1,\"last_seq\":1,\"events\":1,\
         \"records\":null,\"duration_seconds\":null,\"error_code\":null,\"error_message\":null}"
    );
    assert_eq!("STUCK".parse::<RunState>().unwrap(), RunState::Stuck);
    assert!("ended".parse::<RunState>().is_err());
}
