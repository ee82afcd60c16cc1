#!/usr/bin/env python3
"""A second reader of synclog's log, written from the specification (the first page of src/log/mod.rs)
and not from the code of the first. It shares no line with that, so that an error in one shows as a
difference between the two. tests/independent_reader.rs compares them.

    python3 read_log.py [--payloads] STORE...     stores that nobody writes to
    python3 read_log.py [--payloads] -            their directories, one a line, on standard input

For each store it writes JSON lines: {"store"}, then for each thing in the log {"event"}, {"deleted"},
{"deletion_record"}, {"gap"}, {"damage"} or {"note"}, and at the end {"summary"}. Of a payload it shows
length and CRC-32, with --payloads every byte in hex; `content` is what follows salt and key.

It writes nothing, knows nothing of SQLite (one of the two witnesses), and holds one segment at a time.
"""
import collections
import json
import os
import re
import stat
import sys
import zlib

sys.dont_write_bytecode = True  # nothing is left beside this file

from log_format import (  # noqa: E402
    COPY, FIRST_FRAME, HEADER, KINDS, NUMBER_MAX, SEGMENT_MAX, Deleted, Entry, Position, Segment,
    SegmentHeader, deletion_record, describe_event, gap_fields, judge_tail, segment_header, seqs_used,
    unfinished_batch, walk_on, walk_valid)

# ---- Files ------------------------------------------------------------------------------------

SEGMENT_NAME = re.compile(r"[0-9]{20}\.seg\Z")


class Unreadable(Exception):
    """The system does not give the bytes: never the end of a log."""


