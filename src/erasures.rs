//! Stretches of seqs, and whether erased events are covered by deletion records. The records lie further on in the
//! log, so this is known only at its end.

use std::path::PathBuf;

use crate::finding::{Finding, FindingKind};

/// Stretches in their order; those that overlap or touch are one.
pub(crate) fn merged(mut found: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    found.sort_unstable();
    found.dedup_by(|(first, last), (_, before)| {
        let touches = *first <= before.saturating_add(1);
        if touches {
            *before = (*last).max(*before);
        }
        touches
    });
    found
}

/// Whether stretches as [`merged`] gives them cover an event.
pub(crate) fn covers(ranges: &[(u64, u64)], seq: u64) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= seq);
    ranges[..behind].last().is_some_and(|(_, last)| *last >= seq)
}

/// What of `first..=last` such stretches leave open. Looks at those alone that reach into it.
fn uncovered(ranges: &[(u64, u64)], first: u64, last: u64) -> Vec<(u64, u64)> {
    let (mut open, mut from) = (Vec::new(), Some(first));
    for (low, high) in &ranges[ranges.partition_point(|(_, high)| *high < first)..] {
        let Some(start) = from.filter(|_| *low <= last) else { break };
        if *low > start {
            open.push((start, low - 1));
        }
        from = high.checked_add(1);
    }
    open.extend(from.filter(|from| *from <= last).map(|from| (from, last)));
    open
}

/// Erased events must be covered by a deletion record further on; those that are not are damage.
#[derive(Default)]
pub(crate) struct Erasures {
    /// First seq, last seq, and where the first one lies.
    erased: Vec<(u64, u64, PathBuf, u64)>,
    deleted: Vec<(u64, u64)>,
}

impl Erasures {
    pub(crate) fn erased(&mut self, seq: u64, file: PathBuf, offset: u64) {
        match self.erased.last_mut() {
            Some((_, last, ..)) if *last + 1 == seq => *last = seq,
            _ => self.erased.push((seq, seq, file, offset)),
        }
    }

    pub(crate) fn deleted(&mut self, ranges: &[(u64, u64)]) {
        self.deleted.extend(ranges);
    }

    /// What was erased without a record.
    pub(crate) fn unexplained(&mut self) -> Vec<Finding> {
        self.deleted = merged(std::mem::take(&mut self.deleted));
        let mut findings = Vec::new();
        for (first, last, file, offset) in std::mem::take(&mut self.erased) {
            for (from, to) in uncovered(&self.deleted, first, last) {
                let what = "the payload is zeros, and no deletion record covers it";
                let finding = Finding::new(FindingKind::DamagedFrame, what);
                findings.push(finding.seqs(from, to).at(&file, offset));
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::disk::Rng;

    #[test]
    fn stretches_cover_what_each_of_them_covers() {
        let mut rng = Rng::new(11);
        for _ in 0..3000 {
            let each: Vec<(u64, u64)> = (0..rng.below(6))
                .map(|_| {
                    let first = 1 + rng.below(30);
                    (first, first + rng.below(6))
                })
                .collect();
            let one_by_one = |seq: u64| each.iter().any(|(first, last)| (*first..=*last).contains(&seq));
            let ranges = merged(each.clone());
            assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{each:?} {ranges:?}");
            assert!((0..50).all(|seq| covers(&ranges, seq) == one_by_one(seq)), "{each:?} {ranges:?}");
            let (first, last) = (rng.below(20), 20 + rng.below(25));
            let open = uncovered(&ranges, first, last);
            let is_open = |seq: u64| open.iter().any(|(low, high)| (*low..=*high).contains(&seq));
            assert!((0..60).all(|seq| is_open(seq) == ((first..=last).contains(&seq) && !one_by_one(seq))));
        }
        let most = [(1, u64::MAX), (u64::MAX, u64::MAX)];
        assert_eq!(merged(most.to_vec()), [(1, u64::MAX)]);
        assert_eq!(uncovered(&most[..1], 0, u64::MAX), [(0, 0)]);
    }

    /// As many stretches as erased events. Looking each up among all the others would take 160,000,000,000 steps.
    #[test]
    fn erased_events_and_records_of_each_of_them_take_no_square() {
        const EVENTS: u64 = 400_000;
        let mut erasures = Erasures::default();
        for seq in (2..2 * EVENTS).step_by(2) {
            erasures.erased(seq, PathBuf::from("segment"), seq);
            erasures.deleted(&[(2 * EVENTS - seq, 2 * EVENTS - seq)]);
        }
        erasures.erased(2 * EVENTS + 1, PathBuf::from("segment"), 7);
        let found = erasures.unexplained();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].seq, found[0].offset), (Some(2 * EVENTS + 1), Some(7)));
    }
}
