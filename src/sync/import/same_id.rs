//! Records and events of one legacy id and one content: which record is which event.
//!
//! One event of the older system may carry a later time in its table than in its backup: the table has whole
//! seconds, and the insert may have waited for a lock. So a whole second and a fraction up to [`WINDOW`]
//! seconds apart may be the same event. Each is taken once and the nearest first, and two different
//! fractions are never one event.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::{Fate, SECOND, is_whole};

/// How many seconds a table's time and a backup's may be apart: the older system waited up to 30 s for a lock.
pub(super) const WINDOW: i64 = 60;

/// More events with fractions than this in one second cannot be claimed: only whole seconds claim them, and
/// no more of those are near enough.
pub(super) const NEAR: usize = 2 * WINDOW as usize + 1;

/// Times in microseconds, each with what it stands for.
#[derive(Debug, Default)]
struct Times {
    wholes: BTreeMap<i64, usize>,
    fractions: BTreeMap<i64, usize>,
}

impl Times {
    fn of_sort(&self, whole: bool) -> &BTreeMap<i64, usize> {
        if whole { &self.wholes } else { &self.fractions }
    }

    fn get(&self, micros: i64) -> Option<usize> {
        self.of_sort(is_whole(micros)).get(&micros).copied()
    }

    /// Keeps the first thing of a time.
    fn insert(&mut self, micros: i64, thing: usize) {
        let times = if is_whole(micros) { &mut self.wholes } else { &mut self.fractions };
        times.entry(micros).or_insert(thing);
    }
}

/// Records and events of one legacy id and one content.
#[derive(Debug, Default)]
pub(super) struct SameId {
    /// The first record of each time, as an index into the source.
    records: Times,
    /// The records that repeat an earlier one to the microsecond.
    repeats: Vec<(usize, i64)>,
    /// The first event of each time that some record may be, as an index into the events kept.
    events: Times,
}

impl SameId {
    /// Any record of the group.
    pub(super) fn any_record(&self) -> Option<usize> {
        self.records.wholes.values().chain(self.records.fractions.values()).next().copied()
    }

    /// Adds a record.
    pub(super) fn add(&mut self, index: usize, micros: i64) {
        if self.records.get(micros).is_some() {
            self.repeats.push((index, micros));
        } else {
            self.records.insert(micros, index);
        }
    }

    /// Whether some record may be the event of this time.
    pub(super) fn wants(&self, micros: i64) -> bool {
        if self.events.get(micros).is_some() {
            return false;
        }
        if self.records.get(micros).is_some() {
            return true;
        }
        let whole = is_whole(micros);
        let second = micros - micros.rem_euclid(SECOND);
        let (first, last) = (second - WINDOW * SECOND, second + (WINDOW + 1) * SECOND);
        let near = self.records.of_sort(!whole).range(first..last).next().is_some();
        let others = self.events.fractions.range(second..second + SECOND);
        near && (whole || others.take(NEAR).count() < NEAR)
    }

    /// Keeps an event that is wanted.
    pub(super) fn keep(&mut self, micros: i64, event: usize) {
        self.events.insert(micros, event);
    }

    /// The records of this very time, and, where one of the two has whole seconds only, of its second, or
    /// of up to `late` seconds by which a table may be behind a backup: the table's time is the later one.
    pub(super) fn records_at(&self, micros: i64, whole_event: bool, late: i64) -> Vec<usize> {
        let mut found: Vec<usize> = self.records.get(micros).into_iter().collect();
        let second = micros - micros.rem_euclid(SECOND);
        let range = if whole_event {
            second - late * SECOND..second + SECOND
        } else {
            second..second + late * SECOND + 1
        };
        found.extend(self.records.of_sort(!whole_event).range(range).map(|(_, index)| *index).take(NEAR));
        found
    }

    /// Whether there are records that cannot be the event of this time.
    pub(super) fn spreads_from(&self, micros: i64) -> bool {
        let near = (WINDOW + 1) * SECOND;
        let far = |time: &i64| (time - micros).abs() > near;
        [&self.records.wholes, &self.records.fractions]
            .into_iter()
            .any(|times| times.keys().next().is_some_and(far) || times.keys().next_back().is_some_and(far))
    }

    /// Decides which record is which event, or repeats which record. `claim` is told of events.
    pub(super) fn settle(&self, fates: &mut [Fate], mut claim: impl FnMut(usize)) {
        // A source may hold a table's row beside the backup's line. Together they are one record.
        let mut partner = BTreeMap::new();
        for (whole, fraction) in nearest(times(&self.records.wholes), times(&self.records.fractions)) {
            partner.insert(whole, fraction);
            partner.insert(fraction, whole);
        }
        // The first of the two stands for both.
        let first_of = |micros: i64| {
            let both = [Some(micros), partner.get(&micros).copied()];
            both.into_iter().flatten().filter_map(|time| self.records.get(time)).min()
        };
        let mut open = (times(&self.records.wholes), times(&self.records.fractions));
        let mut free = (times(&self.events.wholes), times(&self.events.fractions));
        let mut known = |open: &mut (BTreeSet<i64>, BTreeSet<i64>), record: i64, event: i64| {
            self.events.get(event).into_iter().for_each(&mut claim);
            for time in [Some(record), partner.get(&record).copied()].into_iter().flatten() {
                open.0.remove(&time);
                open.1.remove(&time);
                self.records.get(time).into_iter().for_each(|index| fates[index] = Fate::Known);
            }
        };
        // The very time comes first.
        for micros in self.records.wholes.keys().chain(self.records.fractions.keys()) {
            if self.events.get(*micros).is_some() {
                known(&mut open, *micros, *micros);
                free.0.remove(micros);
                free.1.remove(micros);
            }
        }
        for (whole, fraction) in nearest(free.0, open.1.clone()) {
            known(&mut open, fraction, whole);
        }
        for (whole, fraction) in nearest(open.0.clone(), free.1) {
            known(&mut open, whole, fraction);
        }
        let again = self.records.wholes.iter().chain(&self.records.fractions);
        let again = again.map(|(micros, index)| (*index, *micros)).chain(self.repeats.iter().copied());
        for (index, micros) in again {
            if let Some(first) = first_of(micros).filter(|first| *first != index) {
                fates[index] = if fates[first] == Fate::Known { Fate::Known } else { Fate::Repeats(first) };
            }
        }
    }
}

fn times(of: &BTreeMap<i64, usize>) -> BTreeSet<i64> {
    of.keys().copied().collect()
}

/// Pairs whole seconds with fractions that lie within [`WINDOW`] seconds: each once, the nearest first. Of
/// two that are equally many seconds away, the fraction before comes first: a table's time is the later one.
fn nearest(mut wholes: BTreeSet<i64>, mut fractions: BTreeSet<i64>) -> Vec<(i64, i64)> {
    let mut pairs = Vec::new();
    for apart in (0..=WINDOW).flat_map(|apart| [-apart, apart]) {
        if wholes.is_empty() || fractions.is_empty() {
            break;
        }
        wholes.retain(|whole| {
            let from = whole + apart * SECOND;
            let mut there = fractions.range(from..from + SECOND);
            let found = if apart < 0 { there.next_back() } else { there.next() }.copied();
            if let Some(fraction) = found {
                fractions.remove(&fraction);
                pairs.push((*whole, fraction));
            }
            found.is_none()
        });
    }
    pairs
}
