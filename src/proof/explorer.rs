//! A script, a crash after each of its calls, what each may leave, and the same again for the recovery
//! that follows. Each state is opened and checked.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk as _;
use crate::error::Error;
use crate::log::survey::Witness;
use crate::log::view::LogView;

use super::check::{Batch, Expect, Opener, Planned, Rows, verify};
use super::disk::{Rng, SimDisk};
use super::images::{Effort, Images};
use super::log_on;
use super::scripts::{Life, script};
use super::sectors::mix;
use super::tree::Tree;

const OUTER: Effort = Effort { exhaustive: 256, samples: 40, partial: 6 };
const INNER: Effort = Effort { exhaustive: 8, samples: 6, partial: 2 };

type Check = std::result::Result<(), String>;

/// Which state: the script's seed, the call, the image; then the same of the recovery that follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) seed: u64,
    pub(crate) point: usize,
    pub(crate) image: usize,
    pub(crate) inner: Option<(usize, usize)>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.seed, self.point, self.image)?;
        self.inner.map_or(Ok(()), |(point, image)| write!(f, ".{point}.{image}"))
    }
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers: Vec<u64> = text
            .split('.')
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| format!("{text}: {error}"))?;
        let at = |index: usize| numbers[index] as usize;
        match numbers.len() {
            3 => Ok(Self { seed: numbers[0], point: at(1), image: at(2), inner: None }),
            5 => Ok(Self { seed: numbers[0], point: at(1), image: at(2), inner: Some((at(3), at(4))) }),
            _ => Err(format!("{text}: seed.call.image or seed.call.image.call.image")),
        }
    }
}

/// What stands beside the log when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    /// No rows.
    Nothing,
    /// The rows of some earlier moment.
    Earlier,
    /// A true witness, and rows that are not what was written.
    WrongRows,
    /// A witness of another history: a wrong checksum, or a seq that never was.
    WrongWitness,
}

/// Goes through the states of one script.
pub(crate) struct Explorer {
    pub(crate) place: Place,
    only: Option<Place>,
    store: crate::StoreId,
    history: Vec<Arc<Planned>>,
    /// What was checked, with what was expected of it.
    checked: HashSet<u64>,
    /// Distinct disk contents that hold a segment.
    pub(crate) states: HashSet<u64>,
    pub(crate) openings: u64,
}

impl Explorer {
    pub(crate) fn new(seed: u64, only: Option<Place>) -> Self {
        Self {
            place: Place { seed, ..Place::default() },
            only,
            store: crate::StoreId([0; 16]),
            history: Vec::new(),
            checked: HashSet::new(),
            states: HashSet::new(),
            openings: 0,
        }
    }

    /// All states of the script.
    pub(crate) fn explore(&mut self) -> Check {
        let seed = self.place.seed;
        let mut life = Life::new(seed, true);
        life.run(&script(seed))?;
        self.store = life.store;
        let (points, ledgers) = life.take_recording();
        if self.only.is_some() {
            println!("{:#?}", script(seed));
            for (index, point) in points.iter().enumerate() {
                println!("call {index}, step {}: {:?}", point.step, point.call);
            }
        }
        self.history = std::mem::take(&mut life.history);
        for index in 0..points.len() {
            if self.only.is_some_and(|only| only.point != index) {
                continue;
            }
            let ledger = &ledgers[points[index].step];
            let history = std::mem::take(&mut self.history);
            let expect = Expect {
                acknowledged: &history[..ledger.acknowledged],
                pending: &ledger.pending,
                deletions: &ledger.deletions,
            };
            let shown = Self::shown_beside_a_writer(&points[index].tree)?;
            let images = Images::of(&points, index, OUTER);
            let mut done = Ok(());
            for image in 0..images.count() {
                if self.only.is_some_and(|only| only.image != image) {
                    continue;
                }
                self.place = Place { seed, point: index, image, inner: None };
                let chance = self.chance();
                done = self.state(images.image(image, chance), expect, shown, chance, true);
                if done.is_err() {
                    break;
                }
            }
            self.history = history;
            done?;
        }
        Ok(())
    }

    /// A number for the present place.
    fn chance(&self) -> u64 {
        let inner = self.place.inner.map_or(0, |(point, image)| 1 + point * 4096 + image);
        let outer = (self.place.point as u64) << 20 | self.place.image as u64;
        mix(mix(mix(3, self.place.seed), outer), inner as u64)
    }

