//! What a crash after a call may leave: each one by its number, so that a failing one can be had again.

use super::disk::{Call, Point, Rng};
use super::sectors::SECTOR;
use super::tree::Tree;

/// How many images of one moment are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// All images of a power cut, where there are no more than this.
    pub(crate) exhaustive: usize,
    /// A sample of so many, where there are more.
    pub(crate) samples: usize,
    /// Kills in the middle of one write.
    pub(crate) partial: usize,
}

/// The images of one moment: 0 is a kill after the call, then come kills in the middle of its write,
/// then power cuts.
pub(crate) struct Images<'a> {
    point: &'a Point,
    before: Option<&'a Tree>,
    /// Where a write that is cut off may end.
    partial: Vec<usize>,
    options: Vec<usize>,
    cuts: usize,
    exhaustive: bool,
}

impl<'a> Images<'a> {
    /// The images of `points[index]`.
    pub(crate) fn of(points: &'a [Point], index: usize, effort: Effort) -> Self {
        let point = &points[index];
        let before = index.checked_sub(1).map(|before| &points[before].tree);
        let mut partial = Vec::new();
        if let (Call::Write { from, to, .. }, Some(_)) = (point.call, before) {
            partial.extend((from / SECTOR + 1..to.div_ceil(SECTOR)).map(|sector| sector * SECTOR));
            while partial.len() > effort.partial {
                // Every other one goes, so that what stays is spread evenly.
                let mut odd = false;
                partial.retain(|_| {
                    odd = !odd;
                    odd
                });
            }
        }
        let options = point.tree.options();
        let all = options.iter().try_fold(1_usize, |all, count| all.checked_mul(*count));
        let exhaustive = all.is_some_and(|all| all <= effort.exhaustive);
        let cuts = if options.is_empty() {
            0
        } else if exhaustive {
            all.unwrap_or(0)
        } else {
            effort.samples
        };
        Self { point, before, partial, options, cuts, exhaustive }
    }

    pub(crate) fn count(&self) -> usize {
        1 + self.partial.len() + self.cuts
    }

    /// The image of this number. `seed` decides what a sample takes.
    pub(crate) fn image(&self, index: usize, seed: u64) -> Tree {
        if index == 0 {
            return self.point.tree.clone();
        }
        if let (Some(end), Some(before), Call::Write { file, from, .. }) =
            (self.partial.get(index - 1), self.before, self.point.call)
        {
            let mut tree = before.clone();
            let bytes = &self.point.tree.file(file).cache()[from..*end];
            tree.file_mut(file).write(bytes, from);
            return tree;
        }
        let index = index - 1 - self.partial.len();
        if self.exhaustive {
            let mut left = index;
            return self.point.tree.cut(&mut |count| {
                let chosen = left % count;
                left /= count;
                chosen
            });
        }
        let mut rng = Rng::new(seed ^ 0xC0FF_EE00);
        let odd_one = rng.below(self.options.len() as u64);
        let percent = [50, 20, 80][rng.below(3) as usize];
        let mut asked = 0;
        self.point.tree.cut(&mut |count| {
            asked += 1;
            let any = rng.below(count as u64) as usize;
            let (newest, oldest) = (0, count - 1);
            let is_odd_one = asked - 1 == odd_one;
            match index {
                0 => newest,
                1 => oldest,
                // All but one.
                _ if index % 4 == 2 => {
                    if is_odd_one {
                        any.max(1).min(oldest)
                    } else {
                        newest
                    }
                }
                _ if index % 4 == 3 => {
                    if is_odd_one {
                        newest
                    } else {
                        oldest
                    }
                }
                _ if rng.chance(percent) => newest,
                _ => any,
            }
        })
    }
}
