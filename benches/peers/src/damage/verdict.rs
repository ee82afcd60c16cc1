//! What a peer made of one damage: how much is left, whether anything is wrong, and whether it said so.

use serde::Serialize;

/// Whether a peer said that something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It did not: calls succeed and nothing is reported.
    Silent,
    /// Only in debugging text on standard output; calls succeed.
    Debug,
    /// In a warning in the program's log; calls succeed.
    Logged,
    /// In a report or a check that its API offers.
    Said,
    /// Reading ended in an error.
    Error,
    /// It does not open.
    Refused,
    /// It panicked or was killed by a signal.
    Crashed(String),
    /// It did not end within the time limit.
    Hung,
}

/// The outcome of one damage to one copy.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Records that were acknowledged.
    pub acknowledged: usize,
    /// How many of them came back, bit for bit.
    pub left: usize,
    /// Records that came back and were never appended like this.
    pub wrong: usize,
    /// Records that came back more than once.
    pub repeated: usize,
    /// Whether they came back in another order.
    pub disordered: bool,
    /// Records of a refused append that came back.
    pub came_back: usize,
    /// Appends that were acknowledged after a refused one, by the same handle.
    pub went_on: usize,
    /// Records that were acknowledged although the sync that was to make them durable had failed.
    pub unsynced: usize,
    /// Whether the handle hung after the failed sync.
    pub handle_hung: bool,
    /// Whether the handle refused every append after the failed one.
    pub handle_stops: bool,
    /// What the failed append and the first one after it answered.
    pub answers: Vec<String>,
    /// Whether it said so.
    pub how: How,
    /// What it said, the beginning.
    pub said: Vec<String>,
}

impl Outcome {
    fn crashed(&self) -> bool {
        matches!(self.how, How::Crashed(_) | How::Hung)
    }

    /// Refused records are back although the log went on without them.
    pub fn has_ghosts(&self) -> bool {
        self.came_back > 0 && self.went_on > 0
    }

    /// For the order of a cell's groups: silence weighs more than loss, and loss more than a refusal. How
    /// many are lost does not count: that is a matter of where the damage lies.
    fn badness(&self) -> u8 {
        let lost = self.left < self.acknowledged || self.wrong > 0;
        if lost && matches!(self.how, How::Silent) {
            8
        } else if lost && matches!(self.how, How::Debug | How::Logged) {
            7
        } else if self.has_ghosts() || self.unsynced > 0 || self.repeated > 0 || self.disordered {
            6
        } else if self.crashed() || self.handle_hung {
            5
        } else if lost {
            match self.how {
                How::Said => 4,
                How::Error => 3,
                _ => 2,
            }
        } else {
            u8::from(matches!(self.how, How::Said | How::Logged))
        }
    }
}

/// Outcomes of one cell that differ in their numbers at most.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// How many.
    pub runs: usize,
    /// The fewest acknowledged records that came back.
    pub fewest: usize,
    /// The most.
    pub most: usize,
    /// The first of them: the damage in the middle.
    pub first: Outcome,
}

/// A cell of the table: one damage, or several of a kind.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The damage.
    pub damage: String,
    /// What was done, where.
    pub place: String,
    /// How many copies were damaged, each in another place.
    pub runs: usize,
    /// In how many of them acknowledged records were lost or changed in silence.
    pub silent: usize,
    /// In how many of them this was told in debugging text or in the program's log alone.
    pub muted: usize,
    /// The outcomes, the worst first.
    pub groups: Vec<Group>,
}

impl Cell {
    /// A cell from the outcomes of its runs.
    pub fn new(damage: &str, place: String, outcomes: &[Outcome]) -> Self {
        let mut kinds: Vec<(String, Group)> = Vec::new();
        for outcome in outcomes {
            // Groups differ in words; crashes also in their numbers.
            let kind = short(outcome).replace(|letter: char| letter.is_ascii_digit(), "");
            let left = outcome.left;
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, group)) => {
                    group.runs += 1;
                    group.fewest = group.fewest.min(left);
                    group.most = group.most.max(left);
                }
                None => {
                    kinds.push((kind, Group { runs: 1, fewest: left, most: left, first: outcome.clone() }))
                }
            }
        }
        let mut groups: Vec<Group> = kinds.into_iter().map(|(_, group)| group).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.first.badness()));
        let count = |badness| {
            groups.iter().filter(|group| group.first.badness() == badness).map(|group| group.runs).sum()
        };
        Self { damage: damage.into(), place, runs: outcomes.len(), silent: count(8), muted: count(7), groups }
    }

    /// The cell's text: what came most often first. What did no harm is left out where something did.
    pub fn text(&self) -> String {
        let mut groups: Vec<&Group> = self.groups.iter().filter(|group| group.first.badness() > 1).collect();
        if groups.is_empty() {
            return self.groups.first().map(|group| short(&group.first)).unwrap_or_default();
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.runs));
        let word = |(place, group): (usize, &&Group)| match (self.runs, place) {
            (runs, _) if runs == group.runs => short(&group.first),
            (runs, 0) => format!("{} ({} of {runs})", short(&group.first), group.runs),
            _ => format!("{} ({})", short(&group.first), group.runs),
        };
        groups.iter().enumerate().map(word).collect::<Vec<_>>().join("; ")
    }

    /// Whether it is worth bold type: loss in silence, rejected records that are back, a hang.
    pub fn is_bad(&self) -> bool {
        self.groups.iter().any(|group| group.first.badness() >= 5)
    }
}

/// An outcome in a few words.
pub fn short(outcome: &Outcome) -> String {
    let mut words = Vec::new();
    match &outcome.how {
        How::Refused => words.push("refuses to open".into()),
        How::Crashed(how) => words.push(format!("{how}, {} read", outcome.left)),
        How::Hung => words.push("hangs on opening".into()),
        How::Silent | How::Debug | How::Logged | How::Said | How::Error => {
            let left = if outcome.left == outcome.acknowledged {
                "all left".into()
            } else {
                format!("{} left", outcome.left)
            };
            words.push(left);
        }
    }
    if outcome.wrong > 0 {
        words.push(format!("{} wrong", outcome.wrong));
    }
    if outcome.repeated > 0 {
        words.push(format!("{} twice", outcome.repeated));
    }
    if outcome.disordered {
        words.push("out of order".into());
    }
    if outcome.unsynced > 0 {
        words.push("acknowledged although its sync failed".into());
    }
    if outcome.has_ghosts() {
        words.push(format!("{} rejected came back", outcome.came_back));
    }
    if outcome.handle_hung {
        words.push("handle hangs".into());
    }
    if outcome.handle_stops {
        words.push("handle stops".into());
    }
    let lost = outcome.left < outcome.acknowledged || outcome.wrong > 0;
    match &outcome.how {
        How::Silent if lost => words.push("silent".into()),
        How::Debug if lost => words.push("debug text only".into()),
        How::Logged => words.push("warns in its log".into()),
        How::Said => words.push("says so".into()),
        How::Error => words.push("error".into()),
        _ => {}
    }
    words.join(", ")
}
