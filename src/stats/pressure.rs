//! Pressure files (the kernel's accounting/psi.rst).

/// Time lost to waiting for one resource.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Stall,
    /// Every task waited.
    pub full: Stall,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stall {
    /// Nanoseconds since the cgroup was made.
    pub total_nanos: u64,
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last 60 seconds.
    pub avg60: f64,
    /// Percent of the last 300 seconds.
    pub avg300: f64,
}

/// `None` where the text is no pressure file. Kernels before 5.13 have no `full` for CPU.
pub(super) fn parse(text: &str) -> Option<Pressure> {
    let line = |kind: &str| text.lines().find_map(|line| stall(line.strip_prefix(kind)?));
    Some(Pressure { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

fn stall(fields: &str) -> Option<Stall> {
    let value =
        |key: &str| fields.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
    // NaN and infinity parse, and mean nothing.
    let percent = |key| value(key)?.parse().ok().filter(|percent: &f64| percent.is_finite());
    Some(Stall {
        total_nanos: value("total")?.trim().parse::<u64>().ok()?.saturating_mul(1000),
        avg10: percent("avg10")?,
        avg60: percent("avg60")?,
        avg300: percent("avg300")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=1.50 avg60=0.20 avg300=0.03 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let pressure = parse(text).unwrap();
        let some = Stall { total_nanos: 12_000, avg10: 1.5, avg60: 0.2, avg300: 0.03 };
        assert_eq!(pressure.some, some);
        assert_eq!(pressure.full.total_nanos, 3000);
    }

    #[test]
    fn garbage_is_none() {
        let wrong = [
            "",
            "some",
            "some avg10=x avg60=0 avg300=0 total=1",
            "some avg10=NaN avg60=0 avg300=0 total=1",
            "some avg10=0 avg60=0 avg300=0 total=-1",
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=3",
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