    /// A cursor beside a writer never points at an event that a power cut takes back.
    fn shown_beside_a_writer(tree: &Tree) -> std::result::Result<usize, String> {
        let view = LogView::open(log_on(&SimDisk::from_tree(tree.clone())), None, true);
        let view = view.map_err(|error| format!("beside a writer: {error}"))?;
        Ok(view.map_or(0, |view| view.last_seq() as usize))
    }

    fn state(&mut self, tree: Tree, expect: Expect<'_>, shown: usize, chance: u64, outer: bool) -> Check {
        let mut rng = Rng::new(chance);
        let disk = SimDisk::from_tree(tree);
        change_tail(&disk, &mut rng);
        let tree = disk.tree();
        let expected = mix(expect.acknowledged.len() as u64, expect.pending.len() as u64);
        if !self.checked.insert(mix(tree.full_sum(), expected)) && self.only.is_none() {
            return Ok(());
        }
        if !super::segments(&disk).is_empty() {
            self.states.insert(tree.sum());
        }
        let acknowledged = expect.acknowledged;
        let applied = match rng.below(4) {
            0 => rng.below(acknowledged.len() as u64 + 1) as usize,
            _ => acknowledged.len(),
        };
        let beside = match rng.below(16) {
            0..=4 => Beside::Nothing,
            5 => Beside::WrongRows,
            6 => Beside::WrongWitness,
            _ => Beside::Earlier,
        };
        let witness = applied.checked_sub(1).and_then(|last| acknowledged[last].witness(applied as u64));
        let mut opener = Opener::alone(self.store);
        if matches!(beside, Beside::Earlier | Beside::WrongRows) {
            opener.witness = witness;
            opener.rows = Rows { known: &acknowledged[..applied], lie: beside == Beside::WrongRows };
        }
        if outer && self.only.is_some_and(|only| only.inner.is_none()) {
            println!("{}: {beside:?}, applied {applied}, {} acknowledged", self.place, acknowledged.len());
        }
        if beside == Beside::WrongWitness {
            self.refused_or_whole(&disk, expect, &mut rng)?;
        }

        let before = verify(&disk, expect, opener.witness)?;
        if before < shown {
            return Err(format!("P1: event {shown} was shown beside the writer, and {before} are left"));
        }
        disk.record();
        disk.step(0);
        if rng.chance(6) {
            let lost = opener.repair(&disk).map_err(|error| format!("P5: repair: {error}"))?;
            if !lost.is_empty() {
                return Err(format!("P3: repair after a crash: {lost:?}"));
            }
        }
        self.openings += 1;
        let mut writer = match opener.open(&disk) {
            Ok(writer) => writer,
            Err(error) => return Err(format!("P5: {error} ({beside:?})")),
        };
        let count = verify(&disk, expect, opener.witness)?;
        if count != before {
            return Err(format!("P3: a reader saw {before} events, recovery left {count}"));
        }
        if writer.position().seq != count as u64 + 1 {
            return Err(format!("P4: the next seq is {}", writer.position().seq));
        }
        // What an open log holds is history: no power cut takes it back.
        let mut known: Vec<Arc<Planned>> = acknowledged.to_vec();
        known.extend(expect.pending.iter().flatten().take(count - acknowledged.len()).cloned());
        if !disk.tree().is_settled() {
            let history = Expect { acknowledged: &known, pending: &[], deletions: &[] };
            verify(&disk.after_worst_power_cut(), history, None)
                .map_err(|broken| format!("{broken}; a power cut right after the opening"))?;
        }
        if !outer {
            return Ok(());
        }

        // The log goes on, and the crash comes anywhere in the recovery or behind it.
        let batch: Batch = (0..=rng.below(2))
            .map(|_| {
                let len = [1, 30, 470, 900][rng.below(4) as usize];
                let fill = [0, 0x77][rng.below(2) as usize];
                Planned::new(60_000, vec![fill; len])
            })
            .collect();
        disk.step(1);
        let events: Vec<_> = batch.iter().map(|event| event.event()).collect();
        let need = crate::log::writer::batch_len(&events);
        let mut go_on = || {
            if need > writer.room() {
                writer.roll_at(need, 3)?;
            }
            writer.append(std::slice::from_ref(&events), 9)?;
            disk.step(2);
            if rng.chance(50) {
                writer.mark()?;
                writer.note_tail();
            }
            Ok::<(), Error>(())
        };
        go_on().map_err(|error| format!("after recovery: {error}"))?;
        known.extend(batch.iter().cloned());
        if rng.chance(12) {
            self.flipped(&disk, Expect { acknowledged: &known, pending: &[], deletions: &[] }, &mut rng)?;
        }
        self.inner_states(&disk, expect, &known, batch)
    }

