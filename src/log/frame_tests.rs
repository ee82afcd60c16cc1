//! Frames without a file: every field, every condition, every limit.

use super::*;

fn seed() -> Seed {
    Seed::new(StoreId([7; 16]), 1)
}

fn draft(payload: &[u8]) -> Draft<'_> {
    Draft {
        kind: FrameKind::Event,
        event_kind: 1,
        version: 1,
        flags: FLAG_MORE,
        seq: 9,
        appended_at: -5,
        durable_end: 8192,
        previous: 77,
        payload,
    }
}

#[test]
fn a_frame_decodes_to_what_was_encoded() {
    for len in [0_usize, 1, 6, 7, 8, 9, 511, 512, 5000] {
        let payload: Vec<u8> = (0..len).map(|index| index as u8).collect();
        let mut out = Vec::new();
        let sum = encode(&seed(), 8192, &draft(&payload), &mut out);
        assert_eq!(out.len() as u64, frame_len(len as u32));
        assert!(out.len().is_multiple_of(8) && out[0] != 0 && out[47] != 0 && *out.last().unwrap() != 0);
        let header = decode_header(&seed(), 8192, &out, 8192, 1 << 20).unwrap();
        assert_eq!((header.seq, header.appended_at, header.previous, header.sum), (9, -5, 77, sum));
        assert!(header.more() && header.payload_len == len as u32);
        assert_eq!(seed().body_sum(8192, &out[HEADER_LEN..]), header.body_sum);
        assert_eq!(body_of(&payload), out[HEADER_LEN..]);
    }
}

