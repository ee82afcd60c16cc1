//! Stands where the library has its store.

pub(crate) mod commit;
