//! Moments: those that a person means, and those before the lines of a log.

use std::str::FromStr;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil, tz::TimeZone};

/// A moment as it is typed: `10m` ago, `2026-01-31T10:00:00Z`, or without a zone, by this machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub(super) Timestamp);

/// From when to when lines are shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// The last time that was read, and whether it is inside: neighbours often have the same.
    last: (Vec<u8>, bool),
}

// === impl Moment ===

impl Moment {
    /// Nanoseconds since 1970, as far as they fit.
    pub(crate) fn nanoseconds(self) -> i64 {
        let nanoseconds = self.0.as_nanosecond();
        nanoseconds.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read(text, Timestamp::now(), &TimeZone::system()).map(Self).ok_or_else(|| {
            "neither a time before now, as 10m, 1h30m or 2d, nor a moment, as 2026-01-31T10:00:00Z or 2026-01-31".into()
        })
    }
}

fn read(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment);
    }
    let by_the_clock =
        text.parse::<civil::DateTime>().ok().or_else(|| Some(text.parse::<civil::Date>().ok()?.at(0, 0, 0, 0)));
    if let Some(time) = by_the_clock {
        return zone.to_ambiguous_timestamp(time).compatible().ok();
    }
    let span = text.parse::<Span>().ok()?;
    let ago = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    now.checked_sub(ago).ok().filter(|_| ago >= SignedDuration::ZERO)
}

// === impl Window ===

impl Window {
    pub(super) fn new(since: Option<Moment>, until: Option<Moment>) -> Self {
        let of = |moment: Option<Moment>| moment.map(|moment| moment.0);
        Self { since: of(since), until: of(until), last: Default::default() }
    }

    /// Whether a line of this time is shown. One whose time cannot be read is: it is better seen once too often.
    pub(super) fn contains(&mut self, time: &[u8]) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        if self.last.0 != time {
            let read = std::str::from_utf8(time).ok().and_then(|text| text.parse::<Timestamp>().ok());
            let inside = read.is_none_or(|time| {
                self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
            });
            self.last.0.clear();
            self.last.0.extend_from_slice(time);
            self.last.1 = inside;
        }
        self.last.1
    }

    /// Whether a file that was last written then can hold lines to be shown.
    pub(super) fn reaches(&self, written: std::time::SystemTime) -> bool {
        let written = Timestamp::try_from(written).unwrap_or(Timestamp::MAX);
        self.since.is_none_or(|since| written >= since)
    }

    /// How long it is until nothing new can be inside.
    pub(super) fn left(&self) -> Option<std::time::Duration> {
        let left = self.until?.duration_since(Timestamp::now());
        Some(std::time::Duration::try_from(left).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};

    use super::{Moment, Window, read};

    #[test]
    fn moments_as_people_type_them() {
        let now: Timestamp = "2026-03-10T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let is = |text: &str, expected: &str| {
            assert_eq!(read(text, now, &zone), Some(expected.parse().unwrap()), "{text}");
        };
        is("10s", "2026-03-10T11:59:50Z");
        is("1h30m", "2026-03-10T10:30:00Z");
        is("1.5h", "2026-03-10T10:30:00Z");
        is("250ms", "2026-03-10T11:59:59.75Z");
        is("2d", "2026-03-08T12:00:00Z");
        is("2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z");
        is("2026-03-01T10:00:00.123456789+01:00", "2026-03-01T09:00:00.123456789Z");
        is("2026-03-01T10:00:00", "2026-03-01T08:00:00Z");
        is("2026-03-01 10:00", "2026-03-01T08:00:00Z");
        is("2026-03-01", "2026-02-28T22:00:00Z");
        for wrong in ["", "10", "-10s", "ten", "10 parsecs", "2026-13-01"] {
            assert_eq!(read(wrong, now, &zone), None, "{wrong:?}");
        }
    }

    #[test]
    fn lines_inside() {
        let moment = |text: &str| Some(Moment(text.parse().unwrap()));
        let mut window = Window::new(moment("2026-01-01T00:00:10Z"), moment("2026-01-01T00:00:20Z"));
        for (time, inside) in [
            ("2026-01-01T00:00:09.999999999Z", false),
            ("2026-01-01T00:00:10Z", true),
            ("2026-01-01T01:00:15.5+01:00", true),
            ("2026-01-01T00:00:20.000000001Z", false),
            ("2026-01-01T00:00:20.000000001Z", false),
            ("gibberish", true),
        ] {
            assert_eq!(window.contains(time.as_bytes()), inside, "{time}");
        }
        assert!(Window::default().contains(b"2026-01-01T00:00:10Z"));
    }
}
