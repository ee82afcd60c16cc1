//! What lies outside the program fails it: a stderr that takes nothing, a database that cannot be counted (P12).
#![cfg(all(feature = "cli", unix))]

mod cli_support;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::process::Stdio;

use cli_support::{Bench, append_args, text};

/// The library warns of a database that was not there, and nobody can be told.
#[test]
fn a_warning_that_cannot_be_written_ends_nothing() {
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
        eprintln!("NOT EXERCISED: there is no /dev/full");
        return;
    };
    let bench = Bench::filled(1);
    bench.remove_database();
    let mut command = bench.command(&append_args("m"));
    let done = command.stdin(Stdio::null()).stderr(full).output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    assert!(String::from_utf8(done.stdout).unwrap().contains("\"seq\":2"));
}

/// A count that fails is no count of zero.
#[test]
fn status_does_not_take_a_failed_count_for_ok() {
    let bench = Bench::filled(200);
    let db = bench.database();
    let mut query = db.prepare("SELECT rootpage FROM sqlite_schema WHERE type = 'index'").unwrap();
    let roots: Vec<u32> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let size: u32 = db.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
    drop(query);
    drop(db);
    let file: File = OpenOptions::new().write(true).open(bench.dir().join("synclog.db")).unwrap();
    for root in roots {
        file.write_all_at(&vec![0xee; size as usize], u64::from((root - 1) * size)).unwrap();
    }
    drop(file);
    let status = bench.run(&["status"]).expect(3).json();
    assert_eq!(status["state"], "projection differs", "{status}");
    assert_eq!(status["next"], "synclog replay");
    assert!(status["missing_rows"].is_null() && status["database_error"].is_string(), "{status}");
    bench.run(&["replay"]).expect(0);
    assert_eq!(bench.run(&["status"]).expect(0).json()["missing_rows"], 0);
}

/// A row that is not there was not compared.
#[test]
fn verify_counts_rows_and_not_their_absence() {
    let bench = Bench::filled(20);
    bench.database().execute_batch("DELETE FROM sync_logs WHERE id IN (3, 4, 17)").unwrap();
    let summary = bench.run(&["verify"]).expect(3).lines().pop().unwrap();
    assert_eq!(
        (&summary["summary"]["events"], &summary["summary"]["rows"]),
        (&20.into(), &17.into()),
        "{summary}"
    );
    let dry = bench.run(&["replay", "--dry-run"]).expect(3).json();
    assert_eq!((&dry["restored"], &dry["already_present"]), (&3.into(), &17.into()), "{dry}");
    let done = bench.run(&["replay"]).expect(0).json();
    assert_eq!((&done["restored"], &done["already_present"]), (&3.into(), &17.into()), "{done}");
}

