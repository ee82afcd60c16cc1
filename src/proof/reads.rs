//! Reading beside faults and writers, and what an acknowledgement rests on.

use crate::error::{Error, Outcome};
use crate::log::heal::NoDonor;
use crate::log::survey::Witness;
use crate::log::view::LogView;
use crate::log::writer::{NewEvent, batch_len};

use super::disk::{Fault, SimDisk};
use super::{closed_log, log_on, one, open_log, read_all, segments};

#[test]
fn a_read_error_is_never_the_end_of_the_log() {
    let (disk, _, _, _) = closed_log(4, 5);
    for path in segments(&disk) {
        let len = disk.bytes(&path).len() as u64;
        for at in (0..len).step_by(1024) {
            let disk = disk.after_kill();
            disk.fail_reads_at(Some((path.clone(), at)));
            let before = disk.bytes(&path);
            let view = LogView::open(log_on(&disk), None, false);
            let read = view.and_then(|view| {
                let (mut cursor, _) = view.unwrap().cursor(1)?;
                while cursor.next()?.is_some() {}
                Ok(())
            });
            assert!(matches!(read, Err(Error::Io { action: "read", .. })), "byte {at}: {read:?}");
            let opened = open_log(&disk, None, &mut NoDonor);
            if Some(&path) == segments(&disk).last() {
                assert!(matches!(opened, Err(Error::Io { .. })), "byte {at}");
            }
            assert_eq!(disk.bytes(&path), before, "nothing was changed");
        }
    }
}

#[test]
fn a_full_disk_refuses_a_roll_and_the_handle_lives_on() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    let event =
        |len: usize| vec![vec![NewEvent { event_kind: 1, version: 1, keyed: false, payload: vec![9; len] }]];
    writer.append(&event(7000), 1).unwrap();
    // Operation 0 is the sync before the roll, 1 makes the file, 2 writes it: no space there.
    disk.set_fault(Some(Fault { at: 2, fatal: false, partial: 0, errno: 28 }));
    let error = writer.roll(7000).unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotWritten);
    assert!(!writer.is_failed());
    disk.set_fault(None);
    writer.append(&event(10), 1).unwrap();
    writer.roll(7000).unwrap();
    assert_eq!(writer.append(&event(7000), 1).unwrap(), 3);
    assert_eq!(read_all(&disk, None).len(), 3);
}

/// P1: the bytes of an acknowledged event are in the durable part of the disk, always.
#[test]
fn an_acknowledgement_follows_a_sync() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    for number in 0..20_u8 {
        let before = disk.syncs();
        let zeros = number % 5 == 0;
        let payload = if zeros { vec![0; 3000] } else { vec![number; 30] };
        let batch = vec![vec![NewEvent { event_kind: 1, version: 1, keyed: false, payload }]];
        if batch_len(&batch[0]) > writer.room() {
            writer.roll(batch_len(&batch[0])).unwrap();
        }
        let at = disk.syncs();
        writer.append(&batch, 1).unwrap();
        assert_eq!(
            disk.syncs() - at,
            if zeros { 2 } else { 1 },
            "a frame with a zero piece needs a synced mark"
        );
        assert!(disk.syncs() > before);
        // Of a power cut that keeps nothing but what was synced, every event comes back.
        let events = read_all(&disk.after_worst_power_cut(), None);
        assert_eq!(events.len(), usize::from(number) + 1);
    }
    assert!(disk.operations() > 0);
}

/// Beside a live writer only what is proved counts: by a later header, a mark, or a witness.
#[test]
fn a_reader_beside_a_writer_stops_at_what_is_proved() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    let seen = |witness, live| LogView::open(log_on(&disk), witness, live).unwrap().unwrap().last_seq();
    writer.append(&one(b"one"), 1).unwrap();
    assert_eq!((seen(None, true), seen(None, false)), (0, 1));
    writer.append(&one(b"two"), 1).unwrap();
    assert_eq!((seen(None, true), seen(None, false)), (1, 2));
    let (_, raw, _) = read_all(&disk, None).pop().unwrap();
    let witness = Witness { seq: 2, sum: u32::from_le_bytes([raw[40], raw[41], raw[42], raw[43]]) };
    assert_eq!(seen(Some(witness), true), 2);
    writer.mark().unwrap();
    assert_eq!(seen(None, true), 2);
    writer.append(&one(b"three"), 1).unwrap();
    assert_eq!(seen(None, true), 2);
    writer.note_tail();
    assert_eq!(seen(None, true), 3, "the file `tail` is a witness as well");
}

/// A crash may keep the last header of a group and lose the first one. Both say where the group starts;
/// the seq there is that of the first.
#[test]
fn a_reader_beside_a_recovering_writer_counts_no_event_of_a_torn_group() {
    let disk = SimDisk::default();
    disk.create_parents();
    let (mut writer, _) = open_log(&disk, None, &mut NoDonor).unwrap();
    writer.append(&one(b"one"), 1).unwrap();
    let group = writer.position().offset as usize;
    let event = |fill| NewEvent { event_kind: 1, version: 1, keyed: false, payload: vec![fill; 600] };
    writer.append(&[(1..=3).map(event).collect()], 1).unwrap();
    let path = segments(&disk).pop().unwrap();
    disk.damage(&path, |bytes| bytes[group..group.next_multiple_of(512) + 512].fill(0));
    let view = LogView::open(log_on(&disk), None, true).unwrap().unwrap();
    assert_eq!((view.last_seq(), view.proved_seq), (1, 2), "P4");
}
