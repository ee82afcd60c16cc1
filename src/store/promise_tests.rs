//! Promises that only a disk of our own can show: P1, P2, P4 and P10, over the simulated one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::disk::{Disk, DiskFile, DiskLock, FileIdentity, Lockable};
use crate::error::{Error, Outcome};
use crate::log::cursor::Entry;
use crate::log::directory::LogDir;
use crate::log::view::LogView;
use crate::proof::disk::{Fault, SimDisk};
use crate::sync::{Company, Level, SyncEvent};

use super::{Options, Receipt, Store};

/// Whoever waits longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(20);

fn event(text: &str) -> SyncEvent {
    SyncEvent::new(Company::new("g", "a", "n"), Level::Info, text)
}

/// What happens to a disk, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Write(PathBuf),
    Sync(PathBuf),
    Failed(PathBuf),
    MakeDir(PathBuf),
    Rename(PathBuf),
    SyncDir(PathBuf),
}

type Hook = Arc<Mutex<Box<dyn FnMut() + Send>>>;

/// A simulated disk that notes what is done to it, and lets a test act before each sync of a segment.
#[derive(Clone)]
struct Watched {
    disk: Arc<dyn Disk>,
    calls: Arc<Mutex<Vec<Call>>>,
    before_sync: Hook,
}

struct WatchedFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    watch: Watched,
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}

impl Watched {
    fn new(disk: &SimDisk) -> Self {
        let nothing: Box<dyn FnMut() + Send> = Box::new(|| {});
        Self {
            disk: Arc::new(disk.clone()),
            calls: Arc::default(),
            before_sync: Arc::new(Mutex::new(nothing)),
        }
    }

    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    fn before_sync(&self, hook: impl FnMut() + Send + 'static) {
        *self.before_sync.lock().unwrap() = Box::new(hook);
    }

    fn wrap(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(WatchedFile { file, path: path.into(), watch: self.clone() })
    }
}

impl DiskFile for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.watch.note(Call::Write(self.path.clone()));
        self.file.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if is_segment(&self.path) {
            (self.watch.before_sync.lock().unwrap())();
        }
        let done = self.file.sync();
        let path = self.path.clone();
        self.watch.note(if done.is_ok() { Call::Sync(path) } else { Call::Failed(path) });
        done
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        self.file.identity()
    }

    fn as_real(&self) -> Option<&std::fs::File> {
        None
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(path, self.disk.open(path, writable)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // A segment is made under its temporary name.
        let known_as = path.to_str().and_then(|name| name.strip_suffix(".new"));
        Ok(self.wrap(known_as.map_or(path, Path::new), self.disk.create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Call::Rename(to.into()));
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if self.disk.list(path).is_err() {
            self.note(Call::MakeDir(path.into()));
        }
        // SQLite and the lock need it to be there as well.
        std::fs::create_dir_all(path)?;
        self.disk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)?;
        self.note(Call::SyncDir(path.into()));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        self.disk.identity(path)
    }

    fn lock(&self, path: &Path, what: Lockable, alone: bool) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(path, what, alone)
    }

    fn hold(&self, store_dir: &Path) -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(Self { disk: self.disk.hold(store_dir)?, ..self.clone() }))
    }
}

/// A directory, and a disk on which it is there and empty.
fn place() -> (tempfile::TempDir, PathBuf, SimDisk) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().canonicalize().unwrap();
    let disk = SimDisk::default();
    disk.add_dir(&dir);
    (temp, dir, disk)
}

fn open_on(disk: impl Disk + 'static, dir: &Path) -> Store<SyncEvent> {
    let options = Options::default().segment_bytes(16 * 1024, 32 * 1024);
    Store::open_on(Arc::new(disk), dir, options, false).unwrap()
}

/// The messages of a log, in order; every event must be whole.
fn messages(disk: &SimDisk, dir: &Path) -> Vec<String> {
    let log = LogDir::new(Arc::new(disk.clone()), dir);
    let Some(view) = LogView::open(log, None, false).unwrap() else { return Vec::new() };
    let (mut cursor, missing) = view.cursor(1).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    let mut messages = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        match entry {
            Entry::Event { header, payload, .. } => {
                assert_eq!(header.seq, messages.len() as u64 + 1, "P4: gapless");
                match crate::codec::decode::<SyncEvent>(&header, payload) {
                    crate::codec::Decoded::Event { event, .. } => messages.push(event.message),
                    crate::codec::Decoded::Unread(unread) => panic!("{}", unread.reason),
                }
            }
            Entry::Damage(finding) => panic!("{finding}"),
            _ => panic!("nothing was deleted"),
        }
    }
    messages
}

