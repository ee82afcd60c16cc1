//! The table as text, as Markdown and as JSON.

use serde_json::{Value, json};

use super::bench::PeerResult;
use super::verdict::{Cell, Group, short};
use crate::records::RECORDS;

/// How many lines of what a peer said are shown.
const SAID_LINES: usize = 3;

/// The table for a terminal: one peer a block.
pub fn text(results: &[PeerResult]) -> String {
    let mut text = String::new();
    for result in results {
        text.push_str(&format!("{}\n", result.title));
        text.push_str(&format!(
            "  durable by     {} ({} or more syncs each)\n  framing is     {}\n",
            result.means, result.syncs_per_append, result.framing
        ));
        if let Some(reason) = &result.unusable {
            text.push_str(&format!("  not tested     {reason}\n"));
        }
        for cell in &result.cells {
            text.push_str(&format!("  {:<14} {}\n", cell.damage, cell.text()));
            for line in details(cell) {
                text.push_str(&format!("  {:<14}   {line}\n", ""));
            }
        }
        text.push('\n');
    }
    text
}

fn details(cell: &Cell) -> Vec<String> {
    let mut lines = Vec::new();
    if !cell.place.is_empty() {
        lines.push(format!("where: {}", cell.place));
    }
    for group in &cell.groups {
        let Group { runs, fewest, most, first } = group;
        if cell.runs > 1 {
            let range = if fewest < most { format!(" ({fewest} to {most} left)") } else { String::new() };
            lines.push(format!("{runs} of {}: {}{range}", cell.runs, short(first)));
        }
        for (who, answer) in ["the append answered", "the next one"].iter().zip(&first.answers) {
            lines.push(format!("{who}: {}", clip(answer)));
        }
        if first.came_back > 0 && first.went_on == 0 {
            let back = first.came_back;
            lines.push(format!("{back} records of the failed append are there; the handle took no more"));
        }
        lines.extend(first.said.iter().take(SAID_LINES).map(|line| format!("said: {}", clip(line))));
    }
    lines
}

fn clip(line: &str) -> String {
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.into(),
    }
}

/// The table for the README: one row a peer.
pub fn markdown(results: &[PeerResult]) -> String {
    let heads: Vec<&str> = results.iter().map(|result| &result.cells).max_by_key(|cells| cells.len()).map_or(
        Vec::new(),
        |cells| {
            cells.iter().filter(|cell| cell.damage != "no damage").map(|cell| cell.damage.as_str()).collect()
        },
    );
    let mut text = format!("| | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    for result in results {
        let cells: Vec<String> = match &result.unusable {
            Some(reason) => vec![format!("not tested: {reason}")],
            None => result
                .cells
                .iter()
                .filter(|cell| cell.damage != "no damage")
                .map(|cell| if cell.is_bad() { format!("**{}**", cell.text()) } else { cell.text() })
                .collect(),
        };
        text.push_str(&format!("| {} | {} |\n", result.title, cells.join(" | ")));
    }
    text
}

/// Everything.
pub fn json(results: &[PeerResult]) -> Value {
    json!({
        "records": RECORDS,
        "peers": results,
        "silent_loss_cells": results.iter().map(|result| (result.id, silent(result))).collect::<Vec<_>>(),
    })
}

/// The last line: for each peer the number of cells in which acknowledged records were lost or changed in
/// silence, and of those in which only debugging text or the program's log told.
pub fn last_line(results: &[PeerResult]) -> String {
    let count = |result: &PeerResult| {
        let muted = result.cells.iter().filter(|cell| cell.silent == 0 && cell.muted > 0).count();
        let muted =
            if muted > 0 { format!(" (and {muted} told in its log text only)") } else { String::new() };
        format!("{} {}{muted}", result.id, silent(result))
    };
    format!("cells with silent loss: {}", results.iter().map(count).collect::<Vec<_>>().join(", "))
}

fn silent(result: &PeerResult) -> usize {
    result.cells.iter().filter(|cell| cell.silent > 0).count()
}
