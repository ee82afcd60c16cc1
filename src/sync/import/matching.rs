//! Which records of a source are there already, and which are to be imported.
//!
//! The whole source is matched before anything is written. A record from our own export is known
//! by where it was first appended. Any other is known by its content (the eleven columns) and its
//! time; whole seconds are compared where either time has no fraction, because older tables kept
//! no more. The rules, in this order:
//!
//! 1. a record with an id matches an event with that legacy id, or an earlier record like it;
//! 2. else it claims an event without a legacy id;
//! 3. then each record without an id claims an event: first one without a legacy id, then any;
//! 4. what is left is imported, in the order of the source.
//!
//! No event is claimed twice. Memory grows with the source, not with the log: of the events that
//! stream by, only those are kept that some record may match.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};

use serde::Serialize;

use crate::store_id::StoreId;

use super::super::event::{Origin, SyncEvent};
use super::Record;
use super::claims::{Bucket, Fate, is_whole, micros, second};

/// A quarter of an hour: zones differ by whole ones.
const QUARTER_HOUR: i64 = 900_000_000;

/// No zone is farther from UTC than this.
const FARTHEST_ZONE: i64 = 14 * 3_600_000_000;

/// A sign that the times of a source were read in the wrong zone: a record that matches an event by
/// id and content, but lies a whole number of quarter hours beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimeOffset {
    /// The record's time minus the event's, in seconds.
    pub seconds: i64,
    /// The line of the first such record.
    pub line: u64,
    /// The seq of the event that it matches.
    pub seq: u64,
    /// How many records of the source are off, by this or another offset.
    pub records: u64,
}

impl TimeOffset {
    /// The offset as zones are written: `+05:30`.
    pub fn zone(&self) -> String {
        let sign = if self.seconds < 0 { '-' } else { '+' };
        let minutes = self.seconds.unsigned_abs() / 60;
        format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// What to do with a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ImportPlan {
    /// What to append, in the order of the source. Nothing at all may be written where
    /// `time_offset` is there.
    pub(crate) import: Vec<Record>,
    /// How many records are there already, repeats within the source included.
    pub(crate) already_present: u64,
    /// How many records a recorded deletion covers.
    pub(crate) deleted: u64,
    /// How many of `import` have an id that was known with other content or another time.
    pub(crate) id_conflicts: u64,
    /// Set where the source seems to be in another zone than the one it was read in.
    pub(crate) time_offset: Option<TimeOffset>,
}

/// Matches a source with the events of a store.
#[derive(Debug)]
pub(crate) struct Matcher {
    target: StoreId,
    records: Vec<Record>,
    hasher: RandomState,
    /// Where records from our own export were first appended, and whether the store has an event
    /// from there.
    origins: HashMap<Origin, bool>,
    /// These records by origin and content, each time once, and whether an event equals them. An
    /// origin has several only where a store was copied and both copies went on.
    by_origin: HashMap<(Origin, u64), Vec<(usize, bool)>>,
    /// All other records, by content and second.
    buckets: Vec<Bucket>,
    by_content: HashMap<(u64, i64), Vec<usize>>,
    /// Records by id and content, each time once, to find those in another zone.
    by_id: HashMap<(i64, u64), Vec<usize>>,
    /// The ids of the source, and whether an event of the store has them.
    ids: HashMap<i64, bool>,
    /// Records that may be in another zone, with the offset and the seq of the event.
    offsets: HashMap<usize, (i64, u64)>,
}

impl Matcher {
    /// A matcher for these records and the store of this id.
    pub(crate) fn new(records: Vec<Record>, target: StoreId) -> Self {
        let mut matcher = Self {
            target,
            records: Vec::new(),
            hasher: RandomState::new(),
            origins: HashMap::new(),
            by_origin: HashMap::new(),
            buckets: Vec::new(),
            by_content: HashMap::new(),
            by_id: HashMap::new(),
            ids: HashMap::new(),
            offsets: HashMap::new(),
        };
        let mut seen = HashSet::new();
        for (index, record) in records.iter().enumerate() {
            let event = &record.event;
            if let Some(origin) = event.origin {
                matcher.origins.insert(origin, false);
                let hash = matcher.export_hash(event);
                let distinct = matcher.by_origin.entry((origin, hash)).or_default();
                if !distinct.iter().any(|(other, _)| same_export(&records[*other].event, event)) {
                    distinct.push((index, false));
                }
                continue;
            }
            let hash = matcher.hash(event);
            let chain = matcher.by_content.entry((hash, second(event))).or_default();
            let found = chain.iter().copied().find(|at| {
                let first = matcher.buckets[*at].records[0];
                same_content(&records[first].event, event)
            });
            let at = found.unwrap_or_else(|| {
                chain.push(matcher.buckets.len());
                matcher.buckets.push(Bucket::default());
                matcher.buckets.len() - 1
            });
            matcher.buckets[at].add(index, event);
            if let Some(id) = event.legacy_id {
                matcher.ids.insert(id, false);
                if seen.insert((id, at, micros(event))) {
                    matcher.by_id.entry((id, hash)).or_default().push(index);
                }
            }
        }
        matcher.records = records;
        matcher
    }

