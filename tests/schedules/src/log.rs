//! Places in the log.

pub(crate) mod writer {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Position {
        /// The seq behind everything before this place.
        pub(crate) seq: u64,
    }
}
