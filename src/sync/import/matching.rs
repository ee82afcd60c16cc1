//! Which records of a source are there already, and which are to be imported.
//!
//! The whole source is matched before anything is written. A record from our own export is known
//! by where it was first appended. Any other is known by its content (the eleven columns) and its
//! time; whole seconds are compared where either time has no fraction, because older tables kept
//! no more. What was added to the details because it has no column is no content. The rules, in this order:
//!
//! 1. a record with an id matches an event with that legacy id; where one has whole seconds and the other
//!    a fraction they may be 60 s apart, and each is taken once (`same_id.rs`); a record may also be an
//!    earlier one once more;
//! 2. else it claims an event without a legacy id (`claims.rs`, as the next one);
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
use super::claims::{Bucket, Candidate, Fate, is_whole, micros, second};
use super::fields::details_of;
use super::same_id::{SameId, WINDOW};

/// A quarter of an hour: zones differ by whole ones.
const QUARTER_HOUR: i64 = 900_000_000;

/// No zone is farther from UTC than this many quarters of an hour.
const FARTHEST_ZONE: i64 = 14 * 4;

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
    /// How many of `import` equal an event, or an earlier record, in all but the id.
    pub(crate) look_alikes: u64,
    /// Events that the source gave when it was read in another zone, by seq, each with the record that takes
    /// its place.
    pub(crate) wrong: Vec<(u64, Replacement)>,
    /// Set where the source seems to be in another zone than the one it was read in.
    pub(crate) time_offset: Option<TimeOffset>,
}

/// What is there instead of an event that is in another zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replacement {
    /// Another event of the store.
    There,
    /// The record of [`ImportPlan::import`] with this index.
    Imported(usize),
}

