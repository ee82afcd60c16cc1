//! Deletion records: which events are gone, and by which rule. Pure bytes.
//!
//! The record holds no clear text of what was erased, only a keyed hash of the company.

pub(crate) use crate::erasures::merged;

use super::frame::{Draft, FrameKind, MAX_PAYLOAD, MAX_SEQ};

/// The version of the payload below, in the frame's header.
pub(crate) const VERSION: u16 = 1;

const RANGES_AT: usize = 56;

/// A record of so many stretches has 1.6 MB.
const STRETCHES: usize = 100_000;

/// The records that take events back, stretches in their order.
pub(crate) fn records(ranges: &[(u64, u64)]) -> Vec<Deletion> {
    let record = |ranges: &[(u64, u64)]| Deletion {
        reason: Reason::Retention,
        subject: [0; 32],
        cut_off: i64::MAX,
        ranges: ranges.to_vec(),
    };
    ranges.chunks(STRETCHES).map(record).collect()
}

/// The frame of a record with this payload, where event `seq` is the next one.
pub(crate) fn draft(payload: &[u8], seq: u64, now: i64, durable_end: u64, previous: u32) -> Draft<'_> {
    Draft {
        kind: FrameKind::Deletion,
        version: VERSION,
        appended_at: now,
        payload,
        ..Draft::mark(durable_end, seq, previous)
    }
}

/// What is left of stretches when others are taken away; both as [`merged`] gives them.
pub(crate) fn without(ranges: &[(u64, u64)], others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let (mut left, mut others) = (Vec::new(), others.iter().copied().peekable());
    for (first, last) in ranges.iter().copied() {
        while others.next_if(|(_, behind)| *behind < first).is_some() {}
        let mut from = Some(first);
        while let Some(start) = from
            && let Some((low, high)) = others.peek().copied().filter(|(low, _)| *low <= last)
        {
            if start < low {
                left.push((start, low - 1));
            }
            from = high.checked_add(1).filter(|next| *next <= last);
            if high > last {
                break; // it may reach into the next one
            }
            others.next();
        }
        left.extend(from.map(|start| (start, last)));
    }
    left
}

/// Why events were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// They were older than the cut-off; with none, they were taken back.
    Retention,
    /// They belonged to one company.
    Erasure,
}

/// A deletion record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    pub(crate) reason: Reason,
    /// A keyed hash of what was erased; zeros for retention.
    pub(crate) subject: [u8; 32],
    /// Events at or after this time were spared, microseconds since 1970; `i64::MAX` for all.
    pub(crate) cut_off: i64,
    /// The events: first and last seq of each stretch, ascending, without overlaps.
    pub(crate) ranges: Vec<(u64, u64)>,
}

impl Deletion {
    /// The payload of the record's frame.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![
            match self.reason {
                Reason::Retention => 1,
                Reason::Erasure => 2,
            },
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        out.extend_from_slice(&self.subject);
        out.extend_from_slice(&self.cut_off.to_le_bytes());
        out.extend_from_slice(&(self.ranges.len() as u64).to_le_bytes());
        for (first, last) in &self.ranges {
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&last.to_le_bytes());
        }
        out
    }

    /// Reads a payload; `None` where it is no deletion record of version 1.
    pub(crate) fn decode(raw: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| raw.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let reason = match raw.first()? {
            1 => Reason::Retention,
            2 => Reason::Erasure,
            _ => return None,
        };
        let count = u64_at(RANGES_AT - 8)?;
        if count > u64::from(MAX_PAYLOAD) / 16 || raw.len() as u64 != RANGES_AT as u64 + count * 16 {
            return None;
        }
        let mut ranges = Vec::with_capacity(count as usize);
        let mut floor = 1;
        for index in 0..count as usize {
            let (first, last) = (u64_at(RANGES_AT + index * 16)?, u64_at(RANGES_AT + index * 16 + 8)?);
            if first < floor || last < first || last > MAX_SEQ {
                return None;
            }
            floor = last.checked_add(1)?;
            ranges.push((first, last));
        }
        // 32 bytes, always.
        let subject = raw.get(8..40)?.try_into().ok()?;
        (raw[1..8] == [0; 7]).then_some(Self { reason, subject, cut_off: u64_at(40)? as i64, ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_taken_away_as_if_seq_by_seq() {
        let stretches =
            |bits: u32| merged((0..10).filter(|at| bits >> at & 1 == 1).map(|at| (at, at)).collect());
        for one in (0..1024).step_by(7) {
            for other in 0..1024 {
                assert_eq!(
                    without(&stretches(one), &stretches(other)),
                    stretches(one & !other),
                    "{one} {other}"
                );
            }
        }
        assert_eq!(without(&[(1, u64::MAX)], &[(3, u64::MAX)]), [(1, 2)]);
        assert_eq!(merged(vec![(4, 9), (1, 2), (3, 3), (5, u64::MAX), (6, 7)]), [(1, u64::MAX)]);
    }

    #[test]
    fn records_go_both_ways_and_bad_ones_are_refused() {
        let record =
            Deletion { reason: Reason::Erasure, subject: [5; 32], cut_off: -7, ranges: vec![(1, 1), (3, 9)] };
        let raw = record.encode();
        assert_eq!(Deletion::decode(&raw), Some(record.clone()));
        for cut in 0..raw.len() {
            assert_eq!(Deletion::decode(&raw[..cut]), None, "{cut} bytes");
        }
        let overlapping = Deletion { ranges: vec![(1, 3), (3, 4)], ..record };
        assert_eq!(Deletion::decode(&overlapping.encode()), None);
    }
}
