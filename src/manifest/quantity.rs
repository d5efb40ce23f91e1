//! Kubernetes quantities: `500m`, `64Mi`, `1e3`. Pure, in whole thousandths.

/// The value in thousandths, rounded up as Kubernetes does. `None`: it is no quantity.
fn thousandths(text: &str) -> Option<u128> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (numerator, denominator): (u128, u128) = match suffix {
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1000u128.pow(2), 1),
        "G" => (1000u128.pow(3), 1),
        "T" => (1000u128.pow(4), 1),
        "P" => (1000u128.pow(5), 1),
        "E" => (1000u128.pow(6), 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            (10u128.pow(exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|e| *e <= 18)?), 1)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Eighteen digits on each side are more than any resource has.
    if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.len() > 18 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scaled = digits.checked_mul(numerator)?.checked_mul(1000)?;
    Some(scaled.div_ceil(scale.checked_mul(denominator)?))
}

/// CPU in thousandths of a core.
pub(super) fn millicores(text: &str) -> Option<u64> {
    thousandths(text)?.try_into().ok()
}

/// Bytes, rounded up.
pub(super) fn bytes(text: &str) -> Option<u64> {
    thousandths(text)?.div_ceil(1000).try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_kubernetes() {
        for (text, value) in [
            ("500m", Some(500)),
            ("1", Some(1000)),
            ("0.1", Some(100)),
            ("1.5", Some(1500)),
            ("0.0001", Some(1)),
            ("2e3", Some(2_000_000)),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("-1", None),
            ("1 ", None),
            ("1e99", None),
            ("ten", None),
        ] {
            assert_eq!(millicores(text), value, "{text:?}");
        }
        for (text, value) in [
            ("64Mi", Some(64 << 20)),
            ("1k", Some(1000)),
            ("1500m", Some(2)),
            ("1Ei", Some(1 << 60)),
            ("99Ei", None),
        ] {
            assert_eq!(bytes(text), value, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9a-zA-Z.+-]{0,24}") {
            millicores(&text);
            bytes(&text);
        }
    }
}
