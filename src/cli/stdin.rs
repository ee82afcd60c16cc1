//! `append --stdin`: a thread reads lines and submits them, this one answers them in order.
//!
//! A client that waits for each answer gets it at once; one that sends many lines shares syncs among
//! them. Answers are kept back only while the next one is certain to follow without waiting.

use std::io::BufRead;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::tz::TimeZone;
use synclog::{Error, Store, SyncEvent, SyncLog, Ticket, Timestamp};

use super::append::answer;
use crate::standing::Standing;

use super::exit::{Exit, Stop, outcome_word};
use super::out::{self, Fields, Out, json_text};
use super::signals;
use super::stdin_line::{self, Line, MAX_LINE};

/// Lines that may wait for their answers.
const WAITING: usize = 1024;

/// What the reading thread hands over.
enum Message {
    /// A submitted event, and whether it is dated ahead of the clock.
    Submitted(u64, Ticket<SyncEvent>, bool),
    /// A line that is no event.
    Rejected(u64, String),
    /// A line that could not be submitted.
    Failed(u64, Error),
    /// Stdin cannot be read.
    Unreadable(std::io::Error),
    /// The thread that reads ended in a panic: nothing more comes, and one line may be without its answer.
    Died,
    /// A signal: take nothing more.
    Interrupted,
    /// The end of the input. The signal thread keeps a sender, so the channel itself does not end.
    End,
}

/// Lets lines in until it is closed, so that nothing is submitted whose answer nobody waits for.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, u64)>>);

impl Gate {
    fn state(&self) -> MutexGuard<'_, (bool, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more line may be taken. If so, exactly one message follows for it.
    fn admit(&self) -> bool {
        let mut state = self.state();
        let (closed, admitted) = &mut *state;
        if !*closed {
            *admitted += 1;
        }
        !*closed
    }

    /// Lets nobody in any more. How many were let in.
    fn close(&self) -> u64 {
        let mut state = self.state();
        state.0 = true;
        state.1
    }
}

/// Runs `append --stdin`.
pub(crate) fn run(log: SyncLog, zone: TimeZone, out: &mut Out) -> Result<Exit, Stop> {
    let (sender, messages) = sync_channel(WAITING);
    let gate = Gate::default();
    let caught = signals::watch({
        let (sender, gate) = (sender.clone(), gate.clone());
        move || {
            gate.close();
            // An error means that nobody answers any more, so the process is about to end.
            drop(sender.send(Message::Interrupted));
        }
    })?;
    let store = log.store().clone();
    let admission = gate.clone();
    std::thread::Builder::new()
        .name("synclog-stdin".into())
        .spawn(move || {
            let submit = |number, line: &[u8]| submit(number, line, &zone, &store);
            read_guarded(std::io::stdin().lock(), submit, &admission, &sender);
        })
        .map_err(|error| Stop::new(Exit::Failure, format!("cannot start a thread: {error}")))?;
    let mut answers =
        Answers { log: &log, out, last_seq: 0, exit: Exit::Ok, output: None, standing: Standing::default() };
    answers.serve(&messages, &gate);
    let (mut exit, output) = (answers.exit, answers.output);
    if let Err(error) = log.close() {
        out::tell(&format!("error: {error}"));
        exit = exit.or(Exit::Failure);
    }
    match output {
        Some(Stop::OutputClosed) => Err(Stop::new(
            Exit::Failure,
            "nobody reads the answers any more, so the rest of the input was not read",
        )),
        Some(stop) => Err(stop),
        None => Ok(caught.exit().unwrap_or(exit)),
    }
}

/// Reads lines, and says so where that ends in a panic: whoever answers would wait for good.
fn read_guarded(
    input: impl BufRead,
    submit: impl Fn(u64, &[u8]) -> Message,
    gate: &Gate,
    sender: &SyncSender<Message>,
) {
    if catch_unwind(AssertUnwindSafe(|| read(input, submit, gate, sender))).is_err() {
        gate.close();
        // An error means that nobody answers any more.
        drop(sender.send(Message::Died));
    }
}

/// Reads lines to the end of the input and submits them.
fn read(
    mut input: impl BufRead,
    submit: impl Fn(u64, &[u8]) -> Message,
    gate: &Gate,
    sender: &SyncSender<Message>,
) {
    let (mut number, mut bytes) = (0, Vec::new());
    loop {
        let line = stdin_line::next(&mut input, &mut bytes, MAX_LINE);
        number += 1;
        let given = bytes.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(&bytes);
        let blank = matches!(line, Ok(Line::Whole)) && given.trim_ascii().is_empty();
        if blank {
            continue; // counts for numbering only
        }
        if matches!(line, Ok(Line::End)) {
            // An error, here and below: nobody answers any more.
            drop(sender.send(Message::End));
            return;
        }
        if !gate.admit() {
            return;
        }
        let message = match line {
            Ok(Line::TooLong) => {
                Message::Rejected(number, format!("the line is longer than {MAX_LINE} bytes"))
            }
            Ok(_) => submit(number, given),
            Err(error) => {
                drop(sender.send(Message::Unreadable(error)).and_then(|()| sender.send(Message::End)));
                return;
            }
        };
        if sender.send(message).is_err() {
            return;
        }
    }
}

fn submit(line: u64, bytes: &[u8], zone: &TimeZone, store: &Store<SyncEvent>) -> Message {
    match stdin_line::parse(bytes, zone) {
        Err(reason) => Message::Rejected(line, reason),
        Ok(event) => {
            let ahead = event.0.is_ahead(Timestamp::now());
            match store.submit_keyed(vec![event]) {
                Ok(ticket) => Message::Submitted(line, ticket, ahead),
                Err(error) => Message::Failed(line, error),
            }
        }
    }
}

