//! Databases that ask for more than they should: every command answers, in little memory, and `replay` ends with
//! sound rows (P6, P7, P12).
#![cfg(feature = "cli")]

mod cli_support;
mod hostile;

use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cli_support::{Bench, Done, Talk, append_args, line, program};

/// Nothing here takes a tenth of this.
const PATIENCE: Duration = Duration::from_mins(1);
/// Kibibytes of address space, of which threads and maps take some.
const SPACE: u64 = 768 * 1024;

/// Runs the program to its end, which must come.
fn run(dir: &Path, args: &[&str]) -> Done {
    let plain = program(args);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {SPACE}; exec \"$0\" \"$@\"")]);
    command.arg(plain.get_program()).args(plain.get_args()).env("SYNCLOG_DIR", dir);
    // Files, so that nobody waits for a reader.
    let [mut out, mut err] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{args:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let [out, err] = [&mut out, &mut err].map(|file| {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    });
    Done { code, out, err }
}

fn filled(events: usize) -> Bench {
    let bench = Bench::new();
    let input: Vec<String> = (1..=events).map(|number| line(&format!("event {number}"))).collect();
    let done = bench.feed(&["append", "--stdin"], (input.join("\n") + "\n").as_bytes());
    assert_eq!(done.code, Some(0), "{}", done.err);
    bench
}

fn database(bench: &Bench) -> std::path::PathBuf {
    bench.dir().join("synclog.db")
}

fn edit(bench: &Bench, sql: &str) {
    let db = rusqlite::Connection::open(database(bench)).unwrap();
    db.execute_batch(sql).unwrap();
}