def read_file(path, limit):
    """At most `limit` bytes of a regular file, and its length."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable("not a regular file")
            return file.read(limit), found.st_size
    except (OSError, ValueError) as error:
        raise Unreadable(str(error)) from error


def list_segments(log_dir):
    """Numbers and paths of the segments, oldest first, and the names that are no part of the log."""
    try:
        names = sorted(os.listdir(log_dir))
    except (OSError, ValueError) as error:
        raise Unreadable(str(error)) from error
    segments = [(int(name[:20]), os.path.join(log_dir, name)) for name in names if SEGMENT_NAME.match(name)]
    strange = [name for name in names if not SEGMENT_NAME.match(name) and not name.endswith(".seg.new")]
    return segments, strange


# ---- The file `tail` --------------------------------------------------------------------------

TAIL = re.compile(rb"(([0-9a-f]{32}) ([0-9]{20}) ([0-9a-f]{8})) ([0-9a-f]{8})\n\Z")
Witness = collections.namedtuple("Witness", "store seq crc")


def read_witness(path):
    """What the file `tail` says; None where it says nothing that can be trusted."""
    try:
        found = TAIL.match(read_file(path, 4096)[0])
    except Unreadable:
        return None
    if not found or int(found[5], 16) != zlib.crc32(found[1]):
        return None
    return Witness(bytes.fromhex(found[2].decode()), int(found[3]), int(found[4], 16))


# ---- A store ----------------------------------------------------------------------------------

# A segment's file. `head` is None where nothing in it can be read. `wrong` tells why it is not whole.
File = collections.namedtuple("File", "number path length head wrong")
NO_HEADER = ("no sound header", "two headers that differ")


class StoreReader:
    """Reads one store. `tell_line` is called with each line to print."""

    def __init__(self, directory, show_payloads, tell):
        self.directory, self.show_payloads, self.tell_line = directory, show_payloads, tell
        self.deleted, self.silent = Deleted(), False

    def read(self):
        """Twice: an event may be deleted by a record that stands far behind it."""
        self.silent = True
        self.pass_once()
        self.silent = False
        self.pass_once()
        self.tell_line({"summary": {
            "first_seq": self.first_seq, "last_seq": self.last_seq, "events": self.events,
            "damaged": self.damaged, "verdict": "refuse" if self.refused else self.verdict}})

    def tell(self, line):
        if not self.silent:
            self.tell_line(line)

    def damage(self, kind, path=None, at=None, first=None, last=None, refuse=False, unproved=False):
        self.damaged = True
        self.refused |= refuse
        name = os.path.basename(path) if path else None
        told = {"damage": kind, "file": name, "offset": at, "first": first, "last": last}
        self.tell(dict(told, unproved=True) if unproved else told)

    def pass_once(self):
        self.first_seq, self.last_seq, self.events = None, 0, 0
        self.damaged, self.refused, self.verdict = False, False, "clean end"
        try:
            segments, strange = list_segments(os.path.join(self.directory, "log"))
        except Unreadable as error:
            return self.damage(f"unreadable: {error}", refuse=True)
        for name in strange:
            self.tell({"note": "no part of the log", "file": name})
        witness = read_witness(os.path.join(self.directory, "tail"))
        files = self.headers(segments)
        self.store = self.store_id(files, witness)
        files = [self.own(file) for file in files]
        files = [self.without_header(file, files) for file in files]
        for file in files:
            if file.wrong:
                kind = "segment not whole: " if file.head else "bad segment: "
                self.damage(kind + file.wrong, file.path, refuse=True)
        if not any(file.head for file in files):
            lost = (1, witness.seq) if witness and witness.seq else (None, None)
            return self.damage("no segment", None, None, *lost, refuse=True)
        self.witness = witness if witness and witness.store == self.store else None
        self.walk(files)

    def headers(self, segments):
        """Reads the headers alone, which are small."""
        files = []
        for number, path in segments:
            try:
                raw, length = read_file(path, FIRST_FRAME)
                head, newer, wrong = segment_header(raw)
            except Unreadable as error:
                head, newer, wrong, length = None, False, f"unreadable: {error}", 0
            if head and head.number != number:
                head, wrong = None, "another segment's number"
            if head and head.size != length:
                wrong = "not of its size"
            if wrong == "one copy of the header":
                self.damage("damaged header copy", path, 0)
                wrong = None
            elif newer:
                self.damage("newer format", path, refuse=True)
                wrong = None
            files.append(File(number, path, length, head, wrong))
        return files

    def store_id(self, files, witness):
        """The id that most headers of whole segments have; of several, the newest header's. Where none is
        whole, that of the others; where there is none at all, the witness's."""
        for heads in ([file.head for file in files if file.head and not file.wrong],
                      [file.head for file in files if file.head]):
            count = collections.Counter(head.store for head in reversed(heads))
            if count:
                return max(count, key=lambda store: count[store])
        return witness.store if witness else None

    def own(self, file):
        if file.head is None or file.head.store == self.store:
            return file
        return file._replace(head=None, wrong=file.wrong or "of another store")

    def bytes_of(self, file, size):
        """The segment's bytes at its size: what is not there is zero, what is too much is not looked at."""
        data, _ = read_file(file.path, size)
        return Segment(data.ljust(size, b"\0"), self.store, file.number)

    def without_header(self, file, files):
        """A file without a header of its own gets what its first frame, or the segment before, tells."""
        size = -(-file.length // COPY) * COPY
        if (file.wrong not in NO_HEADER or not self.store or not 1 <= file.number <= NUMBER_MAX
                or file.length < FIRST_FRAME + HEADER or size > SEGMENT_MAX):
            return file
        try:
            start = self.start_of(file, self.bytes_of(file, size), files)
        except Unreadable:
            return file
        if start is None:
            return file
        return file._replace(head=SegmentHeader(
            b"", 1, 1, self.store, file.number, start.seq, min(1, start.seq), size, 0, start.previous, 0))

    def start_of(self, file, segment, files):
        """The position at the start of a segment without a header, or None."""
        first = segment.header(FIRST_FRAME, SEGMENT_MAX)
        if first:
            return Position(first.seq, first.previous)
        if segment.next_header(FIRST_FRAME, lambda _: True)[1] is None:
            return None
        if file.number == 1:
            return Position(1, 0)
        for before in files:
            if before.number == file.number - 1 and before.head and not before.wrong:
                data = self.bytes_of(before, before.head.size)
                position = Position(before.head.first_seq, before.head.previous)
                _, end = walk_valid(data, FIRST_FRAME, position, False)
                return position if end >= data.content_end and not position.in_batch else None
        return None

    def walk(self, files):
        """From file to file, with the position that each one leaves to the next."""
        first, retained = files[0], max((file.head.first_retained for file in files if file.head), default=1)
        position = Position(1, 0)
        if first.number > 1 or (first.head and first.head.first_seq > 1):
            position = Position(retained, None)
            if first.head and first.head.first_seq > retained:
                lost = (retained, first.head.first_seq - 1)
                self.damage("missing segment", first.path, None, *lost, refuse=True)
        self.first_seq = first.head.first_seq if first.head else position.seq
        for index, file in enumerate(files):
            if index and file.number != files[index - 1].number + 1:
                lost = (None, None)
                if file.head and file.head.first_seq > position.seq:
                    lost = (position.seq, file.head.first_seq - 1)
                    position.seq = file.head.first_seq
                self.damage("missing segment", file.path, None, *lost, refuse=True)
                position.previous = None
            self.segment(file, files[index + 1] if index + 1 < len(files) else None, position)
        if self.witness and self.witness.seq >= position.seq:
            self.verdict = "corruption"
            self.damage("missing events", files[-1].path, None, position.seq, self.witness.seq)

    def segment(self, file, after, position):
        """Reads one segment; `after` is the next file, of which the header says where this one ends."""
        if file.head is None:
            return self.skip(after, position)
        position.seq, position.previous, position.in_batch = file.head.first_seq, file.head.previous, False
        try:
            segment = self.bytes_of(file, file.head.size)
        except Unreadable as error:
            self.damage(f"unreadable: {error}", file.path, refuse=True)
            return self.skip(after, position)
        if after:
            self.sealed(segment, file.path, after, position)
        else:
            self.last(segment, file, position)

    def skip(self, after, position):
        """A segment that cannot be read: what it held shows in the next one's header."""
        if after and after.head:
            self.missing(after.head, position)

    def missing(self, tail, position, path=None, at=None):
        """The events up to the first seq of the next segment's header are missing."""
        if tail.first_seq > position.seq:
            self.damage("missing events", path, at, position.seq, tail.first_seq - 1)
            position.seq = tail.first_seq

    def sealed(self, segment, path, after, position):
        entries, end = walk_valid(segment, FIRST_FRAME, position, False)
        tail = after.head if after.number == segment.number + 1 else None
        if end < segment.content_end:
            limit = tail.first_seq if tail else NUMBER_MAX
            more, end = walk_on(segment, end, position, False, limit, tail.previous if tail else None)
            entries += more
        self.deliver(segment, path, entries)
        if tail and (tail.first_seq, tail.previous) != (position.seq, position.previous):
            if tail.first_seq > position.seq:
                self.missing(tail, position, path, end)
            elif tail.first_seq < position.seq:
                self.damage("bad segment: out of chain", after.path, refuse=True)
            else:
                self.damage("damaged frame", path, end)  # no event was in it
        elif end < segment.content_end:
            self.damage("bytes behind the last frame", path, end)

    def last(self, segment, file, position):
        path = file.path
        entries, end = walk_valid(segment, FIRST_FRAME, position, True)
        beyond = bool(self.witness and self.witness.seq >= position.seq)
        dropped = unfinished_batch(entries)
        tail = judge_tail(segment, entries, end, entries[-dropped].at if dropped else end, beyond)
        if file.wrong and (dropped or end < segment.content_end):  # no crash left it like this
            tail = tail._replace(verdict="corruption")
        self.verdict = tail.verdict
        if self.verdict == "corruption":
            more, at = walk_on(segment, end, position, True, NUMBER_MAX, None)
            if position.seq < tail.next_seq:
                more.append(Entry("damage", at, None, "missing events", position.seq, tail.next_seq - 1))
                position.seq = tail.next_seq
            if not tail.proved:  # whether any of this was ever acknowledged is not known
                more = [entry._replace(unproved=True) for entry in entries[len(entries) - dropped:] + more]
                entries = entries[:len(entries) - dropped]
            self.deliver(segment, path, entries + more)
            if not beyond and all(entry.what != "damage" for entry in more):
                self.damaged_end(segment, path, end, position)
            return
        self.deliver(segment, path, entries[:len(entries) - dropped])
        if dropped:
            self.tell({"note": "unfinished batch", "file": os.path.basename(path),
                       "offset": entries[-dropped].at})
        if self.verdict == "torn tail":
            self.tell({"note": "torn tail", "file": os.path.basename(path), "offset": end})
        elif self.verdict == "damaged filler":
            self.damage("damaged filler", path, end)

    def damaged_end(self, segment, path, end, position):
        """A frame that does not fit, and nothing behind it. A valid header tells whether it was an event."""
        head = segment.header(end)
        if head and not seqs_used(head):
            self.damage("damaged " + KINDS[head.kind], path, end, unproved=True)
        else:
            self.damage("damaged frame", path, end, position.seq, None)

    def deliver(self, segment, path, entries):
        for what, at, head, damage, first, last, unproved in entries:
            if what == "event" and not unproved and self.witness and (
                    head.seq == self.witness.seq and head.crc != self.witness.crc):
                self.damage("two histories", path, at, head.seq, head.seq)
            if what == "damage":
                self.damage(damage, path, at, first, last, unproved=unproved)
            elif what == "deletion record":
                self.record(head, segment.payload(at, head))
            elif what == "gap":
                _, given_up, when = gap_fields(head)
                if given_up:
                    self.last_seq = head.seq + given_up - 1
                    told = {"gap": [head.seq, self.last_seq], "when": when}
                    self.tell(dict(told, unproved=True) if unproved else told)
            elif what == "erased" and not self.deleted.covers(head.seq):
                self.damage("erased without a record", path, at, head.seq, head.seq)
            elif what in ("event", "erased"):
                self.last_seq = head.seq
                if self.deleted.covers(head.seq):
                    self.tell({"deleted": head.seq})
                else:
                    self.events += 1
                    payload = b"" if self.silent else segment.payload(at, head)
                    told = describe_event(head, payload, self.show_payloads)
                    self.tell(dict(told, unproved=True) if unproved else told)

    def record(self, head, payload):
        record = deletion_record(head, payload)
        if record is None:
            return self.tell({"note": "a deletion record that is passed over", "before": head.seq})
        if self.silent:
            self.deleted.records.append((head.seq, record[2]))
        self.tell({"deletion_record": record[2], "reason": record[0], "cut_off": record[1], "time": head.time,
                   "before": head.seq})


def main(arguments):
    show_payloads = "--payloads" in arguments
    stores = [argument for argument in arguments if argument != "--payloads"]
    if stores == ["-"]:
        sys.stdin.reconfigure(errors="surrogateescape")
        stores = [line.rstrip("\n") for line in sys.stdin]
    if not stores:
        sys.exit(__doc__)
    for store in stores:
        def tell(line):
            print(json.dumps(line))
        tell({"store": store})
        StoreReader(store, show_payloads, tell).read()


if __name__ == "__main__":
    main(sys.argv[1:])
