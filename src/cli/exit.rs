//! Exit codes, and the one place where errors become exit codes and hints.

use std::io;

use synclog::{Error, Outcome};

use super::out;

/// How the program ends. Scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0
    Ok,
    /// 1
    Failure,
    /// 2
    Usage,
    /// 3: the projection differs, and replay heals it.
    Differs,
    /// 4: the log is damaged, or events are missing.
    Damaged,
    /// 5: done, but some input was rejected.
    Rejected,
    /// 10: there is no store here.
    NoStore,
    /// 11: another writer holds the store.
    Locked,
    /// 13: the store was written by a newer program.
    NewerFormat,
    /// 14: the store holds events of another type.
    OtherEvents,
    /// 130 and 143: ended by SIGINT or SIGTERM.
    Signal(i32),
}

impl Exit {
    /// The number that the caller sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Differs => 3,
            Self::Damaged => 4,
            Self::Rejected => 5,
            Self::NoStore => 10,
            Self::Locked => 11,
            Self::NewerFormat => 13,
            Self::OtherEvents => 14,
            Self::Signal(number) => u8::try_from(128 + number).unwrap_or(1),
        }
    }

    /// The one of two that matters more: 4, then 3, then 1, then 5.
    pub(crate) fn or(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Rejected => 1,
            Self::Failure => 2,
            Self::Differs => 3,
            Self::Damaged => 4,
            Self::Usage
            | Self::NoStore
            | Self::Locked
            | Self::NewerFormat
            | Self::OtherEvents
            | Self::Signal(_) => 5,
        }
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nobody reads our output any more. No reason to say anything.
    OutputClosed,
    /// Something went wrong.
    Failed(Failure),
}

/// What went wrong, and what to do now.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// Writes it to stderr.
    pub(crate) fn tell(&self) {
        out::tell(&format!("error: {}", self.message));
        if let Some(hint) = &self.hint {
            out::tell(&format!("hint: {hint}"));
        }
    }
}

impl Stop {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Failed(Failure { exit, message: message.into(), hint: None })
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Failed(failure) = &mut self {
            failure.hint = Some(hint.into());
        }
        self
    }

    /// With one more hint behind what is hinted already.
    #[must_use]
    pub(crate) fn add_hint(mut self, more: &str) -> Self {
        if let Self::Failed(failure) = &mut self {
            let before = failure.hint.take();
            failure.hint = Some(before.map_or_else(|| more.to_owned(), |hint| format!("{hint}; {more}")));
        }
        self
    }

    /// A failure to write to stdout.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::new(Exit::Failure, format!("cannot write to stdout: {error}"))
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let (exit, hint) = match &error {
            Error::Invalid { .. } | Error::TooLarge { .. } => (Exit::Usage, None),
            Error::SourceZone { offset, .. } => {
                let hint = format!(
                    "where no --source-tz was given, it is probably {}; if it was the earlier import that read \
                     the times in a wrong zone, --was-tz takes that back",
                    offset.zone()
                );
                (Exit::Usage, Some(hint))
            }
            Error::NoStore { .. } => {
                (Exit::NoStore, Some("name the directory of a store with --dir or SYNCLOG_DIR".into()))
            }
            Error::NotEmpty { .. } => (Exit::NoStore, Some("name an empty directory with --dir".into())),
            Error::Locked { .. } => (Exit::Locked, Some("--wait sets how long to wait".into())),
            Error::NewerFormat { .. } => (Exit::NewerFormat, None),
            Error::OtherEvents { .. } => (
                Exit::OtherEvents,
                Some("nothing was touched; name the directory of a history of sync runs with --dir".into()),
            ),
            Error::Damaged { .. } => (
                Exit::Damaged,
                Some("`synclog repair --dry-run` tells what can be brought back, and changes nothing".into()),
            ),
            Error::PositionDiffers { .. } => (Exit::Damaged, None),
            Error::Projection { busy: true, .. } => {
                (Exit::Failure, Some("another process holds the database; try again".into()))
            }
            Error::Projection { .. } => (Exit::Differs, Some("run `synclog replay`".into())),
            Error::Displaced { .. } => {
                (Exit::Failure, Some("see what that path leads to now, then run this again".into()))
            }
            // Some reasons name the command that helps.
            Error::KeysUnavailable { reason } if reason.contains("`synclog") => (Exit::Failure, None),
            Error::KeysUnavailable { .. } => (Exit::Failure, Some("try again".into())),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => (
                Exit::Failure,
                Some("run it as the user to whom the files belong, or give them to this one".into()),
            ),
            _ => (Exit::Failure, None),
        };
        Self::Failed(Failure { exit, message: error.to_string(), hint })
    }
}

/// The word for an outcome in JSON output.
pub(crate) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::NotWritten => "not_written",
        Outcome::Unknown => "unknown",
        Outcome::Durable => "durable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_is_four_then_three_then_five() {
        let all = [Exit::Rejected, Exit::Differs, Exit::Damaged];
        for left in all {
            for right in all {
                let both = left.or(right);
                assert_eq!(both, right.or(left));
                assert!(both.rank() >= left.rank() && both.rank() >= right.rank());
            }
        }
        assert_eq!(Exit::Rejected.or(Exit::Differs).code(), 3);
        assert_eq!(Exit::Differs.or(Exit::Damaged).code(), 4);
        assert_eq!(Exit::Ok.or(Exit::Rejected).code(), 5);
        assert_eq!(Exit::Signal(15).code(), 143);
    }
}