#[test]
fn no_flipped_bit_passes_and_no_other_place_fits() {
    let mut out = Vec::new();
    encode(&seed(), 8192, &draft(b"payload"), &mut out);
    for bit in 0..HEADER_LEN * 8 {
        out[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_header(&seed(), 8192, &out, 8192, 1 << 20).is_err(), "bit {bit}");
        out[bit / 8] ^= 1 << (bit % 8);
    }
    let header = decode_header(&seed(), 8192, &out, 8192, 1 << 20).unwrap();
    for bit in HEADER_LEN * 8..out.len() * 8 {
        out[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(seed().body_sum(8192, &out[HEADER_LEN..]), header.body_sum, "bit {bit}");
        out[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(decode_header(&seed(), 8200, &out, 8192, 1 << 20), Err(HeaderFault::Checksum));
    let other_segment = Seed::new(StoreId([7; 16]), 2);
    assert_eq!(decode_header(&other_segment, 8192, &out, 8192, 1 << 20), Err(HeaderFault::Checksum));
    let other_store = Seed::new(StoreId([8; 16]), 1);
    assert_eq!(decode_header(&other_store, 8192, &out, 8192, 1 << 20), Err(HeaderFault::Checksum));
}

#[test]
fn lengths_and_durable_ends_beyond_their_limits_are_refused() {
    let mut out = Vec::new();
    encode(&seed(), 8192, &draft(&[1; 100]), &mut out);
    assert_eq!(decode_header(&seed(), 8192, &out, 8192, 8192 + 100), Err(HeaderFault::Length));
    let mut out = Vec::new();
    encode(&seed(), 8192, &Draft { durable_end: 8200, ..draft(b"") }, &mut out);
    assert_eq!(decode_header(&seed(), 8192, &out, 8192, 1 << 20), Err(HeaderFault::DurableEnd));
    let mut out = Vec::new();
    encode(&seed(), 9000, &Draft { durable_end: 8192, ..Draft::mark(9000, 3, 1) }, &mut out);
    assert_eq!(decode_header(&seed(), 9000, &out, 8192, 1 << 20), Err(HeaderFault::Fields));
    assert_eq!(decode_header(&seed(), 9000, &[0; 48], 8192, 1 << 20), Err(HeaderFault::Zero));
    assert_eq!(decode_header(&seed(), 9000, &[0; 47], 8192, 1 << 20), Err(HeaderFault::NoRoom));
}

/// The header of a frame with the given bytes changed, and a checksum that fits again.
fn changed(offset: u64, draft: &Draft<'_>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&seed(), offset, draft, &mut out);
    change(&mut out);
    let sum = seed().header_sum(offset, &out).to_le_bytes();
    out[HEADER_SUM_AT..HEADER_SUM_AT + 4].copy_from_slice(&sum);
    out
}

fn decoded(raw: &[u8]) -> Result<Header, HeaderFault> {
    decode_header(&seed(), 9000, raw, 8192, 1 << 30)
}

/// Conditions 1, 2 and 4, each broken alone, with a checksum that fits.
#[test]
fn each_condition_alone_refuses_a_header() {
    let (event, mark) = (draft(b"payload"), Draft::mark(9000, 3, 1));
    let deletion = Draft { kind: FrameKind::Deletion, event_kind: 0, flags: 0, ..draft(b"record") };
    let gap = Draft::gap(3, Gap { events: 2, accepted_at: 1, goes_on: 0x0203_0405 }, 8192, 1, &[]);
    for draft in [&event, &mark, &deletion, &gap] {
        assert_eq!(decoded(&changed(9000, draft, |_| {})).map(|header| header.kind), Ok(draft.kind));
        let sound = changed(9000, draft, |_| {});
        assert_eq!(decode_header(&seed(), 9004, &sound, 8192, 1 << 30), Err(HeaderFault::NoRoom));
        assert_eq!(decode_header(&seed(), 9000, &sound, 9008, 1 << 30), Err(HeaderFault::NoRoom));
        for at in [0, 7, 44, 45, 46, 47] {
            let raw = changed(9000, draft, |raw| raw[at] ^= 0x80);
            assert_eq!(decoded(&raw), Err(HeaderFault::Magic), "byte {at}");
            assert_eq!(may_be_header(&raw), at != 0 && at != 47);
        }
        // An unknown kind, an unknown flag, the seq 0 and one beyond the last.
        for (at, bytes) in [(1, &[9][..]), (6, &[4]), (8, &[0; 8]), (8, &(MAX_SEQ + 1).to_le_bytes())] {
            let raw = changed(9000, draft, |raw| raw[at..at + bytes.len()].copy_from_slice(bytes));
            assert_eq!(decoded(&raw), Err(HeaderFault::Fields), "{:?}, byte {at}", draft.kind);
        }
    }
    let last = Draft { seq: MAX_SEQ, ..event };
    assert_eq!(decoded(&changed(9000, &last, |_| {})).map(|header| header.seq), Ok(MAX_SEQ));
    // What a kind fixes.
    let fixed = [
        (&event, 2, vec![0, 0]),
        (&deletion, 2, vec![1, 0]),
        (&deletion, 6, vec![1]),
        (&gap, 6, vec![1]),
        (&mark, 2, vec![1, 0]),
        (&mark, 4, vec![1, 0]),
        (&mark, 6, vec![1]),
        (&mark, 16, vec![1]),
        (&mark, 24, vec![1]),
        (&mark, 28, 8192_u32.to_le_bytes().to_vec()),
    ];
    for (draft, at, bytes) in fixed {
        let raw = changed(9000, draft, |raw| raw[at..at + bytes.len()].copy_from_slice(&bytes));
        assert_eq!(decoded(&raw), Err(HeaderFault::Fields), "{:?}, byte {at}", draft.kind);
    }
    // A gap must not lead beyond the last seq.
    let far = Gap { events: 2, accepted_at: 1, goes_on: 0 };
    assert_eq!(decoded(&changed(9000, &Draft::gap(MAX_SEQ - 2, far, 8192, 1, &[]), |_| {})).err(), None);
    for seq in [MAX_SEQ - 1, MAX_SEQ] {
        let raw = changed(9000, &Draft::gap(seq, far, 8192, 1, &[]), |_| {});
        assert_eq!(decoded(&raw), Err(HeaderFault::Fields));
    }
}

/// Conditions 5 and 6, at their limits.
#[test]
fn limits_are_where_the_format_says() {
    assert_eq!((MAX_PAYLOAD, MARK_LEN, MAX_SEQ), (16_778_240, 56, 4_611_686_018_427_387_904));
    let with_len =
        |len: u32| changed(9000, &draft(b""), |raw| raw[24..28].copy_from_slice(&len.to_le_bytes()));
    assert_eq!(decoded(&with_len(MAX_PAYLOAD)).map(|header| header.payload_len), Ok(MAX_PAYLOAD));
    assert_eq!(decoded(&with_len(MAX_PAYLOAD + 1)), Err(HeaderFault::Length));
    let raw = with_len(100);
    assert_eq!(decode_header(&seed(), 9000, &raw, 8192, 9000 + frame_len(100)).err(), None);
    let short = decode_header(&seed(), 9000, &raw, 8192, 9000 + frame_len(100) - 1);
    assert_eq!(short, Err(HeaderFault::Length));
    for (durable_end, fits) in [(8191, false), (8192, true), (8996, false), (9000, true), (9008, false)] {
        let raw = changed(9000, &Draft { durable_end, ..draft(b"") }, |_| {});
        let expected = if fits { None } else { Some(HeaderFault::DurableEnd) };
        assert_eq!(decoded(&raw).err(), expected, "durable_end {durable_end}");
    }
}

/// What a gap says comes back, and an erased body is told from any other.
#[test]
fn gaps_and_erased_bodies_are_known() {
    let gap = Gap { events: 0x0102_0304, accepted_at: 0x0506_0708, goes_on: 0x090A_0B0C };
    let header = decoded(&changed(9000, &Draft::gap(5, gap, 8192, 1, &[]), |_| {})).unwrap();
    assert_eq!(header.gap(), Some(gap));
    assert_eq!((header.next_seq(), header.link()), (5 + 0x0102_0304, 0x090A_0B0C));
    let event = decoded(&changed(9000, &draft(b"x"), |_| {})).unwrap();
    assert_eq!((event.gap(), event.next_seq(), event.link()), (None, 10, event.sum));
    let mark = decoded(&changed(9000, &Draft::mark(9000, 3, 1), |_| {})).unwrap();
    assert_eq!((mark.next_seq(), mark.more()), (3, false));
    assert!(is_erased_body(5, &body_of(&[0; 5])));
    assert!(!is_erased_body(0, &body_of(&[])), "nothing was there to erase");
    assert!(!is_erased_body(5, &body_of(&[0, 0, 1, 0, 0])));
    assert!(!is_erased_body(5, &[0; 8]), "the last byte is missing");
    assert!(!is_erased_body(5, &[]));
}
