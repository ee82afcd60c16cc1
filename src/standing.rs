//! Faults that last: each is told when it begins and when it has ended, not each time somebody meets it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A fault that comes back sooner than this after it was told is still the same one.
const QUIET: Duration = Duration::from_secs(10);
/// Faults that are remembered; others are not told while these last.
const MOST: usize = 64;

struct Told {
    at: Instant,
    lasts: bool,
}

/// What was told of the faults that last at present. Texts that differ in nothing but numbers are one fault.
#[derive(Default)]
pub(crate) struct Standing {
    faults: BTreeMap<String, Told>,
    kept_back: u64,
}

impl Standing {
    /// Somebody has met this fault. Whether to tell it now.
    pub(crate) fn met(&mut self, fault: &str, now: Instant) -> bool {
        let name: String = fault.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        let known = self.faults.get(&name);
        if known.is_some_and(|told| told.lasts || now.saturating_duration_since(told.at) < QUIET) {
            self.kept_back += 1;
            return false;
        }
        if self.faults.len() >= MOST {
            self.faults.retain(|_, told| told.lasts);
        }
        let room = self.faults.len() < MOST || self.faults.contains_key(&name);
        if room {
            self.faults.insert(name, Told { at: now, lasts: true });
        } else {
            self.kept_back += 1;
        }
        room
    }

    /// Nothing is wrong any more. `None` where that is nothing new; otherwise how often a fault was met without being
    /// told.
    pub(crate) fn over(&mut self) -> Option<u64> {
        let lasted = self.lasts();
        self.faults.values_mut().for_each(|told| told.lasts = false);
        lasted.then(|| std::mem::take(&mut self.kept_back))
    }

    /// Whether a fault was told, and its end was not.
    pub(crate) fn lasts(&self) -> bool {
        self.faults.values().any(|told| told.lasts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_when_it_begins_and_when_it_has_ended() {
        let start = Instant::now();
        let mut standing = Standing::default();
        assert_eq!(standing.over(), None);
        for round in 0..3 {
            let now = start + round * QUIET;
            let met = |number: u32| ["disk full", "row 7 differs", "row 8 differs"][number as usize % 3];
            let told: Vec<bool> = (0..60).map(|number| standing.met(met(number), now)).collect();
            assert_eq!(told.iter().filter(|told| **told).count(), 2, "numbers make no difference");
            assert!(told[0] && told[1] && standing.lasts());
            assert_eq!(standing.over(), Some(58));
            assert_eq!((standing.over(), standing.lasts()), (None, false));
        }
    }

    #[test]
    fn a_fault_that_comes_and_goes_is_told_once_in_a_while() {
        let start = Instant::now();
        let mut standing = Standing::default();
        let step = QUIET / 100;
        let (mut begun, mut ended) = (0, 0);
        for number in 0..250 {
            begun += u32::from(standing.met("gone", start + number * step));
            ended += u32::from(standing.over().is_some());
        }
        assert_eq!((begun, ended), (3, 3));
        // One that stays is told, though it began right after the last end.
        let told: Vec<bool> = (250..450).map(|number| standing.met("gone", start + number * step)).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
    }

    #[test]
    fn texts_that_never_repeat_take_no_unbounded_memory() {
        let now = Instant::now();
        let mut standing = Standing::default();
        let text = |number: u32| char::from_u32(0x4e00 + number).unwrap_or('?').to_string();
        let told = (0..1000).filter(|number| standing.met(&text(*number), now)).count();
        assert_eq!((told, standing.over()), (MOST, Some(1000 - MOST as u64)));
    }
}
