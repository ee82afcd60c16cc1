//! Callers of all kinds at once, in many orders of their steps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shuttle::thread;

use crate::error::Error;
use crate::log::writer::Position;

use super::model::{Core, Entry, Projector, Truth, project};
use super::rows::Rows;
use super::shared::Shared;
use super::slot::{Promise, Waited};
use super::sync::Arc;

/// Nobody loses patience: waits never time out here.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy)]
struct Life {
    /// Callers who commit in their own thread where they are alone.
    callers: u64,
    /// Callers who leave it to the thread.
    submitters: u64,
    /// Appends of each.
    appends: u64,
    /// The sync that fails.
    fails: Option<u64>,
    /// Each caller appends once more under a key that is known.
    repeats: bool,
    /// Somebody finds the database spoiled in between.
    suspects: bool,
    /// Callers wait for rows.
    patience: Duration,
    /// The store closes while callers are still at it.
    closes: bool,
}

const ALL: Life = Life {
    callers: 2,
    submitters: 1,
    appends: 2,
    fails: None,
    repeats: false,
    suspects: false,
    patience: LONG,
    closes: false,
};

fn live(life: Life) {
    let truth = Arc::new(Truth::default());
    let core = Core { truth: Arc::clone(&truth), fails: life.fails, wants_mark: false };
    let projector = Box::new(Projector { truth: Arc::clone(&truth), prepared: None });
    let rows = Rows::new(Position { seq: 1 }, 0, Some(projector), None, life.patience);
    let shared = Arc::new(Shared::new(core, rows));
    let committing = Arc::clone(&shared);
    let committing = thread::spawn(move || committing.run(LONG));
    let projecting = Arc::clone(&shared);
    let projecting = thread::spawn(move || project(&projecting));
    let callers: Vec<_> = (0..life.callers + life.submitters)
        .map(|number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || call(&shared, life, number))
        })
        .collect();
    if life.suspects {
        let shared = Arc::clone(&shared);
        thread::spawn(move || shared.rows.suspect()).join().unwrap();
    }
    if life.closes {
        shared.close();
    }
    let mut seqs: Vec<u64> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    shared.close();
    committing.join().unwrap();
    shared.close_projection();
    projecting.join().unwrap();
    seqs.sort_unstable();
    let durable = truth.durable.load(Ordering::SeqCst);
    assert_eq!(seqs, (1..=durable).collect::<Vec<_>>(), "P1, P4: each durable event has one caller");
    assert_eq!(truth.rows.load(Ordering::SeqCst), durable, "the rows are as far as the log");
    let failed = life.fails.is_some_and(|nth| truth.syncs.load(Ordering::SeqCst) > nth);
    assert_eq!(shared.dead().is_some(), failed);
    if !failed && durable > 0 {
        assert_eq!(truth.marks.load(Ordering::SeqCst), 1, "a close proves the last group");
    }
}

/// The seqs that one caller was told.
fn call(shared: &Shared<Entry, Core>, life: Life, number: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    for turn in 0..life.appends {
        let (slot, promise) = Promise::new();
        let left = (life.repeats && turn > 0).then(Arc::<AtomicU64>::default);
        let entry = Entry { events: 1 + (number + turn) % 2, slot: promise, repeats: left.clone() };
        let joined = if number < life.callers { shared.append(entry) } else { shared.submit(entry) };
        let answer = joined.and_then(|()| slot.wait(life.patience));
        match answer {
            Ok((own, waited)) => {
                let there = waited == Waited::RowsAreThere;
                assert!(there || life.patience.is_zero(), "{waited:?}: nobody has lost patience");
                if there {
                    let rows = shared.rows.applied();
                    let old = left.iter().map(|left| left.load(Ordering::SeqCst));
                    let told = own.iter().copied().chain(old);
                    assert!(told.max() <= Some(rows), "P6: rows that are said to be there");
                }
                seqs.extend(own);
            }
            Err(Error::Closed) => assert!(life.closes),
            Err(Error::Sync | Error::Dead { .. }) => assert!(life.fails.is_some(), "P10"),
            Err(error) => panic!("{error}"),
        }
    }
    seqs
}

/// Random schedules, and such that change thread at few places, chosen by chance (PCT, Burckhardt and others,
/// 2010). `SYNCLOG_SCHEDULES` is how many of each.
fn try_orders(life: Life) {
    let count = std::env::var("SYNCLOG_SCHEDULES").map_or(3000, |count| count.parse().unwrap());
    shuttle::check_random(move || live(life), count);
    shuttle::check_pct(move || live(life), count, 3);
}

#[test]
fn every_caller_gets_its_seqs_and_its_rows() {
    try_orders(ALL);
}

#[test]
fn callers_who_are_alone_by_turns() {
    try_orders(Life { callers: 3, submitters: 0, ..ALL });
}

#[test]
fn a_full_queue_holds_callers_up_and_lets_them_go_on() {
    try_orders(Life { callers: 1, submitters: 4, appends: 1, ..ALL });
}

#[test]
fn a_failed_sync_is_every_waiters_error() {
    for nth in 0..3 {
        try_orders(Life { fails: Some(nth), ..ALL });
    }
}

#[test]
fn a_suspicion_reaches_the_thread_and_delays_nobody_for_good() {
    try_orders(Life { suspects: true, ..ALL });
}

#[test]
fn callers_without_patience_wait_for_no_rows() {
    try_orders(Life { patience: Duration::ZERO, ..ALL });
}

#[test]
fn a_store_that_closes_under_its_callers_answers_all_of_them() {
    try_orders(Life { closes: true, ..ALL });
}

#[test]
fn whoever_repeats_a_key_waits_for_the_row_and_for_nobody_else() {
    try_orders(Life { repeats: true, ..ALL });
    try_orders(Life { repeats: true, callers: 0, submitters: 3, ..ALL });
    try_orders(Life { repeats: true, fails: Some(1), ..ALL });
}
