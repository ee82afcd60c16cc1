"""The log's bytes, as the first page of src/log/mod.rs specifies them, and the torn-or-corrupt table. No
file is touched here: see read_log.py, which reads a store with this.
"""
import bisect
import collections
import struct
import zlib

SEGMENT_MAX = 128 * 1024 * 1024
NUMBER_MAX = 2**62  # of segment numbers and seqs
FIRST_FRAME = 8192
COPY = 4096
SECTOR = 512
GROUP_MAX = 34 * 1024 * 1024
PAYLOAD_MAX = 16_778_240


# ---- A segment's header -----------------------------------------------------------------------

SegmentHeader = collections.namedtuple(
    "SegmentHeader",
    "magic version algorithm store number first_seq first_retained size made_at previous crc")
SEGMENT_HEADER = struct.Struct("<8sII16sQQQQqII")


def segment_copy(raw):
    """One copy of the header: (header or None, whether it is of a newer format)."""
    if len(raw) < COPY:
        return None, False
    head = SegmentHeader(*SEGMENT_HEADER.unpack_from(raw))
    if head.magic != b"SYNCLOG\n" or head.crc != zlib.crc32(raw[:76]):
        return None, False
    if head.version > 1:
        return None, True
    sound = (head.version == 1 and head.algorithm == 1 and 1 <= head.number <= NUMBER_MAX
             and 1 <= head.first_seq <= NUMBER_MAX and head.first_retained <= head.first_seq
             and FIRST_FRAME <= head.size <= SEGMENT_MAX and not any(raw[80:COPY]))
    return (head, False) if sound else (None, False)


def segment_header(raw):
    """(header or None, newer format, what is wrong or None) from a segment's first 8192 bytes."""
    copies = [segment_copy(raw[at:at + COPY]) for at in (0, COPY)]
    heads = [head for head, _ in copies]
    if any(newer for _, newer in copies):
        return None, True, "a newer format"
    if heads[0] and heads[1]:
        return (heads[0], False, None) if heads[0] == heads[1] else (None, False, "two headers that differ")
    head = heads[0] or heads[1]
    return head, False, "one copy of the header" if head else "no sound header"


# ---- A frame ----------------------------------------------------------------------------------

EVENT, MARK, DELETION, GAP = 1, 2, 3, 4
GOES_ON, HAS_KEY = 1, 2  # flags
FrameHeader = collections.namedtuple(
    "FrameHeader", "first kind type version flags zero seq time length durable_end previous body_crc crc"
                   " zeros last")
FRAME_HEADER = struct.Struct("<BBHHBBQqIIIII3sB")
HEADER = 48


def gap_fields(head):
    """What a gap has in the place of type, version and time: the checksum that the chain goes on with, how
    many events were given up, and when, in seconds."""
    return head.type | head.version << 16, head.time & 0xFFFFFFFF, head.time >> 32 & 0xFFFFFFFF


def seqs_used(head):
    return {EVENT: 1, GAP: gap_fields(head)[1]}.get(head.kind, 0)


def link(head):
    """What the next frame names as the header checksum of the frame before it."""
    return gap_fields(head)[0] if head.kind == GAP else head.crc