    /// A second crash, at each call of the recovery and of what follows.
    fn inner_states(
        &mut self,
        disk: &SimDisk,
        expect: Expect<'_>,
        known: &[Arc<Planned>],
        batch: Batch,
    ) -> Check {
        let points = disk.take_points();
        let (outer, opened) = (self.place, known.len() - batch.len());
        let in_flight = [batch];
        for index in 0..points.len() {
            let expect = match points[index].step {
                0 => expect,
                1 => Expect { acknowledged: &known[..opened], pending: &in_flight, deletions: &[] },
                _ => Expect { acknowledged: known, pending: &[], deletions: &[] },
            };
            let images = Images::of(&points, index, INNER);
            for image in 0..images.count() {
                self.place = Place { inner: Some((index, image)), ..outer };
                if self.only.is_some_and(|only| only.inner.is_some() && only != self.place) {
                    continue;
                }
                let chance = self.chance();
                self.state(images.image(image, chance), expect, 0, chance, false)?;
            }
        }
        self.place = outer;
        Ok(())
    }

    /// After a crash, a recovery and an append, a bit flips. It is named, or has cost nothing: it never
    /// passes for a torn tail.
    fn flipped(&self, disk: &SimDisk, expect: Expect<'_>, rng: &mut Rng) -> Check {
        let disk = disk.after_kill();
        let Some(path) = super::segments(&disk).pop() else { return Ok(()) };
        let bytes = disk.bytes(&path);
        let first = crate::log::segment::FIRST_FRAME as usize;
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if end <= first {
            return Ok(());
        }
        let at = first + rng.below((end - first) as u64) as usize;
        disk.flip_bit(&path, at, rng.below(8) as u32);
        match Opener::alone(self.store).open(&disk) {
            Ok(_) => {}
            Err(Error::Damaged { findings, .. }) if !findings.is_empty() => return Ok(()),
            Err(error) => return Err(format!("P3: a flipped bit at {at}: {error}")),
        }
        verify(&disk, expect, None).map(|_| ()).map_err(|broken| format!("a flipped bit at {at}: {broken}"))
    }

    /// A witness that lies may be refused; nothing is lost by it, and `--trust-log` gets on.
    fn refused_or_whole(&self, disk: &SimDisk, expect: Expect<'_>, rng: &mut Rng) -> Check {
        let disk = disk.after_kill();
        let acknowledged = expect.acknowledged;
        let mut opener = Opener::alone(self.store);
        opener.rows = Rows { known: acknowledged, lie: rng.chance(50) };
        let seq = 1 + rng.below(acknowledged.len() as u64 + 3);
        opener.witness = Some(Witness { seq, sum: 0x00BA_D000 ^ seq as u32 });
        let before = verify(&disk, expect, None)?;
        match opener.open(&disk) {
            Ok(_) => {}
            Err(Error::Damaged { findings, .. }) if !findings.is_empty() => {
                // A mark may have been written again, for the frame behind it proves it.
                let left = verify(&disk, expect, None)?;
                if left < before {
                    return Err(format!(
                        "P3: a refused opening left {left} of {before} events: {findings:?}"
                    ));
                }
                opener.trust_log = true;
                opener.open(&disk).map_err(|error| format!("--trust-log: {error}"))?;
            }
            Err(error) => return Err(format!("a witness that lies: {error}")),
        }
        verify(&disk, expect, None).map(|_| ()).map_err(|broken| format!("a witness that lies: {broken}"))
    }
}

/// The file `tail` may be gone, or be torn in a way that sectors do not tear; an old one comes from the
/// disk by itself.
fn change_tail(disk: &SimDisk, rng: &mut Rng) {
    let chosen = rng.below(24);
    let path = Path::new("/parent/store/tail");
    if chosen > 1 || !disk.paths().iter().any(|known| known == path) {
        return;
    }
    if chosen == 0 {
        disk.remove(path).unwrap();
        disk.sync_dir(Path::new("/parent/store")).unwrap();
    } else {
        let cut = rng.below(72) as usize;
        disk.damage(path, |bytes| bytes.iter_mut().skip(cut).for_each(|byte| *byte = 0));
    }
}
