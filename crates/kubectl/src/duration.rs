//! Durations as Go writes them: `1h30m`, `5s`, `250ms`.

use std::time::Duration;

use crate::failure::{Failure, Result};

/// Understands a duration given to a flag.
pub fn parse(flag: &str, text: &str) -> Result<Duration> {
    go(text).ok_or_else(|| {
        Failure::message(format!(
            "invalid argument {text:?} for \"{flag}\" flag: time: invalid duration {text:?}"
        ))
    })
}

fn go(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(digits);
        let end = unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit.len());
        let (unit, next) = unit.split_at(end);
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = next;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_them() {
        for (text, milliseconds) in [
            ("5s", Some(5000)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("5", None),
            ("", None),
            ("5d", None),
            ("s", None),
        ] {
            assert_eq!(go(text).map(|duration| duration.as_millis()), milliseconds, "{text}");
        }
    }
}