/// At the moment of each acknowledgement the power goes, and nothing is left but what was synced.
#[test]
fn p1_acknowledged_is_durable() {
    let (_temp, dir, disk) = place();
    let store = open_on(disk.clone(), &dir);
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (store, disk, dir) = (store.clone(), disk.clone(), dir.clone());
            std::thread::spawn(move || {
                for number in 0..20 {
                    let text = |part: u64| {
                        // Some frames with sectors of zeros, some batches, and enough to fill segments.
                        let filler = if number % 4 == 0 { "\0".repeat(1500) } else { "x".repeat(200) };
                        format!("{thread}-{number}-{part} {filler}")
                    };
                    let batch: Vec<String> = (0..=number % 3).map(text).collect();
                    let receipts = store.append_all(batch.iter().map(|text| event(text))).unwrap();
                    let left = messages(&disk.after_worst_power_cut(), &dir);
                    for (receipt, text) in receipts.iter().zip(&batch) {
                        let found = left.get(receipt.seq as usize - 1);
                        assert_eq!(found, Some(text), "P1: event {}", receipt.seq);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(disk.paths().iter().filter(|path| is_segment(path)).count() >= 3, "several segments");
}

/// Every directory that a store makes, and every segment that it puts into place, is synced into the
/// directory above it before anything is acknowledged.
#[test]
fn p1_acknowledged_is_durable_up_to_the_directory_above_the_store() {
    let (_temp, above, disk) = place();
    let dir = above.join("history").join("store");
    let watched = Watched::new(&disk);
    let store = open_on(watched.clone(), &dir);
    let mut acknowledged = 0;
    while watched.calls().iter().filter(|call| matches!(call, Call::Rename(_))).count() < 3 {
        store.append(event(&"x".repeat(900))).unwrap();
        acknowledged += 1;
        let calls = watched.calls();
        for (at, call) in calls.iter().enumerate() {
            let (Call::MakeDir(path) | Call::Rename(path)) = call else { continue };
            let synced = Call::SyncDir(path.parent().unwrap().into());
            assert!(calls[at..].contains(&synced), "P1: the entry of {} is not synced", path.display());
        }
    }
    let calls = watched.calls();
    for made in [above.join("history"), dir.clone(), dir.join("log")] {
        assert!(calls.contains(&Call::MakeDir(made.clone())), "{}", made.display());
    }
    assert!(acknowledged > 10);
}

/// Before each sync of a segment, and while it waits, no row is there of an event that the sync is to
/// make durable.
#[test]
fn p2_log_first() {
    let (_temp, dir, disk) = place();
    let watched = Watched::new(&disk);
    let store = open_on(watched.clone(), &dir);
    let (looks, looked) = mpsc::channel();
    let (inside, place) = (disk.clone(), dir.clone());
    watched.before_sync(move || {
        let durable = messages(&inside.after_worst_power_cut(), &place).len() as i64;
        let start = Instant::now();
        // Long enough for a projector that was let loose too early.
        while start.elapsed() < Duration::from_millis(40) {
            let db = rusqlite::Connection::open(place.join("synclog.db")).unwrap();
            let sql = "SELECT coalesce(max(id), 0), \
                       (SELECT value FROM synclog_meta WHERE name = 'applied_seq') \
                       FROM sync_logs";
            let rows: rusqlite::Result<(i64, i64)> =
                db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
            if let Ok(found) = rows {
                let _ = looks.send((durable, found));
            }
        }
    });
    for number in 1..=12 {
        let batch = (0..=number % 3).map(|part| event(&format!("{number}-{part}")));
        assert!(store.append_all(batch).is_ok());
        assert!(store.wait_projected(PATIENCE));
    }
    store.close().unwrap();
    watched.before_sync(|| {}); // closes the channel
    let looks: Vec<_> = looked.iter().collect();
    for (durable, (newest, applied)) in &looks {
        assert!(newest <= durable && applied <= durable, "P2: {newest} and {applied}, durable {durable}");
    }
    assert!(looks.iter().any(|(_, (newest, _))| *newest > 5), "rows did follow");
}

/// Three groups: the first is synced, the sync of the second fails once, the third waits in the queue.
struct AfterAFailedSync {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    disk: SimDisk,
    watched: Watched,
    store: Store<SyncEvent>,
    first: crate::Result<Vec<Receipt>>,
    second: Vec<crate::Result<Vec<Receipt>>>,
    third: Vec<crate::Result<Vec<Receipt>>>,
}

fn after_a_failed_sync() -> AfterAFailedSync {
    let (temp, dir, disk) = place();
    let watched = Watched::new(&disk);
    let store = open_on(watched.clone(), &dir);
    let (entered, enters) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let (inside, mut syncs) = (disk.clone(), 0);
    watched.before_sync(move || {
        let _ = entered.send(());
        let _ = gone.recv_timeout(PATIENCE);
        syncs += 1;
        if syncs == 2 {
            // This one fails; whatever is tried after it would work.
            inside.set_fault(Some(Fault { at: 0, fatal: false, partial: 0, errno: 5 }));
        }
    });
    let (answer, answers) = mpsc::channel();
    let submit = |text: String| {
        let ticket = store.submit([event(&text), event(&format!("{text}, part 2"))]).unwrap();
        let answer = answer.clone();
        std::thread::spawn(move || answer.send((text, ticket.wait())));
    };
    submit("first".into());
    enters.recv_timeout(PATIENCE).unwrap();
    (0..5).for_each(|number| submit(format!("second {number}")));
    go.send(()).unwrap();
    enters.recv_timeout(PATIENCE).unwrap();
    (0..4).for_each(|number| submit(format!("third {number}")));
    drop(go);
    let mut found = std::collections::BTreeMap::new();
    for _ in 0..10 {
        let (text, answer) = answers.recv_timeout(PATIENCE).expect("P10: every waiter gets an answer");
        found.insert(text, answer);
    }
    let third = found.split_off("third");
    let second = found.split_off("second");
    let first = found.remove("first").unwrap();
    let answers = |of: std::collections::BTreeMap<_, _>| of.into_values().collect();
    let (second, third) = (answers(second), answers(third));
    AfterAFailedSync { _temp: temp, dir, disk, watched, store, first, second, third }
}

#[test]
fn p10_a_failed_sync_is_every_waiters_error_and_final() {
    let after = after_a_failed_sync();
    assert_eq!(after.first.unwrap().len(), 2);
    assert_eq!((after.second.len(), after.third.len()), (5, 4));
    for answer in &after.second {
        let error = answer.as_ref().expect_err("P10: the sync failed");
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    }
    for answer in &after.third {
        let error = answer.as_ref().expect_err("P10: the handle was dead");
        assert_eq!(error.outcome(), Outcome::NotWritten, "{error}");
    }
    for _ in 0..3 {
        let error = after.store.append(event("later")).unwrap_err();
        assert!(matches!(&error, Error::Dead { .. }) && error.outcome() == Outcome::NotWritten, "{error}");
    }
    // Longer than a log is idle before it writes a mark.
    std::thread::sleep(Duration::from_millis(60));
    assert!(matches!(after.store.close(), Err(Error::Dead { .. })));
    let calls = after.watched.calls();
    let failed = calls.iter().position(|call| matches!(call, Call::Failed(_))).unwrap();
    let touched: Vec<_> =
        calls[failed + 1..].iter().filter(|call| matches!(call, Call::Write(_) | Call::Sync(_))).collect();
    assert!(touched.is_empty(), "P10: nothing is written or retried: {touched:?}");
}

/// What was refused never comes back, and what may be there is there for good once it was read.
#[test]
fn p4_a_failed_batch_is_whole_or_gone_and_a_refused_one_never_comes_back() {
    let after = after_a_failed_sync();
    drop(after.store.close());
    let first = ["first", "first, part 2"];

    // Nothing of the second group is on disk: the next append takes its place, for good.
    let (disk, dir) = (after.disk.after_worst_power_cut(), &after.dir);
    std::fs::remove_file(dir.join("synclog.db")).unwrap();
    assert_eq!(messages(&disk, dir), first, "P4");
    let store = open_on(disk.clone(), dir);
    assert_eq!(store.append(event("next")).unwrap().seq, 3);
    store.close().unwrap();
    assert_eq!(messages(&disk, dir), ["first", "first, part 2", "next"], "P4: no ghost");

    // All of it is in the page cache, and the kernel takes it for written: opening makes that true.
    let disk = after.disk.after_kill();
    std::fs::remove_file(dir.join("synclog.db")).unwrap();
    let store = open_on(disk.clone(), dir);
    let found = messages(&disk, dir);
    assert_eq!(store.last_seq(), found.len() as u64);
    assert!(!found.iter().any(|text| text.starts_with("third")), "P4: {found:?}");
    assert_eq!(messages(&disk.after_worst_power_cut(), dir), found, "P1: what an opening found is durable");
    assert_eq!(found.len(), 12, "the second group is whole");
}
