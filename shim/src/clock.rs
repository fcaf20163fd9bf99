//! Time as the protocol and the logs want it.

use rustix::time::{ClockId, clock_gettime};

const NANOS: i64 = 1_000_000_000;

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    nanoseconds(ClockId::Realtime)
}

/// Nanoseconds of a clock that never jumps and that parent and child share.
pub(crate) fn monotonic() -> i64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * NANOS + time.tv_nsec
}

/// Length of what [`rfc3339`] writes.
pub(crate) const RFC3339_LENGTH: usize = 30;

/// `2026-11-22T14:21:19.123456789Z`, always with nine digits, so that every stamp has the same length.
pub(crate) fn rfc3339(nanoseconds: i64) -> String {
    let seconds = nanoseconds.div_euclid(NANOS);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = nanoseconds.rem_euclid(NANOS);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is a year's last day; 400 years have 146,097 days.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_right_and_of_one_length() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(seconds * NANOS), text);
        }
        assert_eq!(rfc3339(1_763_821_279_123_456_789), "2025-11-22T14:21:19.123456789Z");
        assert_eq!(rfc3339(now()).len(), RFC3339_LENGTH);
    }
}
