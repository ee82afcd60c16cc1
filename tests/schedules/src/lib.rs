//! The commit path of synclog under a scheduler that decides which thread takes the next step.
//!
//! The files of `src/store/commit` that know neither log nor database are compiled here a second time, with
//! the locks and threads of [shuttle](https://docs.rs/shuttle). Its condition variables never time out, so
//! a wake that is missing is a deadlock, which it reports.
#![cfg(test)]

mod error;
mod log;
mod store;
