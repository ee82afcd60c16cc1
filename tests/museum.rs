//! The museum of known bugs (`tests/museum/run`): is it complete, and does every patch still apply? The
//! museum itself takes many builds and is no part of the normal tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What must be there. An exhibit goes only with the code that it breaks.
const EXHIBITS: [&str; 52] = [
    "a-flipped-bit-is-a-torn-tail",
    "a-length-is-believed",
    "a-nul-ends-the-text",
    "a-read-error-is-the-end",
    "a-remade-segment-forgets-deletions",
    "a-row-alone-answers-for-a-key",
    "a-short-file-reads-as-zeros",
    "a-valid-frame-follows-so-it-is-fatal",
    "a-zeroed-page-is-a-torn-tail",
    "acknowledge-before-sync",
    "acknowledging-what-does-not-decode",
    "bytes-behind-an-event-are-ignored",
    "checksums-without-a-place",
    "counts-without-a-bound",
    "cut-at-the-first-bad-frame",
    "differs-is-nothing",
    "durable-end-claims-its-own-group",
    "erasure-needs-no-record",
    "ghost-of-a-failed-batch",
    "half-a-batch-is-kept",
    "healing-only-inserts",
    "healing-without-proof",
    "identity-is-checked-only-at-opening",
    "import-forgets-deletions",
    "import-goes-by-content-and-second",
    "keys-of-unknown-events-are-ignored",
    "list-and-count-are-written-twice",
    "mark-before-sync",
    "no-chain-check",
    "no-mark-for-a-frame-of-zeros",
    "no-sync-of-a-new-segments-directory",
    "no-sync-of-the-stores-own-entry",
    "nobody-vouches-for-the-last-group",
    "only-some-columns-are-compared",
    "quarantine-is-empty",
    "readers-show-what-is-not-durable",
    "replay-forgets-deletions",
    "retry-a-failed-sync",
    "rows-before-the-log-is-durable",
    "rows-need-not-arrive",
    "sqlites-own-check-is-trusted",
    "store-ids-are-not-compared",
    "text-steers-the-terminal",
    "the-company-filter-ignores-the-rest",
    "the-old-write-ahead-log-stays",
    "two-fractions-are-one-event",
    "unproved-bytes-are-not-written-again",
    "unusable-so-worthless",
    "waiters-hang-after-a-failed-sync",
    "what-is-absent-is-what-sqlite-says",
    "write-error-ignored",
    "zeros-mean-the-end",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn patches() -> Vec<PathBuf> {
    let files = std::fs::read_dir(root().join("tests/museum")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "patch")).collect()
}

#[test]
fn no_exhibit_is_missing_and_each_tells_its_bug() {
    let found: BTreeSet<_> =
        patches().iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let wanted: BTreeSet<_> = EXHIBITS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, wanted);
    for path in patches() {
        let text = std::fs::read_to_string(&path).unwrap();
        for field in ["# bug: ", "# seen: ", "# costs: "] {
            assert!(text.lines().any(|line| line.starts_with(field)), "{}: no {field}", path.display());
        }
        let changed: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("+++ b/")).collect();
        assert!(!changed.is_empty(), "{}", path.display());
        for file in changed {
            // The bug is in the product, not in its tests.
            assert!(file.starts_with("src/") && root().join(file).is_file(), "{}: {file}", path.display());
        }
    }
}

#[test]
fn every_patch_still_applies() {
    for path in patches() {
        let run = Command::new("patch")
            .args(["--dry-run", "--force", "--fuzz=2", "-p1", "-i"])
            .arg(&path)
            .current_dir(root())
            .stdin(Stdio::null())
            .output();
        let Ok(done) = run else {
            println!("NOT EXERCISED: patch cannot be started");
            return;
        };
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{} does not apply:\n{said}", path.display());
    }
}
