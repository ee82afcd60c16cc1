//! A test that hangs tells nobody where. This ends the process and says which case it was.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a case may take: far beyond what any takes, on a slow and busy machine too.
pub(crate) const LIMIT: Duration = Duration::from_mins(3);

/// Watches one test.
pub(crate) struct Watchdog {
    case: Arc<Mutex<(Instant, String)>>,
    over: Arc<AtomicBool>,
}

impl Watchdog {
    pub(crate) fn new(limit: Duration) -> Self {
        let case = Arc::new(Mutex::new((Instant::now(), String::new())));
        let over = Arc::new(AtomicBool::new(false));
        let (seen, ended) = (Arc::clone(&case), Arc::clone(&over));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                let (since, name) = &*seen.lock().unwrap();
                if since.elapsed() > limit && !ended.load(Ordering::Relaxed) {
                    // Not `eprintln`, which a test harness holds back until the test ends: it does not.
                    let told = format!("P10: nothing came back for {limit:?}: {name}\n");
                    let _ = std::io::stderr().write_all(told.as_bytes());
                    std::process::abort();
                }
            }
        });
        Self { case, over }
    }

    /// The next case begins.
    pub(crate) fn enter(&self, name: &str) {
        *self.case.lock().unwrap() = (Instant::now(), name.to_owned());
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A case that hangs ends its process by itself, and says which one it was. The test runs itself as
/// another process, which hangs.
#[test]
fn a_hanging_case_is_named() {
    const CHILD: &str = "SYNCLOG_WATCHDOG_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let watchdog = Watchdog::new(Duration::from_millis(100));
        watchdog.enter("the case that hangs");
        loop {
            std::thread::park();
        }
    }
    let this = std::env::current_exe().unwrap();
    let child = std::process::Command::new(this)
        .args(["a_hanging_case_is_named", "--test-threads", "1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(!child.status.success());
    let told = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(told.contains("the case that hangs"), "{told}");
}
