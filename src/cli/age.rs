//! Times for people, as kubectl prints them.

use jiff::Timestamp;

const SECOND: i128 = 1_000_000_000;

/// How long before `now` this was (both nanoseconds since the epoch): `5s`, `3m20s`, `2d4h`.
/// The steps are those of kubectl's age column. 0, which is never: `<unknown>`.
pub(super) fn since(at: i64, now: i64) -> String {
    if at == 0 { "<unknown>".to_owned() } else { span(i128::from(now) - i128::from(at)) }
}

/// A length of time in nanoseconds, to two figures that matter.
pub(super) fn span(nanoseconds: i128) -> String {
    let seconds = nanoseconds / SECOND;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let years = days / 365;
    let pair = |great: i128, unit: &str, small: i128, subunit: &str| match small {
        0 => format!("{great}{unit}"),
        _ => format!("{great}{unit}{small}{subunit}"),
    };
    match seconds {
        // Clocks differ by a second or two: that is now, not the future.
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => pair(days, "d", hours % 24, "h"),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => pair(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

/// A length of time as it was asked for: `90s`, `1.5s`.
pub(super) fn length(time: std::time::Duration) -> String {
    format!("{}s", time.as_secs_f64())
}

/// RFC 3339 in UTC, to the second. 0 is `None`.
pub(super) fn rfc3339(at: i64) -> Option<String> {
    let time = Timestamp::from_second(at.div_euclid(SECOND as i64)).ok()?;
    (at != 0).then(|| time.to_string())
}

/// RFC 3339 in UTC, to the nanosecond.
pub(super) fn rfc3339_nano(at: i64) -> String {
    stamp(at, "%Y-%m-%dT%H:%M:%S%.9fZ")
}

/// `14:03:27.120`, in UTC.
pub(super) fn clock(at: i64) -> String {
    stamp(at, "%H:%M:%S%.3f")
}

fn stamp(at: i64, format: &str) -> String {
    // Every i64 of nanoseconds is within jiff's range.
    Timestamp::from_nanosecond(i128::from(at))
        .map_or_else(|_| at.to_string(), |time| time.strftime(format).to_string())
}

/// The present, in nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_kubectls() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (599, "9m59s"),
            (600, "10m"),
            (10799, "179m"),
            (10800, "3h"),
            (12000, "3h20m"),
            (28800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (190_000, "2d4h"),
            (86400 * 8, "8d"),
            (86400 * 729, "729d"),
            (86400 * 731, "2y1d"),
            (86400 * 365 * 9, "9y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(span(seconds * SECOND), expected, "{seconds}");
        }
        assert_eq!(since(0, now()), "<unknown>");
        assert_eq!(since(now() - 3_500_000_000, now()), "3s");
    }

    #[test]
    fn stamps_are_utc() {
        let at = 1_767_323_045_006_007_008;
        assert_eq!(rfc3339(at).unwrap(), "2026-01-02T03:04:05Z");
        assert_eq!(rfc3339_nano(at), "2026-01-02T03:04:05.006007008Z");
        assert_eq!(clock(at), "03:04:05.006");
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339_nano(-1), "1969-12-31T23:59:59.999999999Z");
        for extreme in [i64::MIN, i64::MAX] {
            assert!(rfc3339_nano(extreme).ends_with('Z'));
        }
    }
}
