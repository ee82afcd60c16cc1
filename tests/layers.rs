//! What must not be where: the shape of the code as a list of absences.

use std::path::{Path, PathBuf};

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Lines of code (no comments, no test modules) below `src`: path, line number, text.
fn code() -> Vec<(String, usize, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let mut lines = Vec::new();
    for path in paths {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        if name.ends_with("_tests.rs") || name.starts_with("proof/") || name.starts_with("fuzzing/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in own.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            if !line.trim().is_empty() {
                lines.push((name.clone(), number + 1, line.to_owned()));
            }
        }
    }
    assert!(lines.len() > 4000, "the sources were found");
    lines
}

/// Lines of code like [`code`], each with whether a comment stands on it or in the three lines above.
fn argued() -> Vec<(String, usize, String, bool)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = std::collections::HashMap::new();
    let lines = code().into_iter().map(|(file, number, line)| {
        let text: &Vec<String> = texts.entry(file.clone()).or_insert_with(|| {
            let text = std::fs::read_to_string(root.join(&file)).unwrap();
            text.lines().map(str::to_owned).collect()
        });
        let argued = text[number.saturating_sub(4)..number].iter().any(|line| line.contains("//"));
        (file, number, line, argued)
    });
    lines.collect()
}

#[track_caller]
fn absent(words: &[&str], from: impl Fn(&str) -> bool, why: &str) {
    let found: Vec<String> = code()
        .into_iter()
        .filter(|(file, _, line)| from(file) && words.iter().any(|word| line.contains(word)))
        .map(|(file, number, line)| format!("src/{file}:{number}: {}", line.trim()))
        .collect();
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

#[test]
fn a_frame_does_no_io() {
    let pure = ["log/frame.rs", "log/recovery.rs", "log/deletion.rs"];
    absent(
        &["crate::disk", "std::fs", "std::io", "std::path"],
        |file| pure.contains(&file),
        "these decide and do no I/O",
    );
}

#[test]
fn the_log_knows_neither_events_nor_sqlite() {
    absent(
        &[
            "rusqlite",
            "crate::projection",
            "crate::event",
            "crate::sync",
            "crate::replay",
            "crate::store::",
            "crate::codec",
        ],
        |file| file.starts_with("log/"),
        "the log knows bytes",
    );
}

#[test]
fn the_projection_knows_nothing_of_the_log() {
    absent(
        &["crate::log", "crate::sync", "crate::replay", "crate::store::", "crate::codec"],
        |file| file.starts_with("projection/"),
        "the projection knows rows",
    );
}

#[test]
fn only_the_seam_names_the_file_system() {
    absent(
        &["std::fs", "fs::File", "File::open"],
        |file| file != "disk.rs" && !file.starts_with("disk/") && !file.starts_with("cli/"),
        "only disk.rs and what is below it name std::fs",
    );
}

#[test]
fn only_the_projection_and_the_import_of_foreign_databases_name_rusqlite() {
    absent(
        &["rusqlite::"],
        |file| !file.starts_with("projection/") && file != "sync/import/table.rs",
        "SQLite stays behind the projection",
    );
}

#[test]
fn only_the_store_locks() {
    absent(
        &["Mutex<", "RwLock<", "Condvar"],
        |file| !file.starts_with("store/commit/") && file != "store/mod.rs" && !file.starts_with("cli/"),
        "locks are in one place",
    );
}

#[test]
fn nothing_prints_past_the_output_module() {
    absent(
        &["println!", "print!(", "eprintln!", "eprint!(", "dbg!("],
        |_| true,
        "the library is silent, and the command line writes through one place",
    );
}

#[test]
fn unsafe_code_is_in_one_module() {
    absent(&["unsafe {", "unsafe fn", "allow(unsafe_code)"], |file| file != "system.rs", "one system call");
}

/// P12: what can fail is an error, or said to be impossible or harmless where it stands.
#[test]
fn no_failure_is_swallowed_without_a_word() {
    absent(
        &[".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!(", "resume_unwind"],
        // `application.rs` holds an event that is only taken out when it is dropped.
        |file| file != "cli/fuzzing.rs" && file != "application.rs",
        "what cannot be is impossible by type, or an error",
    );
    let swallowed = ["let _ =", ".ok()", ".unwrap_or_default()", ".is_ok_and(", "Err(_) =>", "drop(std::fs"];
    let found: Vec<String> = argued()
        .into_iter()
        .filter(|(file, _, line, argued)| {
            !argued && file != "cli/fuzzing.rs" && swallowed.iter().any(|word| line.contains(word))
        })
        .map(|(file, number, line, _)| format!("src/{file}:{number}: {}", line.trim()))
        .collect();
    assert!(found.is_empty(), "say beside it why this failure does not matter:\n{}", found.join("\n"));
}

#[test]
fn one_module_starts_threads_and_one_asks_the_clock() {
    absent(
        &["thread::spawn", "thread::Builder", "scope.spawn", "Builder::new().name"],
        |file| file != "threads.rs" && !file.starts_with("cli/"),
        "a system may have no thread to give",
    );
    absent(
        &["jiff::Timestamp::now", "Zoned::now", "SystemTime::now"],
        |file| file != "time.rs",
        "a clock may be set to anything",
    );
}
