//! Records and events of one content and one second: who claims whom.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::time::Timestamp;

use super::super::event::SyncEvent;
use super::Record;

/// Records and events of one content and one second.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// The records, as indexes into the source.
    pub(super) records: Vec<usize>,
    /// Their ids and times.
    ids: HashSet<i64>,
    micros: HashSet<i64>,
    /// The events, in the order of their seqs, and how many were kept of each sort.
    events: Vec<Candidate>,
    kept: HashMap<(Option<i64>, bool, Option<i64>), usize>,
}

/// An event that a record may match.
#[derive(Debug)]
struct Candidate {
    micros: i64,
    legacy_id: Option<i64>,
    claimed: bool,
}

/// What becomes of a record.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fate {
    /// Is not there.
    Import,
    /// Matches an event with its id.
    Known,
    /// Claimed an event.
    Present,
    /// Like an earlier record, and present or deleted with it.
    Repeats(usize),
}

impl Bucket {
    /// Adds a record of this content and second.
    pub(super) fn add(&mut self, index: usize, event: &SyncEvent) {
        self.records.push(index);
        self.micros.insert(micros(event));
        self.ids.extend(event.legacy_id);
    }

    /// Keeps an event of this content and second, unless there are enough like it: never more are
    /// claimed than the bucket has records.
    pub(super) fn keep(&mut self, event: &SyncEvent) {
        let micros = micros(event);
        let id = event.legacy_id.filter(|id| self.ids.contains(id));
        // Fractions that no record has are all alike: only records of whole seconds match them.
        let alike = (self.micros.contains(&micros) || is_whole(micros)).then_some(micros);
        let kept = self.kept.entry((id, event.legacy_id.is_some(), alike)).or_default();
        if *kept < self.records.len() {
            *kept += 1;
            self.events.push(Candidate { micros, legacy_id: event.legacy_id, claimed: false });
        }
    }

    /// Applies rules 1 to 3.
    pub(super) fn settle(&mut self, records: &[Record], fates: &mut [Fate]) {
        let time = |index: usize| micros(&records[index].event);
        let mut with_id = Times::default();
        for (at, event) in self.events.iter().enumerate() {
            if let Some(id) = event.legacy_id {
                with_id.insert(id, event.micros, at);
            }
        }
        let (mut pending, mut without_id) = (Vec::new(), Vec::new());
        let mut earlier = Times::default();
        for index in self.records.iter().copied() {
            let Some(id) = records[index].event.legacy_id else {
                without_id.push(index);
                continue;
            };
            let known = with_id.find(id, time(index));
            let repeats = earlier.find(id, time(index));
            if let Some(at) = known {
                self.events[at].claimed = true;
                fates[index] = Fate::Known;
            } else if let Some(first) = repeats {
                fates[index] = Fate::Repeats(first);
            } else {
                pending.push(index);
            }
            if repeats.is_none() {
                earlier.insert(id, time(index), index);
            }
        }
        self.claim(pending, false, time, fates);
        self.claim(without_id, true, time, fates);
    }

    /// Gives each record an event that nobody claimed yet, one without a legacy id first, and, if
    /// `any`, others too.
    ///
    /// A time with a fraction matches itself and its whole second; a whole second matches all. So
    /// equal fractions meet first, then the fractions that are left take whole seconds, and whole
    /// seconds take what is left, fractions first. No other choice leaves fewer records over, and
    /// a second import of the same source finds a claim for each of them again. To exhaust the
    /// events without an id before any other would do neither.
    fn claim(&mut self, records: Vec<usize>, any: bool, time: impl Fn(usize) -> i64, fates: &mut [Fate]) {
        if records.is_empty() {
            return;
        }
        let free = |with_id: bool| {
            let events = self.events.iter().enumerate();
            events.filter(move |(_, event)| !event.claimed && event.legacy_id.is_some() == with_id)
        };
        // By rank: the place in the order in which events are preferred.
        let ranked: Vec<usize> = free(false).chain(free(true).filter(|_| any)).map(|(at, _)| at).collect();
        let mut fractions: HashMap<i64, VecDeque<usize>> = HashMap::new();
        let mut wholes = VecDeque::new();
        for (rank, at) in ranked.iter().enumerate() {
            let micros = self.events[*at].micros;
            if is_whole(micros) {
                wholes.push_back(rank);
            } else {
                fractions.entry(micros).or_default().push_back(rank);
            }
        }
        let mut take = |index: usize, rank: Option<usize>| {
            if let Some(rank) = rank {
                self.events[ranked[rank]].claimed = true;
                fates[index] = Fate::Present;
            }
            rank.is_some()
        };
        let (whole_records, mut left): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|index| is_whole(time(*index)));
        left.retain(|index| !take(*index, fractions.get_mut(&time(*index)).and_then(VecDeque::pop_front)));
        left.retain(|index| !take(*index, wholes.pop_front()));
        let mut rest: Vec<usize> = fractions.into_values().flatten().collect();
        rest.sort_unstable();
        for (index, rank) in whole_records.into_iter().zip(rest.into_iter().chain(wholes)) {
            take(index, Some(rank));
        }
    }
}

/// Things of one second, by id and time.
#[derive(Default)]
struct Times {
    exact: HashMap<(i64, i64), usize>,
    any: HashMap<i64, usize>,
}

impl Times {
    fn insert(&mut self, id: i64, micros: i64, thing: usize) {
        self.exact.entry((id, micros)).or_insert(thing);
        self.any.entry(id).or_insert(thing);
    }

    /// The first thing of this id and the very time, or else of a time that counts as equal.
    fn find(&self, id: i64, micros: i64) -> Option<usize> {
        let whole = micros - micros.rem_euclid(1_000_000);
        let loose = if is_whole(micros) { self.any.get(&id) } else { self.exact.get(&(id, whole)) };
        self.exact.get(&(id, micros)).or(loose).copied()
    }
}

pub(super) fn micros(event: &SyncEvent) -> i64 {
    // A prepared event always has its time.
    event.created_at.unwrap_or(Timestamp::MIN).as_micros()
}

pub(super) fn second(event: &SyncEvent) -> i64 {
    micros(event).div_euclid(1_000_000)
}

pub(super) fn is_whole(micros: i64) -> bool {
    micros.rem_euclid(1_000_000) == 0
}
