//! As much of the library's errors as the commit path names.

use std::fmt;
use std::sync::Arc;

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Clone, Debug)]
pub(crate) enum Error {
    /// The write or sync failed.
    Sync,
    Dead {
        cause: Arc<Error>,
    },
    Closed,
    Abandoned,
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync => write!(to, "the sync failed"),
            Self::Dead { cause } => write!(to, "dead: {cause}"),
            Self::Closed => write!(to, "closed"),
            Self::Abandoned => write!(to, "abandoned"),
        }
    }
}
