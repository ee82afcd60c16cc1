//! Torn or corrupt? The decision, as a table.
//!
//! [`super::survey`] gathers the evidence at the first offset X where no valid frame follows; the
//! rows below are tried in order and the first that fits decides. Nothing here touches a file, so
//! that a test can walk through every combination of evidence.

/// What is known about X and the bytes behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// A read failed, or gave fewer bytes than the segment has.
    pub(crate) io_error: bool,
    /// A segment is of a newer format or another store, missing, doubled, out of chain, or short.
    pub(crate) refused_segment: bool,
    /// Something was proved durable beyond X.
    pub(crate) proof_beyond: bool,
    /// Every byte from X to the segment's end is zero.
    pub(crate) rest_is_zero: bool,
    /// A later segment goes on from exactly X: same seq, same chain.
    pub(crate) later_segment_goes_on: bool,
    /// A piece of the damaged extent at X, cut at 512-byte boundaries, is all zero.
    pub(crate) zero_piece: bool,
    /// The last byte that is not zero lies within one group's length of X.
    pub(crate) within_one_group: bool,
    /// The 48 bytes at X are all zero.
    pub(crate) zero_at_end: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// The read failed: report it, conclude nothing.
    IoError,
    /// Refuse to append; what is sound stays readable.
    Refuse,
    /// Heal from rows, or refuse to append and name what is missing. Never truncate.
    Corruption,
    /// The log ends at X.
    CleanEnd,
    /// The log ends at X; put the bytes behind it aside and zero them.
    TornTail,
    /// As a torn tail, but nothing was ever being written there.
    DamagedFiller,
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) fits: fn(&Evidence) -> bool,
    pub(crate) verdict: Verdict,
    /// The reason; the tests print it beside the evidence that the row decides.
    #[cfg_attr(not(test), allow(dead_code))]
    pub(crate) why: &'static str,
}

/// The table. The first row that fits decides; the last row fits everything.
pub(crate) const TABLE: [Row; 8] = [
    Row {
        name: "io error",
        fits: |e| e.io_error,
        verdict: Verdict::IoError,
        why: "a disk that cannot be read says nothing about what it holds; taking EIO for the end \
              of the log would cut off everything behind one bad sector",
    },
    Row {
        name: "refused segment",
        fits: |e| e.refused_segment,
        verdict: Verdict::Refuse,
        why: "no crash makes such a segment: it is renamed into place whole, synced and numbered, \
              so a person or a copy did this and a person must look",
    },
    Row {
        name: "proved beyond",
        fits: |e| e.proof_beyond,
        verdict: Verdict::Corruption,
        why: "a header whose durable_end lies beyond X, a later segment that goes on from elsewhere, \
              or an applied seq beyond X was written only after a sync of X had succeeded: a crash \
              cannot take back what was synced",
    },
    Row {
        name: "clean end",
        fits: |e| e.rest_is_zero,
        verdict: Verdict::CleanEnd,
        why: "nothing was being written, or nothing of it reached the disk",
    },
    Row {
        name: "filler of a sealed segment",
        fits: |e| e.later_segment_goes_on,
        verdict: Verdict::DamagedFiller,
        why: "the next segment tells where this one ended, so the stray bytes were never a frame",
    },
    Row {
        name: "torn tail",
        fits: |e| e.zero_piece && e.within_one_group,
        verdict: Verdict::TornTail,
        why: "a frame has no piece of zeros unless a synced mark follows it, so a sector of it never \
              arrived: its group was in flight, and only one group is in flight at a time",
    },
    Row {
        name: "damaged filler",
        fits: |e| e.zero_at_end && !e.within_one_group,
        verdict: Verdict::DamagedFiller,
        why: "the group in flight cannot reach that far: these bytes were not written by an append",
    },
    Row {
        name: "anything else",
        fits: |_| true,
        verdict: Verdict::Corruption,
        why: "every sector of the frame at X was written, and its bytes are wrong: it may have been \
              acknowledged",
    },
];

/// The row that decides.
pub(crate) fn decide(evidence: Evidence) -> &'static Row {
    TABLE.iter().find(|row| (row.fits)(&evidence)).unwrap_or(&TABLE[TABLE.len() - 1])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn every_combination() -> impl Iterator<Item = Evidence> {
        (0..256_u32).map(|bits| {
            let bit = |index: u32| bits >> index & 1 == 1;
            Evidence {
                io_error: bit(0),
                refused_segment: bit(1),
                proof_beyond: bit(2),
                rest_is_zero: bit(3),
                later_segment_goes_on: bit(4),
                zero_piece: bit(5),
                within_one_group: bit(6),
                zero_at_end: bit(7),
            }
        })
    }

    /// All 256 combinations, which row decides each, and that every row decides some.
    #[test]
    fn every_combination_is_decided_and_every_row_decides_some() {
        let mut decided = BTreeMap::new();
        for evidence in every_combination() {
            let row = decide(evidence);
            *decided.entry(row.name).or_insert(0) += 1;
            println!("{:<28} {evidence:?}", row.name);
        }
        for row in &TABLE {
            println!(
                "{:>4}  {:<28} {:?}: {}",
                decided.get(row.name).unwrap_or(&0),
                row.name,
                row.verdict,
                row.why
            );
        }
        let counts: Vec<_> = TABLE.iter().map(|row| decided.get(row.name).copied().unwrap_or(0)).collect();
        assert_eq!(counts, [128, 64, 32, 16, 8, 2, 2, 4]);
        assert_eq!(counts.iter().sum::<i32>(), 256);
    }

    /// The rules that matter, said without the table.
    #[test]
    fn nothing_proved_is_ever_dropped_and_no_failed_read_is_an_end() {
        for evidence in every_combination() {
            let verdict = decide(evidence).verdict;
            let drops = [Verdict::CleanEnd, Verdict::TornTail, Verdict::DamagedFiller].contains(&verdict);
            assert!(!(drops && evidence.proof_beyond), "P3: {evidence:?}");
            assert!(!(drops && evidence.io_error), "P3: {evidence:?}");
            assert!(!(drops && evidence.refused_segment), "P3: {evidence:?}");
            if evidence.rest_is_zero
                && !evidence.io_error
                && !evidence.refused_segment
                && !evidence.proof_beyond
            {
                assert_eq!(verdict, Verdict::CleanEnd, "P5: {evidence:?}");
            }
        }
    }
}
