//! What strace tells of the program.

use std::collections::HashMap;

/// One finished system call.
pub(crate) struct Call {
    pub(crate) thread: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
    pub(crate) result: String,
}

/// The calls of a trace made with `-f`, in the order in which they ended.
pub(crate) fn calls(trace: &str) -> Vec<Call> {
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let mut text = rest.trim().to_owned();
        if let Some(start) = text.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, start.to_owned());
            continue;
        }
        if text.starts_with("<...") {
            let Some((_, end)) = text.split_once(" resumed>") else { continue };
            text = unfinished.remove(thread).unwrap_or_default() + end;
        }
        let Some((name, rest)) = text.split_once('(') else { continue };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { continue };
        calls.push(Call {
            thread: thread.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            result: result.to_owned(),
        });
    }
    calls
}
