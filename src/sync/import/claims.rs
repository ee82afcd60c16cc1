//! Records and events of one content and one second: who claims whom.

use std::collections::{HashMap, VecDeque};

use crate::time::Timestamp;

use super::super::event::SyncEvent;
use super::Record;
use super::same_id::NEAR;

pub(super) const SECOND: i64 = 1_000_000;

/// Records and events of one content and one second.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// The records, as indexes into the source.
    pub(super) records: Vec<usize>,
    /// The first record of each time.
    micros: HashMap<i64, usize>,
    /// The events, in the order of their seqs, as indexes into those kept; and how many of each sort.
    events: Vec<usize>,
    kept: HashMap<(Option<i64>, bool, Option<i64>), usize>,
}

/// An event that a record may match.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) seq: u64,
    pub(super) micros: i64,
    pub(super) legacy_id: Option<i64>,
    pub(super) claimed: bool,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    /// Is not there.
    Import,
    /// Matches an event with its id.
    Known,
    /// Claimed an event.
    Present,
    /// Is an earlier record once more, and present or deleted with it.
    Repeats(usize),
}

impl Bucket {
    /// Adds a record of this content and second.
    pub(super) fn add(&mut self, index: usize, event: &SyncEvent) {
        self.records.push(index);
        self.micros.entry(micros(event)).or_insert(index);
    }

    /// Whether an event of this content and second may be claimed: there are not enough like it yet. `id` is
    /// its legacy id if the source has that.
    pub(super) fn wants(&self, event: &SyncEvent, id: Option<i64>) -> bool {
        // No more are claimed here than the bucket has records, and by id no more than a few others.
        self.kept.get(&self.sort(event, id)).is_none_or(|kept| *kept < self.records.len() + NEAR)
    }

    /// Keeps an event that is wanted.
    pub(super) fn keep(&mut self, event: &SyncEvent, id: Option<i64>, at: usize) {
        *self.kept.entry(self.sort(event, id)).or_default() += 1;
        self.events.push(at);
    }

    /// Fractions that no record has are all alike: only records of whole seconds match them.
    fn sort(&self, event: &SyncEvent, id: Option<i64>) -> (Option<i64>, bool, Option<i64>) {
        let micros = micros(event);
        let alike = (self.micros.contains_key(&micros) || is_whole(micros)).then_some(micros);
        (id, event.legacy_id.is_some(), alike)
    }

    /// Applies rules 2 and 3 to what rule 1 has left.
    pub(super) fn settle(&self, records: &[Record], events: &mut [Candidate], fates: &mut [Fate]) {
        let left = self.records.iter().copied().filter(|index| fates[*index] == Fate::Import);
        let (with_id, without): (Vec<_>, Vec<_>) =
            left.partition(|index| records[*index].event.legacy_id.is_some());
        self.claim(with_id, false, records, events, fates);
        self.claim(without, true, records, events, fates);
    }

    /// How many of the records that are imported equal an event, or an earlier one of them, in all but the
    /// id.
    pub(super) fn look_alikes(&self, records: &[Record], events: &[Candidate], fates: &[Fate]) -> u64 {
        let mut seen = Seen::default();
        for at in &self.events {
            seen.insert(events[*at].micros, events[*at].legacy_id);
        }
        let mut count = 0;
        for index in self.records.iter().filter(|index| fates[**index] == Fate::Import) {
            let event = &records[*index].event;
            count += u64::from(seen.has_other(micros(event), event.legacy_id));
            seen.insert(micros(event), event.legacy_id);
        }
        count
    }

    /// Gives each record an event that nobody claimed yet, one without a legacy id first, and, if
    /// `any`, others too.
    ///
    /// A time with a fraction matches itself and its whole second; a whole second matches all. So
    /// equal fractions meet first, then the fractions that are left take whole seconds, and whole
    /// seconds take what is left, fractions first. No other choice leaves fewer records over, and
    /// a second import of the same source finds a claim for each of them again. To exhaust the
    /// events without an id before any other would do neither.
    fn claim(
        &self,
        claimants: Vec<usize>,
        any: bool,
        records: &[Record],
        events: &mut [Candidate],
        fates: &mut [Fate],
    ) {
        if claimants.is_empty() {
            return;
        }
        let time = |index: usize| micros(&records[index].event);
        let free = |with_id: bool| {
            let is_free = |event: &Candidate| !event.claimed && event.legacy_id.is_some() == with_id;
            self.events.iter().copied().filter(|at| is_free(&events[*at])).collect::<Vec<_>>()
        };
        // By rank: the place in the order in which events are preferred.
        let ranked = [free(false), if any { free(true) } else { Vec::new() }].concat();
        let mut fractions: HashMap<i64, VecDeque<usize>> = HashMap::new();
        let mut wholes = VecDeque::new();
        for (rank, at) in ranked.iter().enumerate() {
            let micros = events[*at].micros;
            if is_whole(micros) {
                wholes.push_back(rank);
            } else {
                fractions.entry(micros).or_default().push_back(rank);
            }
        }
        let mut take = |index: usize, rank: Option<usize>| {
            if let Some(rank) = rank {
                events[ranked[rank]].claimed = true;
                fates[index] = Fate::Present;
            }
            rank.is_some()
        };
        let (whole_records, mut left): (Vec<_>, Vec<_>) =
            claimants.into_iter().partition(|index| is_whole(time(*index)));
        left.retain(|index| !take(*index, fractions.get_mut(&time(*index)).and_then(VecDeque::pop_front)));
        left.retain(|index| !take(*index, wholes.pop_front()));
        let mut rest: Vec<usize> = fractions.into_values().flatten().collect();
        rest.sort_unstable();
        for (index, rank) in whole_records.into_iter().zip(rest.into_iter().chain(wholes)) {
            take(index, Some(rank));
        }
    }
}

/// The ids of what was seen in one second: the first one at each time and whether there are others.
#[derive(Default)]
struct Seen {
    at: HashMap<i64, Ids>,
    all: Ids,
}

/// Ids, of which no more than two need to be known.
#[derive(Default)]
struct Ids(Vec<Option<i64>>);

impl Ids {
    fn insert(&mut self, id: Option<i64>) {
        if self.0.len() < 2 && !self.0.contains(&id) {
            self.0.push(id);
        }
    }

    fn has_other(&self, id: Option<i64>) -> bool {
        self.0.iter().any(|known| *known != id)
    }
}

impl Seen {
    fn insert(&mut self, micros: i64, id: Option<i64>) {
        self.at.entry(micros).or_default().insert(id);
        self.all.insert(id);
    }

    /// Whether something of an equal time has another id.
    fn has_other(&self, micros: i64, id: Option<i64>) -> bool {
        let at = |micros| self.at.get(&micros).is_some_and(|ids| ids.has_other(id));
        if is_whole(micros) {
            self.all.has_other(id)
        } else {
            at(micros) || at(micros - micros.rem_euclid(SECOND))
        }
    }
}

pub(super) fn micros(event: &SyncEvent) -> i64 {
    // A prepared event always has its time.
    event.created_at.unwrap_or(Timestamp::MIN).as_micros()
}

pub(super) fn second(event: &SyncEvent) -> i64 {
    micros(event).div_euclid(SECOND)
}

pub(super) fn is_whole(micros: i64) -> bool {
    micros.rem_euclid(SECOND) == 0
}