/// Each command on a database of its own, then what replay makes of it.
fn is_answered(events: usize, spoil: &dyn Fn(&Bench)) {
    for args in [&["list", "-n", "1"][..], &["list", "--all"], &["status"], &["verify"]] {
        let bench = filled(events);
        spoil(&bench);
        let done = run(&bench.dir(), args);
        assert!(matches!(done.code, Some(0 | 3)), "{args:?}: {:?} {}", done.code, done.err);
    }
    let bench = filled(events);
    spoil(&bench);
    let done = run(&bench.dir(), &append_args("one more"));
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(done.json()["seq"].as_u64(), Some(events as u64 + 1), "{}", done.out);
    let done = run(&bench.dir(), &["replay"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    is_sound(&bench, events + 1);
    let bench = filled(events);
    spoil(&bench);
    let done = run(&bench.dir(), &["replay"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    is_sound(&bench, events);
}

fn is_sound(bench: &Bench, events: usize) {
    let done = run(&bench.dir(), &["verify"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    let done = run(&bench.dir(), &["list", "--count"]);
    assert!(done.out.contains(&events.to_string()), "{}", done.out);
}

#[test]
fn indexes_whose_pages_share_children_keep_nobody_waiting() {
    is_answered(3000, &|bench| {
        assert!(hostile::share_children(&database(bench), "sync_logs", "index") >= 5);
    });
}

#[test]
fn tables_whose_pages_share_children_keep_nobody_waiting() {
    is_answered(400, &|bench| {
        assert_eq!(hostile::share_children(&database(bench), "sync_logs", "table"), 1);
    });
}

/// The same where the tables differ as well, so that they would be replaced, and dropped, inside their file.
#[test]
fn altered_tables_whose_pages_share_children_keep_nobody_waiting() {
    is_answered(3000, &|bench| {
        edit(bench, "ALTER TABLE sync_logs ADD COLUMN theirs TEXT");
        hostile::share_children(&database(bench), "sync_logs", "index");
        hostile::share_children(&database(bench), "sync_logs", "table");
    });
}

/// An index that is to be put aside is dropped, and its tree with it.
#[test]
fn strange_indexes_whose_pages_share_children_keep_nobody_waiting() {
    is_answered(3000, &|bench| {
        edit(bench, "CREATE INDEX theirs ON sync_logs (abs(id))");
        hostile::share_children(&database(bench), "sync_logs", "index");
    });
}

const ENDLESS: &str = "WITH RECURSIVE up(number) AS (VALUES (1) UNION ALL SELECT number + 1 FROM up) \
                       SELECT count(*) FROM up";

#[test]
fn triggers_without_an_end_keep_nobody_waiting() {
    for table in ["sync_logs", "synclog_meta", "synclog_set_aside"] {
        is_answered(20, &|bench| {
            let sql = format!(
                "CREATE TRIGGER theirs BEFORE INSERT ON {table} BEGIN SELECT * FROM ({ENDLESS}); END; \
                 CREATE TRIGGER others AFTER UPDATE ON {table} BEGIN SELECT * FROM ({ENDLESS}); END"
            );
            edit(bench, &sql);
        });
    }
}

#[test]
fn views_and_computed_columns_in_the_place_of_tables_keep_nobody_waiting() {
    let endless = ENDLESS.replace("count(*)", "count(*) AS value, 'store_id' AS name, 1 AS id");
    for sql in [
        format!("ALTER TABLE synclog_meta RENAME TO theirs; CREATE VIEW synclog_meta AS {endless}"),
        format!("ALTER TABLE sync_logs RENAME TO theirs; CREATE VIEW sync_logs AS {endless}"),
        format!("ALTER TABLE synclog_set_aside RENAME TO theirs; CREATE VIEW synclog_set_aside AS {endless}"),
        format!("ALTER TABLE synclog_absent RENAME TO theirs; CREATE VIEW synclog_absent AS {endless}"),
        format!("CREATE VIEW synclog_unread_keys AS {endless}"),
        "DROP TABLE synclog_meta; CREATE VIRTUAL TABLE synclog_meta USING fts5(name, value)".into(),
        "ALTER TABLE sync_logs ADD COLUMN theirs AS (length(hex(zeroblob(400000000))))".into(),
        "ALTER TABLE synclog_meta ADD COLUMN theirs AS (length(hex(zeroblob(400000000))))".into(),
        "CREATE TABLE theirs (id, more AS (length(hex(zeroblob(400000000)))) NOT NULL); \
         INSERT INTO theirs (id) VALUES (1)"
            .into(),
    ] {
        if sql.contains("INTO theirs") {
            // What a neighbour has computed is run by nobody but the neighbour.
            is_answered(20, &|bench| {
                let without = sql.replace("400000000", "4");
                edit(bench, &without);
                edit(
                    bench,
                    "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = replace(sql, '(4)', '(400000000)') \
                     WHERE name = 'theirs'",
                );
            });
            continue;
        }
        is_answered(20, &|bench| edit(bench, &sql));
    }
}

#[test]
fn expressions_in_indexes_of_others_are_not_run() {
    for kind in ["INDEX", "UNIQUE INDEX"] {
        is_answered(40, &|bench| {
            edit(bench, &format!("CREATE {kind} theirs ON sync_logs (length(hex(zeroblob(4))) + id)"));
            edit(
                bench,
                "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = replace(sql, '(4)', '(400000000)') \
                 WHERE name = 'theirs'",
            );
        });
    }
}

#[test]
fn rows_longer_than_any_event_take_no_memory() {
    let long = "UPDATE sync_logs SET log_message = CAST(zeroblob(150000000) AS TEXT) WHERE id = 3";
    is_answered(3, &|bench| edit(bench, long));
    let strange = "INSERT INTO sync_logs SELECT 1000, company_guid, company_alterid, company_name, log_level, \
                   zeroblob(150000000), log_details, sync_status, records_synced, error_code, error_message, \
                   duration_seconds, created_at, run, legacy_id, origin_store, origin_seq, idempotency_key, frame \
                   FROM sync_logs WHERE id = 2";
    is_answered(3, &|bench| edit(bench, strange));
    // It is still there, in the file that was replaced.
    let bench = filled(3);
    edit(&bench, strange);
    assert_eq!(run(&bench.dir(), &["replay"]).code, Some(0));
    let kept = std::fs::read_dir(bench.dir().join("quarantine")).unwrap();
    let kept =
        kept.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some_and(|end| end == "db"));
    let db = rusqlite::Connection::open(kept.unwrap()).unwrap();
    let bytes =
        db.query_row("SELECT length(log_message) FROM sync_logs WHERE id = 1000", [], |row| row.get(0));
    assert_eq!(bytes, Ok(150_000_000));
}

/// Tables that look like those of an interrupted rebuild are dropped by the next opening.
#[test]
fn leftovers_whose_pages_share_children_keep_nobody_waiting() {
    for name in ["synclog_old_rows", "synclog_new_rows"] {
        is_answered(400, &|bench| {
            edit(bench, &format!("CREATE TABLE {name} AS SELECT * FROM sync_logs"));
            assert_eq!(hostile::share_children(&database(bench), name, "table"), 1);
        });
    }
}

/// A trigger that somebody makes beside a writer delays no acknowledgement, and no signal.
#[test]
fn triggers_without_an_end_beside_a_writer_keep_nobody_waiting() {
    for table in ["sync_logs", "synclog_meta"] {
        let bench = filled(3);
        let mut talk = Talk::start(bench.command(&["append", "--stdin"]));
        talk.send((line("before") + "\n").as_bytes());
        assert_eq!(talk.answer()["seq"].as_u64(), Some(4));
        edit(
            &bench,
            &format!(
                "CREATE TRIGGER theirs BEFORE INSERT ON {table} BEGIN SELECT * FROM ({ENDLESS}); END; \
                 CREATE TRIGGER others BEFORE UPDATE ON {table} BEGIN SELECT * FROM ({ENDLESS}); END"
            ),
        );
        talk.send((line("behind") + "\n").as_bytes());
        let answer = talk.answer();
        assert_eq!((answer["seq"].as_u64(), answer["durable"].as_bool()), (Some(5), Some(true)), "{answer}");
        talk.signal("TERM");
        assert_eq!(talk.end(), Some(143));
        assert_eq!(run(&bench.dir(), &["replay"]).code, Some(0));
        is_sound(&bench, 5);
    }
}

/// A source of a few kibibytes whose columns are computed.
#[test]
fn a_source_with_computed_columns_takes_no_memory() {
    let bench = filled(1);
    let source = bench.temp.path().join("source.db");
    let computed: Vec<String> =
        (0..60).map(|at| format!("more{at} AS (hex(zeroblob(15000000 + {at})))")).collect();
    let db = rusqlite::Connection::open(&source).unwrap();
    db.execute_batch(&format!(
        "CREATE TABLE sync_logs (id INTEGER PRIMARY KEY, company_guid, log_message, {}); \
         INSERT INTO sync_logs VALUES (1, 'g', 'm')",
        computed.join(", ")
    ))
    .unwrap();
    drop(db);
    let done = run(&bench.dir(), &["import", source.to_str().unwrap()]);
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.contains("too big"), "{}", done.err);
    is_sound(&bench, 1);
}