/// A cursor that is a link stays one, and its file keeps its mode. One that leads nowhere is told before the first
/// line.
#[test]
fn a_cursor_file_that_is_a_link_is_written_through() {
    let bench = Bench::filled(3);
    let at = |name: &str| bench.temp.path().join(name);
    std::fs::create_dir(at("elsewhere")).unwrap();
    std::fs::write(at("elsewhere/cursor"), "1\n").unwrap();
    std::fs::set_permissions(at("elsewhere/cursor"), std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink("elsewhere/cursor", at("second")).unwrap();
    symlink(at("second"), at("first")).unwrap();
    let first = at("first");
    let args = ["tail", "--cursor-file", first.to_str().unwrap()];
    assert_eq!(bench.run(&args).expect(0).out.lines().count(), 2);
    assert!(std::fs::symlink_metadata(&first).unwrap().is_symlink());
    assert!(std::fs::read_to_string(at("elsewhere/cursor")).unwrap().starts_with("3 "));
    assert_eq!(std::fs::metadata(at("elsewhere/cursor")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(bench.run(&args).expect(0).out, "");
    assert_eq!(std::fs::read_dir(at("elsewhere")).unwrap().count(), 1, "nothing stays beside it");

    symlink("nowhere", at("dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("/dev/zero", at("endless")).unwrap();
    for (name, code, word) in
        [("dangling", 1, "symbolic link"), ("loop", 1, "symbolic link"), ("endless", 2, "regular file")]
    {
        let cursor = at(name);
        let done = bench.run(&["tail", "--cursor-file", cursor.to_str().unwrap()]).expect(code);
        assert!(done.out.is_empty() && done.err.contains(word), "{}", done.err);
        assert!(std::fs::symlink_metadata(&cursor).unwrap().is_symlink());
    }
    assert!(!at("nowhere").exists());
}

fn owner(path: &std::path::Path) -> (u32, u32) {
    let found = std::fs::metadata(path).unwrap();
    (found.uid(), found.gid())
}

/// Root rolls a segment, rebuilds the database and repairs, and the user whose store it is goes on.
#[test]
fn what_root_makes_in_a_store_belongs_to_its_owner() {
    let bench = Bench::new();
    let service = (54_321, 54_322);
    std::fs::create_dir(bench.dir()).unwrap();
    if chown(bench.dir(), Some(service.0), Some(service.1)).is_err() {
        eprintln!("NOT EXERCISED: only root can give a directory away");
        return;
    }
    bench.fill(900);
    bench.run(&["replay", "--rebuild"]).expect(0);
    std::fs::write(bench.dir().join("synclog.db"), "no database").unwrap();
    bench.append("and on");
    let mut files = vec![bench.dir().join("log"), bench.dir().join("quarantine")];
    files.extend(bench.bytes().into_keys());
    assert!(files.iter().any(|path| path.ends_with("00000000000000000002.seg")), "it was rolled: {files:?}");
    assert!(files.iter().any(|path| path.starts_with(bench.dir().join("quarantine"))), "{files:?}");
    for path in files {
        assert_eq!(owner(&path), service, "{}", path.display());
    }
}

/// What is made beside private files, or in their place, is as private.
#[test]
fn private_files_stay_private() {
    let bench = Bench::filled(300);
    let private = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    bench.bytes().into_keys().for_each(|path| private(&path));
    bench.fill(900);
    bench.run(&["replay", "--rebuild"]).expect(0);
    std::fs::write(bench.dir().join("synclog.db"), "no database").unwrap();
    bench.append("and on");
    std::fs::remove_file(bench.dir().join("synclog.db")).unwrap();
    std::fs::remove_file(bench.dir().join("tail")).unwrap();
    bench.append("and on");
    // A segment that was cut is put together again.
    let segment = bench.segment();
    let len = std::fs::metadata(&segment).unwrap().len();
    std::fs::File::options().write(true).open(&segment).unwrap().set_len(len - 4096).unwrap();
    drop(bench.run(&["repair"]));
    let files = bench.bytes();
    assert!(files.len() > 6, "{:?}", files.keys());
    for path in files.into_keys() {
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}

/// The last seq that a log can hold, less one for a mark behind it.
const LAST_SEQ: u64 = (1 << 62) - 1;

/// An empty store whose first event gets this seq.
fn store_from(first: u64) -> Bench {
    let bench = Bench::filled(1);
    let path = bench.segment();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8192..].fill(0);
    for copy in [0, 4096] {
        // The first seq, and the first retained one.
        bytes[copy + 40..copy + 48].copy_from_slice(&first.to_le_bytes());
        bytes[copy + 48..copy + 56].copy_from_slice(&first.to_le_bytes());
        let sum = crc32fast::hash(&bytes[copy..copy + 76]);
        bytes[copy + 76..copy + 80].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
    for name in ["synclog.db", "synclog.db-wal", "synclog.db-shm", "tail", "last-open.json"] {
        drop(std::fs::remove_file(bench.dir().join(name)));
    }
    bench
}

/// What stands beside a log that is near the last seqs of all, and says that more was there, overflows nothing, and
/// nothing is written that is then refused.
#[test]
fn a_witness_at_the_last_seqs_overflows_nothing() {
    for seen in [LAST_SEQ + 1, LAST_SEQ + 2, u64::MAX - 1, u64::MAX] {
        let bench = store_from(LAST_SEQ - 40);
        bench.append("m");
        let store = text(&bench.run(&["status"]).json(), "log_store_id");
        let fields = format!("{store} {seen:020} {:08x}", 7);
        let sum = crc32fast::hash(fields.as_bytes());
        std::fs::write(bench.dir().join("tail"), format!("{fields} {sum:08x}\n")).unwrap();
        for args in
            [&["status"][..], &["export"], &["tail"], &["verify", "--log-only"], &["repair", "--dry-run"]]
        {
            let done = bench.run(args);
            assert!(matches!(done.code, Some(0 | 4)), "{seen}: {args:?}: {:?} {}", done.code, done.err);
        }
        for lost in [seen.wrapping_sub(LAST_SEQ - 40).to_string(), "41".into(), "40".into()] {
            drop(bench.run(&["repair", "--accept-loss", &lost]));
        }
        drop(bench.run(&["repair", "--trust-log"]));
        bench.run(&["repair"]).expect(0);
        bench.run(&["verify"]).expect(0);
        bench.append("and on");
        bench.run(&["verify"]).expect(0);
    }
}

/// An event that has the last seq that a frame can have, and no mark behind it: none is written that no reader takes.
#[test]
fn no_mark_is_written_behind_the_last_seq_of_all() {
    let bench = store_from(LAST_SEQ + 1);
    let path = bench.segment();
    let mut bytes = std::fs::read(&path).unwrap();
    // An event of version 1 with a payload that cannot be read: it is kept and passed over.
    let base = [&bytes[16..32], &1_u64.to_le_bytes()].concat();
    let sum =
        |at: u64, data: &[u8]| crc32fast::hash(&[&base, &at.to_le_bytes()[..], data].concat()).to_le_bytes();
    let body = [0, 0, 0, 0, 0, 0, 1, 0x5a];
    let mut header = vec![0xf1, 1, 1, 0, 1, 0, 0, 0];
    header.extend((LAST_SEQ + 1).to_le_bytes());
    header.extend(1_u64.to_le_bytes());
    for field in [7_u32, 8192, 0] {
        header.extend(field.to_le_bytes());
    }
    header.extend(sum(8192 + 48, &body));
    let own = sum(8192, &[&header[..], &[0, 0, 0, 0x1f]].concat());
    header.extend(own);
    header.extend([0, 0, 0, 0x1f]);
    bytes[8192..8192 + 48].copy_from_slice(&header);
    bytes[8192 + 48..8192 + 56].copy_from_slice(&body);
    std::fs::write(&path, &bytes).unwrap();
    let before = bench.run(&["verify", "--log-only"]);
    for args in [&append_args("one too many")[..], &["repair"], &["replay"]] {
        let done = bench.run(args);
        assert!(matches!(done.code, Some(0..=4)), "{args:?}: {}", done.err);
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is written behind it");
    let after = bench.run(&["verify", "--log-only"]);
    assert_eq!((after.code, after.out), (before.code, before.out));
}

/// Every command at the last seqs of all; an event beyond them is refused before a byte of it is written.
#[test]
fn the_last_seqs_overflow_nothing() {
    let bench = store_from(LAST_SEQ - 2);
    let reads = |last: u64| {
        let cursor = bench.temp.path().join("cursor");
        let cursor = cursor.to_str().unwrap();
        let (most, seq) = (u64::MAX.to_string(), last.to_string());
        let events = last + 3 - LAST_SEQ;
        bench.run(&["verify"]).expect(0);
        assert_eq!(bench.run(&["status"]).expect(0).json()["last_seq"], last);
        for args in [&["export"][..], &["list"], &["tail", "-n", &most], &["list", "--all", "--reverse"]] {
            assert_eq!(bench.run(args).expect(0).out.lines().count() as u64, events, "{args:?}");
        }
        assert_eq!(bench.run(&["tail", "--cursor-file", cursor]).expect(0).out.lines().count(), 1);
        for args in [
            &["tail", "--after", &most][..],
            &["tail", "--after", &seq],
            &["tail", "--cursor-file", cursor],
            &["runs"],
            &["list", "--after", &most],
        ] {
            let done = bench.run(args);
            assert!(matches!(done.code, Some(0 | 2 | 4)) && done.out.is_empty(), "{args:?}: {}", done.err);
        }
    };
    for seq in LAST_SEQ - 2..=LAST_SEQ {
        assert_eq!(bench.append("m"), seq);
        reads(seq);
    }
    let refused = bench.run(&append_args("one too many"));
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("not_written"), "{}", refused.err);
    bench.run(&["repair"]).expect(0);
    bench.run(&["replay", "--rebuild"]).expect(0);
    bench.run(&["verify"]).expect(0);
    assert_eq!(bench.run(&["status"]).expect(0).json()["last_seq"], LAST_SEQ);
}
