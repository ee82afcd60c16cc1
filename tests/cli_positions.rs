//! A position names content: cursors and followers go on only where the store still has what they have read.
#![cfg(all(feature = "cli", unix))]

mod cli_support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cli_support::{Bench, PATIENCE, Talk, copy_dir, text};

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    copy_dir(from, to);
}

/// A store of three events, a copy of it, and two more events in the store.
fn grown_beyond_a_copy() -> (Bench, std::path::PathBuf) {
    let bench = Bench::new();
    for number in 1..=3 {
        bench.append(&format!("e{number}"));
    }
    let backup = bench.temp.path().join("backup");
    copy(&bench.dir(), &backup);
    bench.append("old4");
    bench.append("old5");
    (bench, backup)
}

#[test]
fn a_cursor_does_not_skip_what_an_older_copy_got_since() {
    let (bench, backup) = grown_beyond_a_copy();
    let cursor = bench.temp.path().join("cursor");
    let tail = ["tail", "-o", "ndjson", "--cursor-file", cursor.to_str().unwrap()];
    assert_eq!(bench.run(&tail).expect(0).lines().len(), 5);
    let kept = std::fs::read_to_string(&cursor).unwrap();
    assert_eq!(kept.split_whitespace().count(), 3, "{kept}");
    copy(&backup, &bench.dir());
    let refuse = |what: &str| {
        let refused = bench.run(&tail).expect(4);
        assert_eq!(refused.out, "", "nothing is shown");
        assert!(refused.err.contains(what) && refused.err.contains("hint:"), "{}", refused.err);
        assert_eq!(std::fs::read_to_string(&cursor).unwrap(), kept);
    };
    refuse("the log in ");
    // Beside a writer as well, at whatever length.
    let mut writer = Talk::start(bench.command(&["append", "--stdin"]));
    for number in 4..=6 {
        refuse(if number < 6 { "ends at" } else { "has another event 5" });
        writer.send(format!("{}\n", cli_support::line(&format!("new{number}"))).as_bytes());
        assert_eq!(writer.answer()["seq"], number);
    }
    writer.end();
    refuse("has another event 5");
    // What the hint says helps.
    std::fs::write(&cursor, "3").unwrap();
    let shown: Vec<String> =
        bench.run(&tail).expect(0).lines().iter().map(|line| text(line, "log_message")).collect();
    assert_eq!(shown, ["new4", "new5", "new6"]);
}

#[test]
fn a_cursor_of_an_earlier_version_is_read_and_upgraded() {
    let (bench, _) = grown_beyond_a_copy();
    let cursor = bench.temp.path().join("cursor");
    let tail = ["tail", "-o", "ndjson", "--cursor-file", cursor.to_str().unwrap()];
    let id = text(&bench.run(&["status"]).expect(0).json(), "log_store_id");
    for old in ["5".to_owned(), format!("5 {id}\n"), "5\n".into()] {
        std::fs::write(&cursor, old).unwrap();
        assert_eq!(bench.run(&tail).expect(0).out, "");
        let kept = std::fs::read_to_string(&cursor).unwrap();
        assert!(
            kept.starts_with(&format!("5 {id} ")) && kept.len() == "5 ".len() + 32 + " 12345678\n".len(),
            "{kept:?}"
        );
    }
    for bad in ["5 x", "x", "", "5 5", "5 6 7 8", "-1"] {
        std::fs::write(&cursor, bad).unwrap();
        assert_eq!(bench.run(&tail).expect(2).out, "", "{bad}");
    }
}

#[test]
fn a_cursor_that_cannot_be_kept_shows_nothing() {
    let (bench, _) = grown_beyond_a_copy();
    let nowhere = bench.temp.path().join("nowhere/cursor");
    let refused = bench.run(&["tail", "--cursor-file", nowhere.to_str().unwrap()]).expect(1);
    assert_eq!(refused.out, "");
    assert!(refused.err.contains("cannot keep the cursor"), "{}", refused.err);
}

#[test]
fn a_follower_ends_where_the_store_is_another_one_than_it_read() {
    for grows in [false, true] {
        let (bench, backup) = grown_beyond_a_copy();
        let mut follower = Talk::start(bench.command(&["tail", "-f", "-n", "1", "-o", "ndjson"]));
        assert_eq!(text(&follower.answer(), "log_message"), "old5");
        if grows {
            // Grown again before it takes the place, so that no moment shows it shorter.
            let store = bench.temp.path().join("grown");
            copy(&backup, &store);
            for number in 4..=7 {
                let mut append = cli_support::program(&cli_support::append_args(&format!("new{number}")));
                assert!(append.env("SYNCLOG_DIR", &store).stdout(Stdio::null()).status().unwrap().success());
            }
            std::fs::rename(bench.dir(), bench.temp.path().join("away")).unwrap();
            std::fs::rename(&store, bench.dir()).unwrap();
        } else {
            copy(&backup, &bench.dir());
        }
        let start = Instant::now();
        let code = loop {
            if let Some(status) = follower.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(start.elapsed() < PATIENCE, "the follower goes on, grows: {grows}");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(code, Some(4), "grows: {grows}");
        assert!(follower.rest().is_empty(), "grows: {grows}");
    }
}

#[test]
fn a_follower_ends_with_whoever_reads_it() {
    let (bench, _) = grown_beyond_a_copy();
    let mut command = bench.command(&["tail", "-f", "-n", "1", "-o", "ndjson"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    let start = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("nothing is appended, and the follower stays");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(code, Some(0), "as with | head");
}

/// The cursor that stderr names in a line that starts with this.
fn page(err: &str, which: &str) -> Option<String> {
    err.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(": --page ").map(str::to_owned))
}

#[test]
fn list_pages_through_imported_history_forward_and_back() {
    let bench = Bench::new();
    // After the import, so that the seqs do not follow the times.
    bench.append("of today");
    bench.run(&["import", &cli_support::legacy("sync_logs_backup.jsonl")]).expect(5);
    let all: Vec<u64> = bench
        .run(&["list", "--all"])
        .expect(0)
        .lines()
        .iter()
        .map(|row| row["id"].as_u64().unwrap())
        .collect();
    let mut pages = vec![bench.run(&["list", "-n", "43"]).expect(0)];
    assert_eq!(page(&pages[0].err, "previous page"), None);
    while let Some(next) = page(&pages[pages.len() - 1].err, "next page") {
        // A row that comes meanwhile stands before all pages but the first.
        bench.append("meanwhile");
        pages.push(bench.run(&["list", "-n", "43", "--page", &next]).expect(0));
        assert!(pages.len() < 100);
    }
    let ids = |text: &cli_support::Done| -> Vec<u64> {
        text.lines().iter().map(|row| row["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(pages.iter().flat_map(ids).collect::<Vec<_>>(), all, "each row once");
    for (before, here) in pages.iter().zip(&pages[1..]) {
        let previous = page(&here.err, "previous page").unwrap();
        assert_eq!(bench.run(&["list", "-n", "43", "--page", &previous]).expect(0).out, before.out);
        // The field of the last row says the same as stderr.
        let field = text(before.lines().last().unwrap(), "page");
        assert_eq!(Some(field), page(&before.err, "next page"));
    }
    let other = Bench::new();
    other.append("x");
    let field = text(&pages[0].lines()[0], "page");
    assert!(other.run(&["list", "--page", &field]).expect(2).err.contains("not of this store"));
    for bad in ["", "n", "x", &field[1..], &format!("{field}0"), "nnnnnnnnn"] {
        assert_eq!(bench.run(&["list", "--page", bad]).expect(2).out, "", "{bad}");
    }
}