    /// Looks at one event of the store. All of them must come, in the order of their seqs.
    pub(crate) fn observe(&mut self, seq: u64, event: &SyncEvent) {
        let origin = event.origin.unwrap_or(Origin { store: self.target, seq });
        if self.buckets.is_empty() && !self.origins.contains_key(&origin) {
            return;
        }
        let hash = self.hash(event);
        let of_export = self.export_hash(event);
        if let Some(known) = self.origins.get_mut(&origin) {
            *known = true;
            for (index, present) in self.by_origin.get_mut(&(origin, of_export)).into_iter().flatten() {
                *present |= same_export(&self.records[*index].event, event);
            }
        }
        if let Some(id) = event.legacy_id {
            if let Some(known) = self.ids.get_mut(&id) {
                *known = true;
            }
            for index in self.by_id.get(&(id, hash)).into_iter().flatten() {
                let record = &self.records[*index].event;
                if let Some(offset) = offset(record, event).filter(|_| same_content(record, event)) {
                    self.offsets.entry(*index).or_insert((offset, seq));
                }
            }
        }
        let Some(chain) = self.by_content.get(&(hash, second(event))) else { return };
        for at in chain {
            let bucket = &mut self.buckets[*at];
            if same_content(&self.records[bucket.records[0]].event, event) {
                bucket.keep(event);
            }
        }
    }

    /// What to do, now that every event was seen. `deleted` says of a record that is not there
    /// whether a recorded deletion covers it.
    pub(crate) fn plan(mut self, mut deleted: impl FnMut(&Record) -> bool) -> ImportPlan {
        let mut fates = vec![Fate::Import; self.records.len()];
        for bucket in &mut self.buckets {
            bucket.settle(&self.records, &mut fates);
        }
        self.settle_exports(&mut fates);

        let mut plan = ImportPlan { time_offset: self.time_offset(&fates), ..ImportPlan::default() };
        let mut gone = HashSet::new();
        let mut imported = (HashSet::new(), HashSet::new());
        for (index, record) in std::mem::take(&mut self.records).into_iter().enumerate() {
            let missing = match fates[index] {
                Fate::Import => true,
                // What repeats a deleted record is deleted as well.
                Fate::Repeats(first) => gone.contains(&first),
                Fate::Known | Fate::Present => false,
            };
            if !missing {
                plan.already_present += 1;
            } else if deleted(&record) {
                plan.deleted += 1;
                gone.insert(index);
            } else {
                // An id may be known from the store, or from earlier in the source.
                let conflict = match (record.origin(), record.event.legacy_id) {
                    (Some(origin), _) => {
                        !imported.0.insert(origin) || self.origins.get(&origin) == Some(&true)
                    }
                    (None, Some(id)) => !imported.1.insert(id) || self.ids.get(&id) == Some(&true),
                    (None, None) => false,
                };
                plan.id_conflicts += u64::from(conflict);
                plan.import.push(record);
            }
        }
        plan
    }

    /// The rule for our own export: an event of the same origin. A record that differs from the
    /// event of its origin is another event, from a copy of that store; it is imported, and counted.
    fn settle_exports(&self, fates: &mut [Fate]) {
        for (index, record) in self.records.iter().enumerate() {
            let Some(origin) = record.origin() else { continue };
            let key = (origin, self.export_hash(&record.event));
            let alike = self.by_origin.get(&key).into_iter().flatten();
            for (first, present) in alike {
                if same_export(&self.records[*first].event, &record.event) {
                    fates[index] = match (*present, *first == index) {
                        (true, _) => Fate::Present,
                        (false, true) => Fate::Import,
                        (false, false) => Fate::Repeats(*first),
                    };
                }
            }
        }
    }

    /// A record that matches an event by id, content and time says nothing about zones, even if
    /// there is another event of its id.
    fn time_offset(&self, fates: &[Fate]) -> Option<TimeOffset> {
        let off = || self.offsets.iter().filter(|(index, _)| fates[**index] != Fate::Known);
        let (index, (micros, seq)) = off().min_by_key(|(index, _)| **index)?;
        Some(TimeOffset {
            seconds: micros / 1_000_000,
            line: self.records[*index].line,
            seq: *seq,
            records: off().count() as u64,
        })
    }

    /// A hash of the eleven columns. Its keys are random, so no source can be made to collide.
    fn hash(&self, event: &SyncEvent) -> u64 {
        let mut state = self.hasher.build_hasher();
        event.company.hash(&mut state);
        (event.level, &event.message, &event.details, event.status, event.records_synced).hash(&mut state);
        (&event.error_code, &event.error_message).hash(&mut state);
        event.duration_seconds.map(f64::to_bits).hash(&mut state);
        state.finish()
    }

    /// A hash of all that [`same_export`] compares.
    fn export_hash(&self, event: &SyncEvent) -> u64 {
        self.hasher.hash_one((self.hash(event), event.created_at, &event.run, event.legacy_id))
    }
}

/// How far a record lies from an event, if that may be the difference of two zones.
fn offset(record: &SyncEvent, event: &SyncEvent) -> Option<i64> {
    let (ours, theirs) = (micros(record), micros(event));
    let whole = is_whole(ours) || is_whole(theirs);
    let difference = if whole { (second(record) - second(event)) * 1_000_000 } else { ours - theirs };
    let zones = difference != 0 && difference % QUARTER_HOUR == 0 && difference.abs() <= FARTHEST_ZONE;
    zones.then_some(difference)
}

/// Whether the eleven content columns are equal.
fn same_content(one: &SyncEvent, other: &SyncEvent) -> bool {
    one.company == other.company
        && one.level == other.level
        && one.message == other.message
        && one.details == other.details
        && one.status == other.status
        && one.records_synced == other.records_synced
        && one.error_code == other.error_code
        && one.error_message == other.error_message
        && one.duration_seconds == other.duration_seconds
}

/// Whether two events of one origin are the same: all but the origin itself, which the event of
/// the store that it was first appended to does not have.
fn same_export(one: &SyncEvent, other: &SyncEvent) -> bool {
    same_content(one, other)
        && one.created_at == other.created_at
        && one.run == other.run
        && one.legacy_id == other.legacy_id
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
