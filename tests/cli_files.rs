//! Files that end while they are read, links out of the store, and what else may stand in a file's place (P12).
#![cfg(all(feature = "cli", unix))]

mod cli_support;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use cli_support::{Bench, Done, append_args, done, legacy, lines, text};

/// The program under a limit of the shell that starts it.
fn limited(bench: &Bench, limit: &str, args: &[&str], input: &str) -> Done {
    let source = bench.temp.path().join("input");
    std::fs::write(&source, input).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_synclog")]);
    command.args(args).env("SYNCLOG_DIR", bench.dir()).stdin(File::open(source).unwrap());
    done(command.output().unwrap())
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Runs a command that must come to an end by itself.
fn ends(bench: &Bench, args: &[&str]) -> Done {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", env!("CARGO_BIN_EXE_synclog")]).args(args);
    let done = done(command.env("SYNCLOG_DIR", bench.dir()).stdin(Stdio::null()).output().unwrap());
    assert!(done.code.is_some_and(|code| code < 124), "{args:?} does not end: {}", done.err);
    done
}

/// Somebody cuts a sealed segment while an export is in the middle of it: an error that names the place, and no
/// signal that ends the program.
#[test]
fn a_segment_that_is_cut_under_an_export_is_an_error() {
    let bench = Bench::filled(1200);
    assert!(bench.segment_path(2).exists(), "the first one is sealed");
    let mut command = bench.command(&["export"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    // What fits into the pipe and into buffers is less than the segment holds: the export waits in the middle of it.
    OpenOptions::new().write(true).open(bench.segment_path(1)).unwrap().set_len(8192).unwrap();
    out.read_to_string(&mut String::new()).unwrap();
    let done = done(child.wait_with_output().unwrap());
    assert!(matches!(done.code, Some(1 | 4)), "{:?}: {}", done.code, done.err);
    assert!(done.err.contains("00000000000000000001.seg"), "{}", done.err);
}

/// A file may not grow beyond a limit of the user's: each line is answered, and each answer is true.
#[test]
fn a_limit_for_the_size_of_files_is_told_as_an_outcome() {
    // In blocks of 512 or 1024 bytes: inside the first segment, and before the second one is whole.
    for limit in ["-f 60", "-f 800"] {
        let bench = Bench::filled(1);
        let done = limited(&bench, limit, &["append", "--stdin"], &lines(2500));
        assert_eq!(done.code, Some(1), "{limit}: {}", done.err);
        let answers = done.lines();
        let durable = answers.iter().filter(|answer| answer["durable"] == true).count();
        let last = answers.last().unwrap();
        assert!(last["error"].is_string() && last["outcome"].is_string(), "{limit}: {last}");
        assert!(done.err.contains("File too large"), "{limit}: {}", done.err);
        let known = bench.messages().len();
        assert!(
            known > durable && known <= durable + 1 + (answers.len() - durable),
            "{limit}: {known} {durable}"
        );
        bench.append("and on");
    }
}

/// Nothing is written outside the store through a link in the place of its `quarantine`.
#[test]
fn a_linked_quarantine_is_not_followed() {
    let bench = Bench::filled(3);
    let elsewhere = bench.temp.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, bench.dir().join("quarantine")).unwrap();
    // An append that was cut off, and a database that is none: both would be put aside.
    let file = OpenOptions::new().write(true).open(bench.segment()).unwrap();
    file.write_all_at(b"half a frame", 200_000).unwrap();
    std::fs::write(bench.dir().join("synclog.db"), "no database").unwrap();
    let commands: [&[&str]; 3] = [&["repair"], &["replay", "--rebuild"], &append_args("m")];
    for args in commands {
        let done = bench.run(args);
        assert!(
            done.err.contains("quarantine") && done.err.contains("symbolic link"),
            "{args:?}: {}",
            done.err
        );
    }
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    std::fs::remove_file(bench.dir().join("quarantine")).unwrap();
    bench.run(&["repair"]).expect(0);
    bench.run(&["replay"]).expect(0);
    bench.run(&["verify"]).expect(0);
}

/// A database of somebody else's that is linked into the store is neither read nor written.
#[test]
fn a_linked_database_is_not_followed() {
    for suffix in ["", "-wal", "-journal"] {
        let bench = Bench::filled(3);
        let elsewhere = bench.temp.path().join("elsewhere.db");
        let name = bench.dir().join(format!("synclog.db{suffix}"));
        if suffix.is_empty() {
            std::fs::rename(&name, &elsewhere).unwrap();
        } else {
            drop(std::fs::remove_file(&name));
            std::fs::write(&elsewhere, "").unwrap();
        }
        symlink(&elsewhere, &name).unwrap();
        let before = std::fs::read(&elsewhere).unwrap();
        let list = ends(&bench, &["list"]);
        assert!(list.code == Some(3) || list.out.lines().count() == 3, "{suffix}: {}", list.err);
        assert_eq!(ends(&bench, &append_args("m")).code, Some(0));
        assert_eq!(bench.messages().len(), 4);
        let replay = ends(&bench, &["replay", "--rebuild"]);
        if replay.code != Some(0) {
            assert!(replay.err.contains("symbolic link"), "{suffix}: {}", replay.err);
            std::fs::remove_file(&name).unwrap();
            bench.run(&["replay", "--rebuild"]).expect(0);
        }
        bench.run(&["verify"]).expect(0);
        assert!(std::fs::read(&elsewhere).unwrap() == before, "{suffix}: it was written to");
        let beside = std::fs::read_dir(bench.temp.path()).unwrap().count();
        assert_eq!(beside, 2, "{suffix}: the store and that file, and nothing that SQLite makes");
    }
}

/// What stands where SQLite or a rebuild makes a file, and is none: no command hangs, appends go on, and whoever
/// mends the rows hears what to take away.
#[test]
fn what_is_no_file_in_a_files_place_is_named_and_hangs_nobody() {
    for name in ["synclog.db-wal", "synclog.db-shm", "synclog.db-journal", "synclog.db.new", "synclog.db"] {
        for sort in ["directory", "pipe", "link"] {
            let bench = Bench::filled(3);
            let place = bench.dir().join(name);
            drop(std::fs::remove_file(&place));
            match sort {
                "directory" => std::fs::create_dir(&place).unwrap(),
                "pipe" => pipe(&place),
                _ => symlink("nowhere", &place).unwrap(),
            }
            let what = format!("{sort} {name}");
            assert_eq!(ends(&bench, &["export"]).expect(0).out.lines().count(), 3, "{what}");
            for args in [&["status"][..], &["list"], &["verify"], &["runs"]] {
                let done = ends(&bench, args);
                assert!(
                    matches!(done.code, Some(0 | 1 | 3)),
                    "{what}: {args:?} {:?} {}",
                    done.code,
                    done.err
                );
            }
            ends(&bench, &append_args("m")).expect(0);
            // A rebuild in a new file is needed where the old one is none.
            if name == "synclog.db.new" {
                std::fs::write(bench.dir().join("synclog.db"), "no database").unwrap();
            }
            let done = ends(&bench, &["replay", "--rebuild"]);
            if done.code != Some(0) {
                assert!(done.err.contains(name), "{what}: {}", done.err);
                let sorts = ["directory", "not a regular file", "symbolic link"];
                assert!(sorts.iter().any(|word| done.err.contains(word)), "{what}: {}", done.err);
                if sort == "directory" { std::fs::remove_dir(&place) } else { std::fs::remove_file(&place) }
                    .unwrap();
                ends(&bench, &["replay", "--rebuild"]).expect(0);
            }
            assert_eq!(ends(&bench, &["verify"]).expect(0).out.lines().count(), 1, "{what}");
            assert!(!bench.dir().join("nowhere").exists(), "{what}: made through a link");
        }
    }
}

/// The same beside a database that is imported, which is somebody else's and may be linked.
#[test]
fn a_pipe_beside_an_imported_database_hangs_nobody() {
    let bench = Bench::new();
    let source = bench.temp.path().join("old.db");
    std::fs::copy(legacy("legacy.db"), &source).unwrap();
    for suffix in ["-wal", "-journal"] {
        let beside = bench.temp.path().join(format!("old.db{suffix}"));
        pipe(&beside);
        let done = ends(&bench, &["import", source.to_str().unwrap()]).expect(1);
        assert!(done.err.contains(suffix) && done.err.contains("not a regular file"), "{}", done.err);
        assert!(!bench.dir().exists(), "nothing is made");
        std::fs::remove_file(&beside).unwrap();
    }
    let link = bench.temp.path().join("link.db");
    symlink(&source, &link).unwrap();
    ends(&bench, &["import", link.to_str().unwrap()]).expect(0);
    assert!(!bench.messages().is_empty());
}

/// A cursor file may be as long as it likes: a short beginning of it is read.
#[test]
fn a_cursor_file_without_an_end_takes_no_memory() {
    let bench = Bench::filled(3);
    let endless = bench.temp.path().join("endless");
    File::create(&endless).unwrap().set_len(1 << 42).unwrap();
    for path in [&endless, Path::new("/dev/zero")] {
        let args = ["tail", "--cursor-file", path.to_str().unwrap()];
        // In KiB of address space.
        let done = limited(&bench, "-v 1000000", &args, "").expect(2);
        assert!(done.out.is_empty() && done.err.contains("cursor") && done.err.len() < 2000, "{}", done.err);
    }
}

/// What a segment has grown by without a byte in it takes no room in quarantine.
#[test]
fn a_segment_that_has_grown_by_holes_is_kept_with_them() {
    const GROWN: u64 = 2 << 30;
    let bench = Bench::filled(3);
    let file = OpenOptions::new().write(true).open(bench.segment()).unwrap();
    file.set_len(GROWN).unwrap();
    file.write_all_at(b"and this", GROWN / 2).unwrap();
    let report = bench.run(&["repair"]);
    assert!(matches!(report.code, Some(0 | 4)), "{}", report.err);
    let kept = std::fs::read_dir(bench.dir().join("quarantine")).unwrap();
    let kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let found = std::fs::metadata(&kept[0]).unwrap();
    assert_eq!(found.len(), GROWN);
    assert!(found.blocks() * 512 < 16 << 20, "{} bytes on the disk", found.blocks() * 512);
    let mut bytes = [0; 8];
    File::open(&kept[0]).unwrap().read_exact_at(&mut bytes, GROWN / 2).unwrap();
    assert_eq!(&bytes, b"and this");
    bench.run(&["verify"]).expect(0);
    assert_eq!(bench.messages().len(), 3);
}

/// SQLite takes paths up to a length. Where a store's is longer that is said at once, and not after the append.
#[test]
fn a_path_that_is_too_long_for_sqlite_is_refused_at_opening() {
    let bench = Bench::new();
    let mut dir = bench.temp.path().to_owned();
    while dir.as_os_str().len() < 380 {
        dir.push("d".repeat(50));
    }
    std::fs::create_dir_all(&dir).unwrap();
    let mut refused = 0;
    for len in (440..=520).step_by(4) {
        let store = dir.join("s".repeat(len - dir.as_os_str().len() - 1));
        let mut args = vec!["--dir", store.to_str().unwrap()];
        args.extend(append_args("m"));
        let appended = bench.run(&args);
        if appended.code == Some(0) {
            assert_eq!((refused, &appended.json()["projected"]), (0, &true.into()), "{len}");
            let list = bench.run(&["--dir", store.to_str().unwrap(), "list"]).expect(0);
            assert_eq!(list.out.lines().count(), 1);
            bench.run(&["--dir", store.to_str().unwrap(), "replay", "--rebuild"]).expect(0);
            continue;
        }
        refused += 1;
        assert!(
            appended.err.contains("too long") && appended.err.contains("not_written"),
            "{len}: {}",
            appended.err
        );
        assert!(!store.exists(), "{len}: nothing is made");
    }
    assert!(refused > 5, "{refused}");
    // One that was moved there is read from its log.
    let store = dir.join("s".repeat(500 - dir.as_os_str().len() - 1));
    bench.append("m");
    std::fs::rename(bench.dir(), &store).unwrap();
    for command in ["export", "list", "tail"] {
        let found = bench.run(&["--dir", store.to_str().unwrap(), command]).expect(0).lines();
        assert_eq!(text(&found[0], "log_message"), "m", "{command}");
    }
}
