//! The command line on a store of another event type than the history of sync runs.
#![cfg(feature = "cli")]

mod cli_support;
#[path = "common/number.rs"]
#[allow(dead_code, unreachable_pub)]
mod number;

use cli_support::{Bench, append_args};
use number::SYNC_LOGS;
use synclog::{Options, Store};

/// What somebody else's program keeps, in a table of the same name.
type Number = number::Number<4000, SYNC_LOGS>;

#[test]
fn every_command_leaves_a_store_of_another_type_alone_and_ends_with_14() {
    let append = append_args("m1");
    let commands: [&[&str]; 15] = [
        &append,
        &["append", "--stdin"],
        &["list"],
        &["runs"],
        &["tail"],
        &["status"],
        &["export"],
        &["verify"],
        &["verify", "--log-only"],
        &["replay"],
        &["replay", "--rebuild"],
        &["replay", "--dry-run"],
        &["repair"],
        &["repair", "--dry-run"],
        &["repair", "--trust-log"],
    ];
    for events in [0, 3] {
        let bench = Bench::new();
        let store = Store::<Number>::open(bench.dir(), Options::default()).unwrap();
        for number in 0..events {
            store.append(number::Number(number)).unwrap();
        }
        store.close().unwrap();
        let before = bench.bytes();
        for args in commands {
            let done = bench.run(args);
            assert_eq!(done.code, Some(14), "{args:?}: {}{}", done.out, done.err);
            assert!(done.out.is_empty(), "{args:?}: {}", done.out);
            assert!(done.err.contains("events of kind 4000"), "{args:?}: {}", done.err);
            assert!(done.err.contains("hint: nothing was touched"), "{args:?}: {}", done.err);
            assert!(bench.bytes() == before, "{args:?}");
        }
        assert_eq!(Store::<Number>::open(bench.dir(), Options::default()).unwrap().last_seq(), events as u64);
    }
}