/// A record that may be in another zone.
#[derive(Clone, Copy, Debug)]
struct Off {
    micros: i64,
    seq: u64,
    /// Seen only by allowing for the seconds that a table may be late.
    late: bool,
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
    /// The events that some of these may match.
    events: Vec<Candidate>,
    /// Records with ids, by id and content.
    by_id: HashMap<(i64, u64), Vec<SameId>>,
    /// The ids of the source, and whether an event of the store has them.
    ids: HashMap<i64, bool>,
    offsets: HashMap<usize, Off>,
    /// Where the source was once read in another zone: the records by content and the time that gave, and
    /// the events that are so.
    in_wrong_zone: HashMap<(u64, i64), Vec<usize>>,
    wrong: Vec<(u64, usize)>,
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
            events: Vec::new(),
            by_id: HashMap::new(),
            ids: HashMap::new(),
            offsets: HashMap::new(),
            in_wrong_zone: HashMap::new(),
            wrong: Vec::new(),
        };
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
                let groups = matcher.by_id.entry((id, hash)).or_default();
                let group = group_of(groups, &records, event).unwrap_or_else(|| {
                    groups.push(SameId::default());
                    groups.len() - 1
                });
                groups[group].add(index, micros(event));
            }
            if let Some(wrong) = record.wrong_time.filter(|wrong| event.created_at != Some(*wrong)) {
                matcher.in_wrong_zone.entry((hash, wrong.as_micros())).or_default().push(index);
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
        let time = micros(event);
        let known_id = event.legacy_id.filter(|id| self.ids.contains_key(id));
        let at = self.events.len();
        let mut kept = false;
        if let Some(id) = known_id {
            self.ids.insert(id, true);
            let groups = self.by_id.entry((id, hash)).or_default();
            if let Some(group) = group_of(groups, &self.records, event).map(|group| &mut groups[group]) {
                for (index, off) in offsets(group, time, seq) {
                    let known = self.offsets.entry(index).or_insert(off);
                    if known.late && !off.late {
                        *known = off;
                    }
                }
                if group.wants(time) {
                    group.keep(time, at);
                    kept = true;
                }
            }
        }
        for bucket in self.by_content.get(&(hash, second(event))).into_iter().flatten() {
            let bucket = &mut self.buckets[*bucket];
            if same_content(&self.records[bucket.records[0]].event, event) && bucket.wants(event, known_id) {
                bucket.keep(event, known_id, at);
                kept = true;
            }
        }
        if kept {
            let legacy_id = event.legacy_id;
            self.events.push(Candidate { seq, micros: time, legacy_id, claimed: false });
        }
        // Each record has brought no more than one.
        let brought = |index: &usize| {
            let record = &self.records[*index].event;
            record.legacy_id == event.legacy_id && event.origin.is_none() && same_content(record, event)
        };
        let records = self.in_wrong_zone.get_mut(&(hash, time));
        if let Some(records) = records
            && let Some(found) = records.iter().position(brought)
        {
            self.wrong.push((seq, records.remove(found)));
        }
    }

    /// What to do, now that every event was seen. `deleted` says of a record that is not there
    /// whether a recorded deletion covers it.
    pub(crate) fn plan(mut self, mut deleted: impl FnMut(&Record) -> bool) -> ImportPlan {
        let mut fates = vec![Fate::Import; self.records.len()];
        for group in self.by_id.values().flatten() {
            group.settle(&mut fates, |event| self.events[event].claimed = true);
        }
        for bucket in &self.buckets {
            bucket.settle(&self.records, &mut self.events, &mut fates);
        }
        self.settle_exports(&mut fates);
        let claimed: HashSet<u64> =
            self.events.iter().filter(|event| event.claimed).map(|event| event.seq).collect();
        self.wrong.retain(|(seq, _)| !claimed.contains(seq));

        let mut plan = ImportPlan { time_offset: self.time_offset(&fates), ..ImportPlan::default() };
        for bucket in &self.buckets {
            plan.look_alikes += bucket.look_alikes(&self.records, &self.events, &fates);
        }
        let mut places = HashMap::new();
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
                places.insert(index, plan.import.len());
                plan.import.push(record);
            }
        }
        plan.wrong = std::mem::take(&mut self.wrong)
            .into_iter()
            .map(|(seq, index)| {
                let first = if let Fate::Repeats(first) = fates[index] { first } else { index };
                let place = places.get(&first).copied();
                (seq, place.map_or(Replacement::There, Replacement::Imported))
            })
            .collect();
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
    /// there is another event of its id. Nor does an event that is known to be in the wrong one.
    fn time_offset(&self, fates: &[Fate]) -> Option<TimeOffset> {
        let wrong: HashSet<u64> = self.wrong.iter().map(|(seq, _)| *seq).collect();
        // In a wrong zone no record fits; where one does, a few seconds more are a coincidence.
        let any_fits = fates.contains(&Fate::Known);
        let off = || {
            self.offsets.iter().filter(|(index, off)| {
                fates[**index] != Fate::Known && !wrong.contains(&off.seq) && !(off.late && any_fits)
            })
        };
        let (index, first) = off().min_by_key(|(index, _)| **index)?;
        Some(TimeOffset {
            seconds: first.micros / 1_000_000,
            line: self.records[*index].line,
            seq: first.seq,
            records: off().count() as u64,
        })
    }

    /// A hash of the eleven columns. Its keys are random, so no source can be made to collide.
    fn hash(&self, event: &SyncEvent) -> u64 {
        let mut state = self.hasher.build_hasher();
        event.company.hash(&mut state);
        (event.level, &event.message, event.status, event.records_synced).hash(&mut state);
        details_of(event).hash(&mut state);
        (&event.error_code, &event.error_message).hash(&mut state);
        event.duration_seconds.map(f64::to_bits).hash(&mut state);
        state.finish()
    }

    /// A hash of all that [`same_export`] compares.
    fn export_hash(&self, event: &SyncEvent) -> u64 {
        self.hasher.hash_one((
            self.hash(event),
            &event.details,
            event.created_at,
            &event.run,
            event.legacy_id,
        ))
    }
}

/// Which of these groups has this content.
fn group_of(groups: &[SameId], records: &[Record], event: &SyncEvent) -> Option<usize> {
    let has = |group: &SameId| group.any_record().is_some_and(|at| same_content(&records[at].event, event));
    groups.iter().position(has)
}

/// The records of one id and content that are a difference of zones away from an event.
fn offsets(group: &SameId, micros: i64, seq: u64) -> Vec<(usize, Off)> {
    let mut found = Vec::new();
    if !group.spreads_from(micros) {
        return found;
    }
    for quarters in (-FARTHEST_ZONE..=FARTHEST_ZONE).filter(|quarters| *quarters != 0) {
        let offset = quarters * QUARTER_HOUR;
        for late in [false, true] {
            let seconds = if late { WINDOW } else { 0 };
            let records = group.records_at(micros + offset, is_whole(micros), seconds);
            found.extend(records.into_iter().map(|index| (index, Off { micros: offset, seq, late })));
        }
    }
    found
}

/// Whether the eleven content columns are equal.
fn same_content(one: &SyncEvent, other: &SyncEvent) -> bool {
    one.company == other.company
        && one.level == other.level
        && one.message == other.message
        && details_of(one) == details_of(other)
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
        && one.details == other.details
        && one.created_at == other.created_at
        && one.run == other.run
        && one.legacy_id == other.legacy_id
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
