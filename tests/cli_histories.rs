//! Two copies of one store, and a part of one in the place of the other's.
#![cfg(feature = "cli")]

mod cli_support;

use std::fs;

use cli_support::{Bench, append_args, text};
use serde_json::Value;

#[test]
fn the_newest_segment_of_a_copy_that_went_on_is_refused_until_somebody_chooses() {
    let bench = Bench::new();
    for number in 1..=20 {
        bench.append(&format!("common {number}"));
    }
    let copy = Bench::new();
    fs::create_dir_all(copy.dir().join("log")).unwrap();
    for name in ["synclog.db", "tail", "log/00000000000000000001.seg"] {
        fs::copy(bench.dir().join(name), copy.dir().join(name)).unwrap();
    }
    for (store, name) in [(&bench, "one"), (&copy, "two")] {
        for number in 1..=3 {
            store.append(&format!("{name} {number}"));
        }
    }
    fs::copy(copy.segment(), bench.segment()).unwrap();

    let before = bench.bytes();
    for args in [&append_args("next")[..], &["replay"], &["status"], &["verify"], &["list"]] {
        let done = bench.run(args).expect(4);
        let told = done.out + &done.err;
        assert!(told.contains("two histories") || told.contains("two_histories"), "{args:?}: {told}");
        assert!(told.contains("rows prove events 21 to 23"), "{args:?}: {told}");
        assert!(told.contains("the log holds others as 21 to 23"), "{args:?}: {told}");
    }
    for args in [&["repair", "--dry-run"][..], &["repair"]] {
        let done = bench.run(args).expect(4);
        let found: Vec<Value> = done.lines();
        assert_eq!((text(&found[0], "finding").as_str(), &found[0]["seq"]), ("two_histories", &21.into()));
        assert_eq!(done.summary()["acceptable"], Value::Null);
    }
    let mut after = bench.bytes();
    // Only what an opening for writing notes of itself may have changed.
    for name in ["lock", "last-open.json"] {
        let path = bench.dir().join(name);
        after.remove(&path);
        assert!(before.contains_key(&path));
    }
    assert!(after.iter().all(|(path, bytes)| before.get(path) == Some(bytes)));

    let done = bench.run(&["repair", "--trust-log"]).expect(0);
    let kept = done.summary()["quarantined"][0].as_str().unwrap().to_owned();
    bench.run(&["verify"]).expect(0);
    let imported = bench.run(&["import", &kept]).expect(0).json();
    assert_eq!((&imported["imported"], &imported["already_present"]), (&3.into(), &0.into()));
    let messages = bench.messages();
    for name in ["one", "two"] {
        assert!((1..=3).all(|number| messages.contains(&format!("{name} {number}"))), "{messages:?}");
    }
    assert_eq!(messages.len(), 26);
}
