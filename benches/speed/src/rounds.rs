//! Rounds: in each one every contestant runs once, and the next round starts with another one. So whatever
//! slows the machine down for a while does so to all of them, and ratios are taken inside a round.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::contestant::{Contestant, Result};
use crate::events;

/// How a round of appends goes.
#[derive(Clone, Copy)]
pub struct Plan {
    /// How many threads append.
    pub workers: usize,
    /// Events in one append.
    pub batch: u64,
    /// How long.
    pub duration: Duration,
}

/// What came of one round.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Events per second.
    pub rate: f64,
    /// Half of the appends took no longer, in milliseconds.
    pub p50: f64,
    /// 99 of 100 appends took no longer, in milliseconds.
    pub p99: f64,
}

/// The contestants of a round, in its order.
pub fn order(round: usize, contestants: usize) -> impl Iterator<Item = usize> {
    (0..contestants).map(move |place| (round + place) % contestants)
}

/// Waits until the disk has rest: what one contestant left unsynced is not to be written in the time of the
/// next one, and what it does behind its appends has a moment to end.
pub fn rest() -> Result<()> {
    std::process::Command::new("sync").status()?;
    std::thread::sleep(Duration::from_millis(50));
    Ok(())
}

/// Appends for as long as the plan says.
pub fn appends(contestant: &dyn Contestant, plan: Plan, next: &AtomicU64) -> Result<Sample> {
    let (taken, mut latencies) =
        if plan.workers == 1 { alone(contestant, plan, next)? } else { together(contestant, plan, next)? };
    latencies.sort_unstable();
    let at = |part: f64| {
        let place = (latencies.len() as f64 * part) as usize;
        latencies.get(place.min(latencies.len() - 1)).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    };
    let rate = (latencies.len() as u64 * plan.batch) as f64 / taken.as_secs_f64();
    Ok(Sample { rate, p50: at(0.5), p99: at(0.99) })
}

fn append_next(contestant: &dyn Contestant, worker: usize, plan: Plan, next: &AtomicU64) -> Result<Duration> {
    let first = next.fetch_add(plan.batch, Ordering::Relaxed);
    let unit = events::unit(first..first + plan.batch, contestant.takes_records())?;
    let start = Instant::now();
    contestant.append(worker, unit)?;
    Ok(start.elapsed())
}

/// One thread: the clock runs during appends only, not while events are made.
fn alone(contestant: &dyn Contestant, plan: Plan, next: &AtomicU64) -> Result<(Duration, Vec<Duration>)> {
    let (mut taken, mut latencies) = (Duration::ZERO, Vec::new());
    while taken < plan.duration {
        let latency = append_next(contestant, 0, plan, next)?;
        taken += latency;
        latencies.push(latency);
    }
    let start = Instant::now();
    contestant.settle()?;
    Ok((taken + start.elapsed(), latencies))
}

/// Many threads: the clock runs from the first append to the last, and making events counts for all.
fn together(contestant: &dyn Contestant, plan: Plan, next: &AtomicU64) -> Result<(Duration, Vec<Duration>)> {
    let barrier = Barrier::new(plan.workers + 1);
    std::thread::scope(|scope| {
        let barrier = &barrier;
        let workers: Vec<_> = (0..plan.workers)
            .map(|worker| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    barrier.wait();
                    let (start, mut latencies) = (Instant::now(), Vec::new());
                    while start.elapsed() < plan.duration {
                        latencies.push(append_next(contestant, worker, plan, next)?);
                    }
                    Ok(latencies)
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let mut latencies = Vec::new();
        for worker in workers {
            latencies.extend(worker.join().map_err(|_| "a worker panicked")??);
        }
        contestant.settle()?;
        Ok((start.elapsed(), latencies))
    })
}

/// Appends the events with these numbers in batches, and takes the time until all of them are settled. Events
/// are made inside that time, as they are in a program that has to read them from somewhere.
pub fn load(contestant: &dyn Contestant, numbers: std::ops::Range<u64>, batch: u64) -> Result<Duration> {
    let start = Instant::now();
    let mut first = numbers.start;
    while first < numbers.end {
        let last = numbers.end.min(first + batch);
        contestant.append(0, events::unit(first..last, contestant.takes_records())?)?;
        first = last;
    }
    contestant.settle()?;
    Ok(start.elapsed())
}
