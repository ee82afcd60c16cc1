//! Are erased events covered by deletion records? The records lie further on in the log, so this is
//! known only at its end.

use std::path::PathBuf;

use crate::finding::{Finding, FindingKind};

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
        let mut findings = Vec::new();
        for (first, last, file, offset) in std::mem::take(&mut self.erased) {
            let covered = |seq: u64| self.deleted.iter().any(|(low, high)| (*low..=*high).contains(&seq));
            let mut open = None;
            for seq in first..=last + 1 {
                let bare = seq <= last && !covered(seq);
                match (open, bare) {
                    (None, true) => open = Some(seq),
                    (Some(from), false) => {
                        let what = "the payload is zeros, and no deletion record covers it";
                        findings.push(
                            Finding::new(FindingKind::DamagedFrame, what)
                                .seqs(from, seq - 1)
                                .at(&file, offset),
                        );
                        open = None;
                    }
                    _ => {}
                }
            }
        }
        findings
    }
}