/// The answering side.
struct Answers<'a> {
    log: &'a SyncLog,
    out: &'a mut Out,
    last_seq: u64,
    exit: Exit,
    /// Set once stdout fails. What was let in is still waited for.
    output: Option<Stop>,
    /// What was told on stderr of lines that fail one after the other.
    standing: Standing,
}

impl Answers<'_> {
    /// Answers until the input ends, or until all is answered that was let in before a signal.
    fn serve(&mut self, messages: &Receiver<Message>, gate: &Gate) {
        let (mut answered, mut limit) = (0, None);
        loop {
            if self.output.is_some() && limit.is_none() {
                limit = Some(gate.close());
            }
            if limit.is_some_and(|limit| answered >= limit) {
                break;
            }
            let message = match messages.try_recv() {
                Ok(message) => message,
                // Before this thread blocks, everything must be out.
                Err(TryRecvError::Empty) if self.out.is_pending() => {
                    self.flush();
                    continue;
                }
                // Nothing is there at present, or nobody sends any more: the next line tells.
                Err(_) => match messages.recv() {
                    Ok(message) => message,
                    Err(_) => break,
                },
            };
            match message {
                Message::Interrupted => {
                    limit = Some(gate.close());
                    continue;
                }
                Message::End => break,
                Message::Died => {
                    out::tell(
                        "error: the thread that reads stdin ended in a panic; what has no answer may be on disk or not",
                    );
                    self.exit = self.exit.or(Exit::Failure);
                    break;
                }
                Message::Submitted(line, ticket, ahead) => self.wait(line, ticket, ahead),
                Message::Rejected(line, reason) => self.reject(line, &reason),
                Message::Failed(line, error) => self.fail(line, &error),
                Message::Unreadable(error) => {
                    out::tell(&format!("error: cannot read stdin: {error}"));
                    self.exit = self.exit.or(Exit::Failure);
                }
            }
            answered += 1;
        }
        self.flush();
        if let Some(more) = self.standing.over().filter(|more| *more > 0) {
            out::tell(&format!("{more} more line(s) failed like those named"));
        }
    }

    fn wait(&mut self, line: u64, ticket: Ticket<SyncEvent>, ahead: bool) {
        let at_once = ticket.is_ready() && self.log.store().applied_seq() > self.last_seq;
        if !at_once {
            self.flush();
        }
        match ticket.wait() {
            Ok(receipts) => {
                self.tell_end();
                for receipt in receipts {
                    self.last_seq = self.last_seq.max(receipt.seq);
                    self.answer(&answer(Fields::new().with("line", line), receipt, ahead));
                }
            }
            Err(error) => self.fail(line, &error),
        }
    }

    /// Answers a line that failed: rejected where the line is to blame.
    fn fail(&mut self, line: u64, error: &Error) {
        if let Error::Invalid { .. }
        | Error::TooLarge { .. }
        | Error::KeyConflict { .. }
        | Error::KeyUnreadable { .. }
        | Error::Codec { .. } = error
        {
            return self.reject(line, &error.to_string());
        }
        self.exit = self.exit.or(Exit::Failure);
        let fields = Fields::new()
            .with("line", line)
            .with("error", error.to_string())
            .with("outcome", outcome_word(error.outcome()));
        self.answer(&fields);
        // The answers say it for each line.
        if self.standing.met(&error.to_string(), Instant::now()) {
            out::tell(&json_text(&fields));
        }
    }

    /// Events are taken again.
    fn tell_end(&mut self) {
        if let Some(more) = self.standing.over() {
            out::tell(&format!("events are taken again; {more} more had failed like those named"));
        }
    }

    fn reject(&mut self, line: u64, reason: &str) {
        self.exit = self.exit.or(Exit::Rejected);
        let fields = Fields::new().with("line", line).with("rejected", reason);
        self.answer(&fields);
        out::tell(&json_text(&fields));
    }

    fn answer(&mut self, fields: &Fields) {
        if self.output.is_none() {
            self.output = self.out.json(fields).err();
        }
    }

    fn flush(&mut self) {
        if self.output.is_none() {
            self.output = self.out.flush().err();
        }
        if self.output.is_some() {
            self.out.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The thread that watches signals keeps a sender, so the channel does not end with the thread that reads.
    #[test]
    fn a_reading_thread_that_panics_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let log = SyncLog::open(dir.path()).unwrap();
        let (sender, messages) = sync_channel(WAITING);
        let gate = Gate::default();
        let (also, admission, store) = (sender.clone(), gate.clone(), log.store().clone());
        let reader = std::thread::spawn(move || {
            let submit = |number, line: &[u8]| {
                assert_ne!(line, b"bad", "this line is a bug");
                submit(number, line, &TimeZone::UTC, &store)
            };
            let good = r#"{"company_guid":"g","company_alterid":"1","company_name":"A","log_level":"INFO","log_message":"m"}"#;
            read_guarded(format!("{good}\nbad\n{good}\n").as_bytes(), submit, &admission, &also);
        });
        let mut out = Out::to(Box::new(std::io::sink()));
        let mut answers = Answers {
            log: &log,
            out: &mut out,
            last_seq: 0,
            exit: Exit::Ok,
            output: None,
            standing: Standing::default(),
        };
        answers.serve(&messages, &gate);
        assert_eq!((answers.exit, answers.last_seq), (Exit::Failure, 1));
        reader.join().unwrap();
        drop(sender);
        assert_eq!(log.store().last_seq(), 1);
        log.close().unwrap();
    }
}
