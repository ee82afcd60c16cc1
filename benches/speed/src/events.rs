//! The events: the same on every machine and in every run, about 238 bytes as a payload.

use synclog::{Company, Event, Level, Status, SyncEvent, Timestamp};

use crate::contestant::{Result, Unit};

/// When the first one happened: 2026-04-01 06:30:00 UTC, in microseconds.
const FIRST: i64 = 1_775_025_000_000_000;

/// Bytes of the blob in the column `frame`.
pub const FRAME_BYTES: usize = 56;

/// The event with this number.
pub fn event(number: u64) -> SyncEvent {
    let mix = mix(number);
    let company = Company::new(
        format!("8f0c1d52-7c2e-4b1a-9f60-{:012x}", mix % 23),
        "102209.0",
        format!("Acme Traders Pvt Ltd {:02}", mix % 23),
    );
    let (level, status) = match number % 50 {
        0 => (Level::Info, Status::Started),
        49 if mix.is_multiple_of(16) => (Level::Error, Status::Failed),
        49 => (Level::Success, Status::Completed),
        _ => (Level::Info, Status::InProgress),
    };
    let message = format!("{} vouchers inserted into the ledger, source {mix:016x}", mix % 900 + 100);
    let details = format!(
        "period 2026-{:02}, batch {:02} of 50 done, {:02} left unchanged, {number:07} in total",
        mix % 12 + 1,
        number % 50 + 1,
        mix % 70,
    );
    let time = Timestamp::from_micros(FIRST + number.cast_signed() * 250_000);
    let mut event = SyncEvent::new(company, level, message)
        .with_details(details)
        .with_status(status)
        .with_records((number * 100).cast_signed())
        .with_run(format!("{:08x}", number / 50));
    event.created_at = time;
    event
}

/// The payload of an event, as synclog writes it into its log.
pub fn payload(event: &SyncEvent) -> Result<Vec<u8>> {
    Ok(event.encode(SyncEvent::VERSION)?)
}

/// The events with these numbers, as a contestant takes them.
pub fn unit(numbers: std::ops::Range<u64>, records: bool) -> Result<Unit> {
    if records {
        return Ok(Unit::Records(numbers.map(|number| payload(&event(number))).collect::<Result<_>>()?));
    }
    Ok(Unit::Events(numbers.map(event).collect()))
}

/// What stands in for a frame's header and salt in the rows of a plain SQLite database: 56 bytes that no
/// other row has.
pub fn frame(number: u64) -> [u8; FRAME_BYTES] {
    let mut bytes = [0; FRAME_BYTES];
    for (place, part) in (0..).zip(bytes.chunks_exact_mut(8)) {
        part.copy_from_slice(&mix(number.wrapping_mul(7).wrapping_add(place)).to_le_bytes());
    }
    bytes
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
    fn payloads_are_about_238_bytes_long() {
        let numbers = (0..1000).chain(999_000..1_000_000);
        let lens: Vec<usize> = numbers.map(|number| payload(&event(number)).unwrap().len()).collect();
        let average = lens.iter().sum::<usize>() / lens.len();
        assert!((236..=240).contains(&average), "{average} bytes on average");
    }
}
