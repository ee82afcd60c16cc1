//! Waiting, and noticing meanwhile that nobody reads any more.

use std::time::Duration;

use super::exit::Stop;

/// Waits as long. [`Stop::OutputClosed`] as soon as whoever reads stdout has gone: a follower with nothing to write
/// would never meet the closed pipe otherwise.
#[cfg(unix)]
pub(crate) fn pause(time: Duration) -> Result<(), Stop> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let stdout = std::io::stdout();
    // Asked for nothing, it still tells errors and hang-ups.
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    let gone = PollFlags::ERR | PollFlags::HUP;
    let told = Timespec::try_from(time).map(|time| poll(&mut watched, Some(&time)));
    match told {
        // Or a signal; the caller looks.
        Ok(Ok(0) | Err(rustix::io::Errno::INTR)) => Ok(()),
        Ok(Ok(_)) if watched[0].revents().intersects(gone) => Err(Stop::OutputClosed),
        // Whatever else it is must not become a tight circle.
        _ => {
            std::thread::sleep(time);
            Ok(())
        }
    }
}

/// Waits as long.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(crate) fn pause(time: Duration) -> Result<(), Stop> {
    std::thread::sleep(time);
    Ok(())
}
