//! The log: an append-only sequence of checksummed frames in segment files. This page is the
//! specification of format version 1. A reader of a log that was closed can be written from it alone;
//! what a crash or damage leaves at the end is judged by the table in [`recovery`].
//!
//! The log knows bytes: kinds, versions and payloads that it does not look into. Its code names no
//! event type and no database; this page does where the reason for something lies there. Read next: [`frame`] (pure bytes), [`recovery`] (the torn-or-corrupt table),
//! [`survey`] (the walk that gathers its evidence), [`writer`] (append).
//!
//! # Files
//!
//! A store is a directory. The log is its directory `log`, with one file for each segment, named by
//! the segment's number in 20 decimal digits and `.seg`: `00000000000000000001.seg`. Numbers go up
//! by one. Files that end in `.seg.new` are segments in the making; they are never read, and the
//! next writer removes them. Files with other names are no part of the log. The first number is 1,
//! unless retention has dropped whole segments: then the first segment's first seq is at most the
//! first retained seq of the newest header. Anything else that is missing in between is damage. That
//! the newest segments are missing as whole files cannot be seen from the log alone.
//!
//! All numbers are unsigned and little-endian unless it says otherwise. All checksums are
//! CRC-32/IEEE (reflected polynomial `EDB88320`, start and final XOR `FFFFFFFF`, as in zip and PNG;
//! the check value of `123456789` is `CBF43926`).
//!
//! # A segment
//!
//! A segment has its final size from the start: it is written as zeros, with its header, under the
//! temporary name, synced, renamed into place, and its directory synced, before the first frame goes
//! in. It never grows and is never used again for anything else. Bytes behind the last frame are
//! zero. The file's length equals the size in its header, at most 128 MiB.
//!
//! The header stands twice, at offset 0 and at offset 4096, in equal copies of 4096 bytes. The first
//! frame starts at offset 8192.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `SYNCLOG` and a line feed: `53 59 4E 43 4C 4F 47 0A` |
//! | 8 | 4 | format version: 1 |
//! | 12 | 4 | checksum algorithm: 1, CRC-32/IEEE |
//! | 16 | 16 | store id, the same in all segments of a store |
//! | 32 | 8 | segment number, as in the file's name |
//! | 40 | 8 | first seq: the seq that the first event in this segment has or will have |
//! | 48 | 8 | first retained seq: events below it were given up by retention; at most the first seq |
//! | 56 | 8 | size of the file in bytes |
//! | 64 | 8 | when the segment was made, microseconds since 1970, signed |
//! | 72 | 4 | header checksum of the last frame of the segment before; 0 in segment 1 |
//! | 76 | 4 | CRC-32 of bytes 0 to 75, without a seed |
//! | 80 | 4016 | zero |
//!
//! A copy is sound if the first 8 bytes and the checksum fit, version and algorithm are 1, number and
//! first seq are from 1 to 2^62, the size is from 8192 to 134,217,728, and the padding is zero.
//! One sound copy is enough; two sound copies that differ are damage. The last frame of the segment
//! before may be of any kind. Times need not rise. Magic, version and the place of the checksum stay
//! in every later version: a copy with fitting magic and checksum and a version above 1 is of a newer
//! format, and nothing else may be concluded from it.
//!
//! # A frame
//!
//! A frame is a header of 48 bytes and a body. It starts at a multiple of 8 and its length is a
//! multiple of 8; the next frame starts where it ends.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | `F1` |
//! | 1 | 1 | kind: 1 event, 2 mark, 3 deletion record, 4 gap |
//! | 2 | 2 | event type: the number that an event type has in its store; 0 for marks and deletion records |
//! | 4 | 2 | version of the payload's encoding; 0 for marks |
//! | 6 | 1 | flags, of events only, added up: 1 the batch goes on with the next frame, 2 the payload has an idempotency key |
//! | 7 | 1 | zero |
//! | 8 | 8 | seq, 1 to 2^62: the event's own; for other kinds the seq that the next event has |
//! | 16 | 8 | append time, microseconds since 1970, signed; 0 for marks |
//! | 24 | 4 | payload length in bytes, at most 16,778,240 (16 MiB and 1 KiB); 0 for marks |
//! | 28 | 4 | `durable_end`: see below; for a mark its own offset |
//! | 32 | 4 | header checksum of the frame before; for a segment's first frame the one in the segment's header |
//! | 36 | 4 | body checksum |
//! | 40 | 4 | header checksum |
//! | 44 | 3 | zero |
//! | 47 | 1 | `1F` |
//!
//! A gap has other fields in bytes 2 to 5 and 16 to 23:
//!
//! | offset | bytes | field of a gap |
//! |---|---|---|
//! | 2 | 4 | what the next frame names as the header checksum of the frame before it |
//! | 16 | 4 | how many events were given up; its seq is that of the first one |
//! | 20 | 4 | when, seconds since 1970, unsigned |
//!
//! The body is the payload, then as many zeros as make its length a multiple of 8 together with one
//! last byte, `5A`. So it has `(payload length + 1)` bytes, rounded up to a multiple of 8.
//!
//! Both checksums are seeded, so that bytes copied from elsewhere never fit: each is the CRC-32 of
//! the 16 bytes of the store id, the segment number (8 bytes), an offset (8 bytes), and then the data.
//! For the header the offset is where the frame starts in its file, and the data are header bytes 0
//! to 39 and 44 to 47. For the body the offset is where the body starts, and the data are the whole
//! body. The chain is one of headers: an erased payload leaves it whole.
//!
//! # When a frame is valid
//!
//! Conditions 1 to 6 make a *valid header*, all nine a *valid frame*. Walking a segment means
//! starting at offset 8192 with the first seq and the previous checksum of its header.
//!
//! 1. It starts at a multiple of 8, at 8192 or later, and the segment has at least 48 bytes from there.
//! 2. Byte 0 is `F1`, byte 47 is `1F`, bytes 7 and 44 to 46 are zero.
//! 3. The header checksum fits.
//! 4. The kind is known; an event has an event type other than 0 and no flags but 1 and 2; the
//!    others have no flags; marks and deletion records have event type 0; a mark has version, append
//!    time and payload length 0 and its own offset as `durable_end`; the seq is in its range, and that of a
//!    gap is so still when the number of events that it gave up is added.
//! 5. The payload length is within its limit and the whole frame lies inside the segment.
//! 6. `durable_end` is a multiple of 8, at least 8192, and at most the frame's own offset.
//! 7. The previous checksum is the header checksum of the frame before, or what a gap there says.
//! 8. The seq is the next one: the segment's first seq, or one more than that of the last event in it.
//!    Marks and deletion records use no seq up, a gap as many as it gave up. Inside a batch only events
//!    and gaps follow; a gap ends the batch before it, and what follows may be the rest of one.
//! 9. The body checksum fits. It covers padding and last byte, which are not looked at otherwise.
//!
//! An event frame that meets 1 to 8 but not 9, and whose body is zeros and a last byte `5A`, is
//! *erased*. Its header, the body checksum included, stays as it was written. It counts as valid in a
//! segment that is not the last, and only where a deletion record further on covers its seq.
//!
//! A walk ends where no valid frame follows. In a segment with a later one, the walk must end at the
//! first seq and the previous checksum that the later header names, and only zeros may follow. In the
//! last segment it ends cleanly where only zeros, or nothing, follow. A batch of which the last event
//! is missing there is not delivered: it was never acknowledged, and the next writer takes it away.
//!
//! # Gaps
//!
//! A gap stands where frames were lost that nothing could bring back, and that the owner of the store has
//! given up. It fills the place of what was lost up to the next frame that is whole, with a payload of
//! zeros, or has no payload where nothing followed. One that would be too long is followed by others that give no event
//! up. Everything it says is in its header. It takes the chain up where the lost frames left it: the frame
//! behind it names the header checksum of a frame that is no more. Where whole segments were lost, new
//! ones stand in their place: a gap is the first frame of the first of them, and the others hold no frame. Seqs
//! that were given up are never used again. For a witness (see below) a gap stands for the last event that it gave up,
//! with its own header checksum; another checksum for an event of a gap means nothing.
//!
//! # Payloads
//!
//! The payload of an event starts with 8 bytes of salt, drawn at random, so that what stays in the
//! header of an erased event says nothing about it. With flag 2 the length of the key (2 bytes) and
//! the key (UTF-8, 1 to 255 bytes) come next. The rest belongs to the event's type and version. An
//! event type or version that a reader does not know, or a payload too short for salt and key, is kept
//! and passed over. The payload limit counts all of it.
//!
//! The payload of a deletion record, version 1:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | reason: 1 retention, or taken back where there is no cut-off; 2 erasure |
//! | 1 | 7 | zero |
//! | 8 | 32 | keyed hash of what was erased; zeros for retention |
//! | 40 | 8 | cut-off, by the events' own time, which the log does not look into: events at or after it were spared; microseconds since 1970, signed; 2^63 - 1 for none |
//! | 48 | 8 | number of stretches |
//! | 56 | 16 each | first and last seq of a stretch, ascending, without overlaps; stretches may touch |
//!
//! The payload has 56 bytes and 16 for each stretch; one that does not fit this table is passed over.
//! A reader cannot check the hash. A record is durable, and a new segment begun, before any payload is
//! erased; an event that a record covers is deleted, whatever its body holds.
//!
//! # A segment that is not whole
//!
//! A file is *not whole* where its length is not the size in its header, or where it has no header: no copy is sound,
//! or two differ. No crash makes such a file, so nothing is appended until it is mended. What is sound in it is
//! read all the same, and what is missing is named, as far as its header is known:
//!
//! - A file of another length is read at the size in its header, or in the first copy where there is no room for two.
//!   What was cut off counts as zeros, what is too much is not looked at.
//! - A file without a header, of at least 8240 bytes, counts as a segment with the number in its name and with its
//!   length, rounded up to a multiple of 4096 and at most 128 MiB, as its size. Its first seq and previous checksum
//!   are those of the header at offset 8192, if that is valid in a segment of 128 MiB. Otherwise, if there is a
//!   valid header anywhere in it, they are where the segment before ends, if that is whole, all its frames are valid,
//!   and no batch is open; for segment 1 they are 1 and 0.
//!
//! The store is the one that most whole segments name; where none is whole, most other headers; where there are no
//! others, the file `tail` (see below). Of equals it is the one of the latest segment. A file of another store or
//! another number is not read, nor one of which the header stays unknown: its events are missing, up to the first seq
//! of the next segment. Where nothing can be read, all events up to that of a witness (see below) are missing.
//!
//! At the end of the last segment, if it is not whole, nothing is a torn tail, and an open batch is damage like any other: what
//! it lacks may have stood in what is gone. Whether more events stood there, nothing in the file tells.
//!
//! # Writing, and what a reader may conclude
//!
//! A *group* is what one sync makes durable: whole batches, in one segment, at most 34 MiB. An
//! append is acknowledged after the sync of its group has succeeded. The first byte of a group is
//! written only after the sync of the group before it has succeeded, so at most one group is in
//! flight. A group that does not fit into the rest of a segment goes into a new one. A writer whose
//! write or sync has failed writes nothing more.
//!
//! `durable_end` is the offset in this segment up to which the writer had proved the log durable when
//! it built the header: by a sync that had succeeded, or by writing again and syncing what it found
//! when it opened the log. In a new segment it is 8192. So any valid header, whatever became of its
//! payload, at any multiple of 8 and in the chain or not, proves all bytes before its `durable_end`,
//! and all segments before its own. It is where a frame ends, the same for all frames of a group, and
//! never smaller than in the frame before.
//!
//! A *mark* is written when the log falls idle and when it is closed. It proves the last group, and
//! needs no sync of its own; the `durable_end` of the next group is then where the mark starts. Where a
//! frame wholly holds an aligned 512-byte sector of the file that is all zero, its group is
//! acknowledged only after a mark behind it was synced as well.
//!
//! What a writer has open stays writable when somebody takes it away. So before a group is written, and again
//! between its sync and the acknowledgement, the path must still lead to the newest segment and to the lock that
//! the writer holds, in the process that opened them, and the bytes to be written over must be zeros. Everything
//! of the log is reached from the directories that were opened, never by a path that is looked up anew.
//!
//! Before a new segment is made, everything in the last one is synced. The new segment's header tells
//! where the last one ended (first seq and previous checksum), and its being there proves that.
//!
//! The last segment may hold no frame yet. It may also end in what a crash left: [`recovery`] tells
//! how that is told from damage. A writer copies what a crash left there to `quarantine`, writes zeros
//! in its place, and writes again and syncs what no `durable_end` proves, before it appends. Beside a
//! live writer (it holds an exclusive `flock` on the directory `log`, and one on the file `lock` in the store's
//! directory, which is all that older programs look at) a reader goes
//! no farther than the largest `durable_end` in any valid header of the last segment, 8192 if there is
//! none, and to the event of a witness (see below): what follows may be half written, which is no damage.
//!
//! # What cannot be known
//!
//! Without a write *after* the sync, "a crash before the last group was complete" and "the last group
//! was complete, and the disk zeroed a sector of it later" are the same bytes. A mark tells the two apart,
//! unless it lies in that sector as well. So there are two witnesses outside the segments: the applied
//! seq in SQLite, and the file `tail` in the store's directory ([`tail`]), one line with the store id,
//! the seq of the newest event when the log last fell idle or was closed, the header checksum of its
//! frame, and a CRC-32 of these. A witness that names another checksum for an event that the log holds speaks of
//! another history of the store (a copy that went on elsewhere, say): this event counts as damaged, is shown all the
//! same, and nothing is appended until somebody has chosen. Whoever puts back an older copy of the
//! whole store, or rewrites log and database together, is not caught by anything inside the store.

pub(crate) mod cursor;
pub(crate) mod damage;
pub(crate) mod deletion;
pub(crate) mod directory;
pub(crate) mod event_kind;
pub(crate) mod fork;
pub(crate) mod frame;
#[cfg(test)]
mod golden_tests;
pub(crate) mod heal;
pub(crate) mod loss;
pub(crate) mod lost_records;
pub(crate) mod open;
pub(crate) mod places;
pub(crate) mod quarantine;
pub(crate) mod recovery;
mod remake;
mod row_walk;
mod salvage;
pub(crate) mod segment;
pub(crate) mod survey;
pub(crate) mod tail;
pub(crate) mod view;
pub(crate) mod writer;
