//! The records: sync events as text, about 238 bytes, each with text that is found nowhere else.

/// How many records are written and acknowledged.
pub const RECORDS: usize = 1000;

/// The record that is damaged.
pub const TARGET: usize = 500;

/// The record with this number. Fields are separated by `|`: company guid, alterid and name, message,
/// details.
pub fn record(number: usize) -> Vec<u8> {
    let mix = mix(number as u64);
    let guid = format!("{:08x}-7c2e-4b1a-9f60-{:012x}", 0x8f0c_1d52u32, mix % 23);
    let message =
        format!("event-{number:06} {mix:016x}: {} vouchers inserted into the ledger", mix % 900 + 100);
    let details = format!(
        "period 2026-{:02}, batch {} of 40 done, {} skipped as unchanged, checksum of the source {:016x}{}",
        mix % 12 + 1,
        mix % 40 + 1,
        mix % 70,
        mix.rotate_left(17),
        &", retried"[..(mix % 10) as usize],
    );
    format!("{guid}|102209.0|Acme Traders {}|{message}|{details}", mix % 23).into_bytes()
}

/// A record with this number that is exactly `len` bytes long.
pub fn record_of_len(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = record(number);
    bytes.resize(len, b'.');
    bytes
}

/// The five fields, `None` where the bytes are no record.
pub fn fields(record: &[u8]) -> Option<[&str; 5]> {
    let mut parts = std::str::from_utf8(record).ok()?.split('|');
    let fields = [parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(fields)
}

/// SplitMix64: spreads a number over 64 bits, the same on every machine.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_differ_and_have_the_size_of_a_sync_event() {
        let all: std::collections::BTreeSet<_> = (0..RECORDS).map(record).collect();
        assert_eq!(all.len(), RECORDS);
        let bytes: usize = all.iter().map(Vec::len).sum();
        assert!((230..=246).contains(&(bytes / RECORDS)), "{} bytes on average", bytes / RECORDS);
        assert!(all.iter().all(|record| fields(record).is_some()));
    }
}