class Segment:
    """The bytes of one segment, and what its seeds need."""

    def __init__(self, data, store, number):
        self.data, self.store, self.number = data, store, number
        self.content_end = len(data.rstrip(b"\0"))  # only zeros follow

    def checksum(self, offset, *parts):
        crc = zlib.crc32(self.store + struct.pack("<QQ", self.number, offset))
        for part in parts:
            crc = zlib.crc32(part, crc)
        return crc

    def header_sum_fits(self, at):
        """Conditions 1 to 3."""
        data = self.data
        if at % 8 or at < FIRST_FRAME or at + HEADER > len(data):
            return False
        return (data[at] == 0xF1 and data[at + 47] == 0x1F and data[at + 7] == 0
                and not any(data[at + 44:at + 47])
                and struct.unpack_from("<I", data, at + 40)[0]
                == self.checksum(at, data[at:at + 40], data[at + 44:at + 48]))

    def header(self, at, size=None):
        """The valid header at an offset (conditions 1 to 6), or None. `size` is that of the segment, where the
        bytes do not tell it."""
        if not self.header_sum_fits(at):
            return None
        head = FrameHeader(*FRAME_HEADER.unpack_from(self.data, at))
        if head.kind == EVENT:
            known = head.type != 0 and not head.flags & ~(GOES_ON | HAS_KEY)
        elif head.kind == MARK:
            known = (head.type, head.version, head.flags, head.time, head.length, head.durable_end) == (
                0, 0, 0, 0, 0, at)
        elif head.kind == GAP:
            known = head.flags == 0 and head.seq + seqs_used(head) <= NUMBER_MAX
        else:
            known = head.kind == DELETION and head.type == 0 and head.flags == 0
        inside = head.length <= PAYLOAD_MAX and frame_end(at, head) <= (size or len(self.data))
        proof = head.durable_end % 8 == 0 and FIRST_FRAME <= head.durable_end <= at
        return head if known and 1 <= head.seq <= NUMBER_MAX and inside and proof else None

    def payload(self, at, head):
        return self.data[at + HEADER:at + HEADER + head.length]

    def body_fits(self, at, head):
        """Condition 9."""
        return self.checksum(at + HEADER, self.data[at + HEADER:frame_end(at, head)]) == head.body_crc

    def is_erased(self, at, head):
        """An event whose body is zeros and a last byte."""
        body = self.data[at + HEADER:frame_end(at, head)]
        return head.kind == EVENT and body[-1] == 0x5A and not any_nonzero(body[:-1])

    def next_header(self, at, accept):
        """The first acceptable valid header from an offset on, in the chain or not."""
        while True:
            at = self.data.find(b"\xf1", at)
            if at < 0:
                return None, None
            head = self.header(at)
            if head and accept(head):
                return at, head
            at = at // 8 * 8 + 8


