//! A test that hangs tells nobody where. This ends the process and says which case it was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Far beyond what any case takes, on a slow and busy machine too.
const LIMIT: Duration = Duration::from_mins(3);

/// Watches one test.
pub(crate) struct Watchdog {
    case: Arc<Mutex<(Instant, String)>>,
    over: Arc<AtomicBool>,
}

impl Watchdog {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        let limit = limit.unwrap_or(LIMIT);
        let case = Arc::new(Mutex::new((Instant::now(), String::new())));
        let over = Arc::new(AtomicBool::new(false));
        let (seen, ended) = (Arc::clone(&case), Arc::clone(&over));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                let (since, name) = &*seen.lock().unwrap();
                if since.elapsed() > limit && !ended.load(Ordering::Relaxed) {
                    eprintln!("P10: nothing came back for {limit:?}: {name}");
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
