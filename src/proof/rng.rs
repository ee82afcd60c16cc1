//! Choices that can be made again.

/// A small generator, so that a failing case can be run again by its seed. Or a tape of bytes, each
/// of which makes one choice: then a fuzzer decides.
#[derive(Clone)]
pub(crate) struct Rng {
    state: u64,
    tape: std::vec::IntoIter<u8>,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, tape: Vec::new().into_iter() }
    }

    /// Choices from `bytes`; where they end, from a fixed seed.
    pub(crate) fn from_tape(bytes: &[u8]) -> Self {
        Self { tape: Vec::from(bytes).into_iter(), ..Self::new(1) }
    }

    /// Whether the tape has run out.
    pub(crate) fn is_spent(&self) -> bool {
        self.tape.as_slice().is_empty()
    }

    pub(crate) fn next(&mut self) -> u64 {
        if let Some(byte) = self.tape.next() {
            return u64::from(byte) << 11 | u64::from(byte);
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let high = if end > 256 && !self.is_spent() { (self.next() >> 11) << 8 } else { 0 };
        (high + (self.next() >> 11)) % end.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
