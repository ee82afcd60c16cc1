//! The figures, as text, as Markdown and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

/// What a ratio is meant to be.
#[derive(Clone, Copy)]
pub enum Goal {
    /// None: for information.
    None,
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Goal {
    fn text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::AtLeast(goal) => format!("≥ {goal}"),
            Self::AtMost(goal) => format!("≤ {goal}"),
        }
    }

    fn met(self, value: f64) -> Option<bool> {
        match self {
            Self::None => None,
            Self::AtLeast(goal) => Some(value >= goal),
            Self::AtMost(goal) => Some(value <= goal),
        }
    }
}

/// One figure of one contestant, or the ratio of two, in each round.
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    pub rounds: Vec<f64>,
    pub goal: Goal,
}

impl Figure {
    /// A figure without a goal.
    pub fn new(name: impl Into<String>, unit: &'static str, rounds: Vec<f64>) -> Self {
        Self { name: name.into(), unit, rounds, goal: Goal::None }
    }

    fn least(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The median of all rounds.
    pub fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "unit": self.unit, "median": self.median(), "min": self.least(),
            "max": self.most(), "rounds": self.rounds, "goal": self.goal.text(),
            "met": self.goal.met(self.median()),
        })
    }
}

/// One kind of work.
pub struct Row {
    pub id: &'static str,
    pub work: String,
    pub figures: Vec<Figure>,
    pub ratios: Vec<Figure>,
    pub notes: Vec<String>,
}

impl Row {
    /// A row without figures.
    pub fn new(id: &'static str, work: impl Into<String>) -> Self {
        Self { id, work: work.into(), figures: Vec::new(), ratios: Vec::new(), notes: Vec::new() }
    }

    /// Work that this machine cannot do, with the reason.
    pub fn not_exercised(id: &'static str, work: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        let mut row = Self::new(id, work);
        row.notes.push(format!("NOT EXERCISED: {reason}"));
        row
    }

    /// Adds the ratio of two figures, round by round.
    pub fn ratio(&mut self, name: impl Into<String>, own: &[f64], other: &[f64], goal: Goal) {
        let rounds = own.iter().zip(other).map(|(own, other)| own / other).collect();
        self.ratios.push(Figure { name: name.into(), unit: "×", rounds, goal });
    }
}

/// Everything that is printed.
pub struct Report {
    /// Name and value: the machine, versions, the command.
    pub facts: Vec<(String, String)>,
    pub rows: Vec<Row>,
    /// The growth table: its head and its lines.
    pub growth: Option<(Vec<String>, Vec<Vec<String>>)>,
    /// Other tables, with a title.
    pub syncs: Option<(Vec<String>, Vec<Vec<String>>)>,
}

/// A number with as many digits as it is worth.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => {
            let digits = format!("{:.0}", value.abs());
            let mut grouped = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            if value < 0.0 { format!("-{grouped}") } else { grouped }
        }
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

impl Report {
    /// As JSON.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let all = |figures: &[Figure]| figures.iter().map(Figure::json).collect::<Vec<_>>();
            json!({
                "id": row.id, "work": row.work, "figures": all(&row.figures), "ratios": all(&row.ratios),
                "notes": row.notes,
            })
        });
        let rows: Vec<Value> = rows.collect();
        let facts: serde_json::Map<String, Value> =
            self.facts.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let table = |table: &Option<(Vec<String>, Vec<Vec<String>>)>| {
            table.as_ref().map(|(head, lines)| json!({ "head": head, "lines": lines }))
        };
        json!({
            "facts": facts, "rows": rows, "growth": table(&self.growth), "syncs": table(&self.syncs),
        })
    }

    /// As text or as Markdown.
    pub fn print(&self, markdown: bool) -> String {
        let mut out = String::new();
        for (name, value) in &self.facts {
            let _ = writeln!(out, "{}{name}: {value}", if markdown { "- " } else { "" });
        }
        let strings = |head: &[&str]| head.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        if !self.rows.is_empty() {
            let head = strings(&["#", "work", "ratio", "median", "min..max", "goal", "met"]);
            let mut lines = Vec::new();
            for row in &self.rows {
                for ratio in &row.ratios {
                    lines.push(vec![
                        row.id.into(),
                        row.work.clone(),
                        ratio.name.clone(),
                        number(ratio.median()),
                        format!("{}..{}", number(ratio.least()), number(ratio.most())),
                        ratio.goal.text(),
                        ratio
                            .goal
                            .met(ratio.median())
                            .map_or("", |met| if met { "yes" } else { "no" })
                            .into(),
                    ]);
                }
            }
            section(&mut out, "Ratios", &head, &lines, markdown);
            let head = strings(&["#", "contestant", "unit", "median", "min..max"]);
            let mut lines = Vec::new();
            for row in &self.rows {
                for figure in &row.figures {
                    lines.push(vec![
                        row.id.into(),
                        figure.name.clone(),
                        figure.unit.into(),
                        number(figure.median()),
                        format!("{}..{}", number(figure.least()), number(figure.most())),
                    ]);
                }
            }
            section(&mut out, "Figures", &head, &lines, markdown);
            out.push('\n');
            for row in &self.rows {
                for note in &row.notes {
                    let _ = writeln!(out, "{}{}: {note}", if markdown { "- " } else { "" }, row.id);
                }
            }
        }
        if let Some((head, lines)) = &self.growth {
            section(&mut out, "Growth", head, lines, markdown);
        }
        if let Some((head, lines)) = &self.syncs {
            section(&mut out, "Syncs", head, lines, markdown);
        }
        out
    }
}

fn section(out: &mut String, title: &str, head: &[String], lines: &[Vec<String>], markdown: bool) {
    if markdown {
        let _ = write!(out, "\n### {title}\n\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
        for line in lines {
            let _ = writeln!(out, "| {} |", line.join(" | "));
        }
        return;
    }
    let _ = writeln!(out, "\n{title}");
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            lines.iter().chain([&head.to_vec()]).map(|line| line[column].chars().count()).max().unwrap_or(0)
        })
        .collect();
    for line in [&head.to_vec()].into_iter().chain(lines) {
        let cells = line.iter().zip(&widths);
        let text: String = cells.map(|(cell, &width)| format!("{cell:<width$}  ")).collect();
        let _ = writeln!(out, "{}", text.trim_end());
    }
}