def frame_end(at, head):
    return at + HEADER + (head.length // 8 + 1) * 8


def any_nonzero(data):
    return data.count(0) != len(data)


# ---- Walking a segment ------------------------------------------------------------------------

# What a walk meets. `what` is a name from KINDS, or erased, or damage. Damage has no header, but a name and
# the first and last seq that it takes away, which may be None. `unproved`: it lies where the log is damaged,
# and nothing vouches for it.
Entry = collections.namedtuple("Entry", "what at head damage first last unproved",
                               defaults=(None, None, None, None, False))
KINDS = {EVENT: "event", MARK: "mark", DELETION: "deletion record", GAP: "gap"}


class Position:
    """What the next frame must have: its seq, the header checksum before it (None: not known), and
    whether a batch goes on."""

    def __init__(self, seq, previous):
        self.seq, self.previous, self.in_batch = seq, previous, False

    def fits(self, head):
        """Conditions 7 and 8."""
        return (head.seq == self.seq and self.previous in (None, head.previous)
                and (head.kind in (EVENT, GAP) or not self.in_batch))

    def step(self, head):
        self.previous, self.seq = link(head), head.seq + seqs_used(head)
        self.in_batch = head.kind == EVENT and bool(head.flags & GOES_ON)


def walk_valid(segment, at, position, is_last):
    """Valid frames from an offset on: their entries, and the first offset where none follows."""
    entries = []
    while True:
        head = segment.header(at)
        if not head or not position.fits(head):
            return entries, at
        if segment.body_fits(at, head):
            what = KINDS[head.kind]
        elif not is_last and segment.is_erased(at, head):
            what = "erased"  # as far as this segment can tell
        else:
            return entries, at
        entries.append(Entry(what, at, head))
        position.step(head)
        at = frame_end(at, head)


def walk_on(segment, at, position, is_last, limit, vouched):
    """Goes on behind damage at an offset: what is sound there stays readable. The next header that is
    valid, of the expected seq or a later one, tells which seqs are missing in between. One that does not
    fit where the walk ended leaves no room for what it says is missing, and is not it. It is vouched for by
    a header that follows it in the chain, or by its checksum being `vouched` for elsewhere."""
    entries, resumed, loose = [], None, False
    while True:
        head = segment.header(at)
        if head and position.fits(head):  # only its body is damaged
            lost = (head.seq, head.seq) if head.kind == EVENT else (None, None)
            if at == resumed and head.kind == GAP:  # neither a chain nor its body vouches for what it gave up
                lost = (head.seq, head.seq + seqs_used(head) - 1)
            entries.append(Entry("damage", at, None, "damaged " + KINDS[head.kind], *lost))
            position.step(head)
            at, loose = frame_end(at, head), False
        else:
            found, head = segment.next_header(at + 8, lambda head: position.seq <= head.seq <= limit)
            if found is None:
                return entries, at
            lost = (position.seq, head.seq - 1) if head.seq > position.seq else (None, None)
            entries.append(Entry("damage", at, None, "damaged frame", *lost))
            position.seq, position.previous, position.in_batch, at = head.seq, None, False, found
            follows = segment.header(frame_end(at, head))
            resumed = found
            loose = link(head) != vouched and not (follows and follows.previous == link(head))
        more, at = walk_valid(segment, at, position, is_last)
        if loose and more:
            more[0] = more[0]._replace(unproved=True)
        entries.extend(more)
        if at >= segment.content_end:
            return entries, at


# ---- The end of the last segment: torn or corrupt? --------------------------------------------

Tail = collections.namedtuple("Tail", "verdict proved next_seq")


def judge_tail(segment, entries, end, kept_end, witness_beyond):
    """The verdict about the first offset where no valid frame follows, `end`. What is to be kept ends at
    `kept_end`, before an unfinished batch. Also whether it is proved that more was there, and the seq
    behind all that any valid header names."""
    proved = max((entry.head.durable_end for entry in entries), default=FIRST_FRAME)
    next_seq, at = 0, end
    while True:
        at, head = segment.next_header(at, lambda _: True)
        if head is None:
            break
        proved = max(proved, head.durable_end)
        if at > end:
            next_seq = max(next_seq, head.seq + seqs_used(head))
        at += 8
    more = proved > kept_end or witness_beyond
    return Tail("corruption" if more else judge_unproved(segment, end), more, next_seq)


def judge_unproved(segment, end):
    if end >= segment.content_end:
        return "clean end"
    extent = end + HEADER
    if segment.header(end):
        extent = frame_end(end, segment.header(end))
    if has_zero_piece(segment.data, end, min(extent, len(segment.data))):
        return "torn tail" if segment.content_end - end <= GROUP_MAX else "damaged filler"
    return "corruption"


def has_zero_piece(data, start, end):
    """Whether a piece of start..end, cut at sector boundaries, is all zero."""
    while start < end:
        stop = min(end, start // SECTOR * SECTOR + SECTOR)
        if not any_nonzero(data[start:stop]):
            return True
        start = stop
    return False


def unfinished_batch(entries):
    """How many entries at the end belong to a batch of which the last event is missing."""
    count = 0
    for entry in reversed(entries):
        if entry.what != "event" or not entry.head.flags & GOES_ON:
            break
        count += 1
    return count


# ---- Payloads ---------------------------------------------------------------------------------

def describe_event(head, payload, show_payloads):
    """The fields of an event. `content` is missing where the payload is too short for salt and key."""
    told = {"event": head.seq, "type": head.type, "version": head.version, "flags": head.flags,
            "time": head.time, "length": head.length, "crc32": zlib.crc32(payload)}
    start = 8
    if head.flags & HAS_KEY and len(payload) >= 10:
        start = 10 + struct.unpack_from("<H", payload, 8)[0]
        try:
            told["key"] = payload[10:start].decode("utf-8")
        except UnicodeDecodeError:
            told["key"] = None
        if not 11 <= start <= 265 or told["key"] is None:
            start = len(payload) + 1
    elif head.flags & HAS_KEY:
        start = len(payload) + 1
    if start <= len(payload):
        told["content"] = {"length": len(payload) - start, "crc32": zlib.crc32(payload[start:])}
    else:
        told.pop("key", None)
    if show_payloads:
        told["payload"] = payload.hex()
    return told


def deletion_record(head, payload):
    """(reason, cut-off, stretches) of a deletion record; None where its payload does not fit the table."""
    if head.version != 1 or len(payload) < 56:
        return None
    reason, zeros, _, cut_off, count = struct.unpack_from("<B7s32sqQ", payload)
    if reason not in (1, 2) or any(zeros) or len(payload) != 56 + 16 * count:
        return None
    stretches, before = [], 0
    for first, last in struct.iter_unpack("<QQ", payload[56:]):
        if not before < first <= last:
            return None
        stretches.append((first, last))
        before = last
    return reason, cut_off, stretches


class Deleted:
    """What the deletion records cover: for each record its own seq and its stretches."""

    def __init__(self):
        self.records = []

    def covers(self, seq):
        """Whether a record further on covers a seq."""
        for own, stretches in self.records:
            index = bisect.bisect_right(stretches, (seq, NUMBER_MAX * 4)) - 1
            if seq < own and index >= 0 and seq <= stretches[index][1]:
                return True
        return False
