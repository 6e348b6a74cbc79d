//! `resource.Quantity`: a fixed-point number with a suffix, such as `500m`, `1Gi` or `2e3`.
//!
//! A [`Quantity`] holds a whole number of billionths, which is the finest step that the API knows; whatever
//! is finer is rounded away from zero, and whatever is larger than 2⁶³−1 is capped there, as upstream does.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

const NANOS: i128 = 1_000_000_000;
const MAX: i128 = (i64::MAX as i128) * NANOS;

/// The family of suffixes that a quantity is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suffixes {
    /// `n`, `u`, `m`, none, `k`, `M`, `G`, `T`, `P`, `E`
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei`
    BinarySi,
    /// `e3`, `e6`, …
    DecimalExponent,
}

/// Why a text is not a quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It does not look like one.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// Its number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// Its suffix is none that is known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount of a resource. Comparison and equality look at the amount only, not at how it is written.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    suffixes: Suffixes,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        suffixes: Suffixes::DecimalSi,
    };

    /// A whole number, written with `suffixes`.
    pub const fn new(value: i64, suffixes: Suffixes) -> Self {
        Quantity {
            nanos: value as i128 * NANOS,
            suffixes,
        }
    }

    /// A number of thousandths, as CPU is counted.
    pub const fn from_millis(millis: i64) -> Self {
        Quantity {
            nanos: millis as i128 * 1_000_000,
            suffixes: Suffixes::DecimalSi,
        }
    }

    /// A number of bytes, written with binary suffixes.
    pub const fn from_bytes(bytes: i64) -> Self {
        Self::new(bytes, Suffixes::BinarySi)
    }

    /// The family of suffixes it is written with.
    pub const fn suffixes(self) -> Suffixes {
        self.suffixes
    }

    /// Whether it is zero.
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than zero.
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// The whole number, rounded away from zero.
    pub fn value(self) -> i64 {
        round_away(self.nanos, NANOS)
    }

    /// The number of thousandths, rounded away from zero.
    pub fn millis(self) -> i64 {
        round_away(self.nanos, 1_000_000)
    }

    /// The number as floating point, for ratios and metrics.
    pub fn to_f64(self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// The same, read from an object's field.
    pub fn of(quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Result<Self, ParseError> {
        quantity.0.parse()
    }

    fn with(self, nanos: i128) -> Self {
        Quantity {
            nanos: nanos.clamp(-MAX, MAX),
            suffixes: self.suffixes,
        }
    }

    /// The family to take in sums: zero has no opinion.
    fn suffixes_with(self, other: Self) -> Self {
        if self.is_zero() {
            Quantity {
                suffixes: other.suffixes,
                ..self
            }
        } else {
            self
        }
    }
}

fn round_away(nanos: i128, unit: i128) -> i64 {
    let magnitude = (nanos.abs() + unit - 1) / unit;
    let value = if nanos < 0 { -magnitude } else { magnitude };
    value.clamp(i64::MIN as i128, i64::MAX as i128) as i64
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.suffixes_with(other).with(self.nanos + other.nanos)
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.suffixes_with(other).with(self.nanos - other.nanos)
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        self.with(-self.nanos)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(quantities: I) -> Self {
        quantities.fold(Quantity::ZERO, Add::add)
    }
}

impl From<Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(quantity: Quantity) -> Self {
        k8s_openapi::apimachinery::pkg::api::resource::Quantity(quantity.to_string())
    }
}

const BINARY: &[&str] = &["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: &[(&str, i64)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

enum Scale {
    Binary(u32),
    Decimal(i64),
}

fn interpret(suffix: &str) -> Option<(Scale, Suffixes)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Some((Scale::Decimal(*exponent), Suffixes::DecimalSi));
    }
    if let Some(power) = BINARY.iter().position(|known| *known == suffix) {
        return Some((Scale::Binary(10 * (power as u32 + 1)), Suffixes::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Scale::Decimal(exponent), Suffixes::DecimalExponent))
}

/// Splits a text into sign, digits before the point, digits after it, and suffix.
fn split(text: &str) -> Result<(bool, &str, &str, &str), ParseError> {
    let (negative, rest) = match text.as_bytes().first() {
        None => return Err(ParseError::Format),
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
    };
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = rest.split_at(digits(rest));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let exponent = suffix[letters..].strip_prefix(['-', '+']).unwrap_or(&suffix[letters..]);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::Format);
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(if suffix.is_empty() {
            ParseError::Number
        } else {
            ParseError::Format
        });
    }
    Ok((negative, whole, fraction, suffix))
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (negative, whole, fraction, suffix) = split(text)?;
        let (scale, mut suffixes) = interpret(suffix).ok_or(ParseError::Suffix)?;
        let magnitude = match scale {
            Scale::Decimal(exponent) => scaled(whole, fraction, exponent.saturating_add(9), 0),
            Scale::Binary(shift) => scaled(whole, fraction, 9, shift),
        };
        if suffixes == Suffixes::BinarySi && magnitude > 0 && magnitude < NANOS {
            // Less than one byte has no binary form.
            suffixes = Suffixes::DecimalSi;
        }
        Ok(Quantity {
            nanos: if negative { -magnitude } else { magnitude },
            suffixes,
        })
    }
}

/// As many digits are looked at; they are more than the largest quantity has.
const DIGITS: usize = 28;

/// `whole.fraction × 10^exponent × 2^shift`, rounded up and capped. `shift` is at most 60.
fn scaled(whole: &str, fraction: &str, exponent: i64, shift: u32) -> i128 {
    let digits = whole.bytes().chain(fraction.bytes()).skip_while(|&b| b == b'0');
    let (mut value, mut taken, mut dropped, mut inexact) = (0_i128, 0, 0_i64, false);
    for digit in digits.map(|b| i128::from(b - b'0')) {
        if taken < DIGITS {
            value = value * 10 + digit;
            taken += 1;
        } else {
            dropped += 1;
            inexact |= digit != 0;
        }
    }
    if value == 0 {
        return 0;
    }
    let exponent = exponent.saturating_sub(fraction.len() as i64).saturating_add(dropped);
    if exponent >= 0 {
        let factor = u32::try_from(exponent)
            .ok()
            .and_then(|exponent| 10_i128.checked_pow(exponent));
        let scaled = factor.and_then(|factor| value.checked_mul(factor)?.checked_mul(1 << shift));
        return scaled.map_or(MAX, |scaled| (scaled + i128::from(inexact)).min(MAX));
    }
    // Divided before it is shifted, so that nothing overflows; of the rest 18 digits say enough.
    const REST: u32 = 18;
    let places = u32::try_from(-exponent).unwrap_or(u32::MAX);
    let Some(unit) = 10_i128.checked_pow(places) else {
        return 1;
    };
    let (quotient, mut rest) = (value / unit, value % unit);
    let mut rest_unit = unit;
    if places > REST {
        let cut = 10_i128.pow(places - REST);
        inexact |= rest % cut != 0;
        (rest, rest_unit) = (rest / cut, 10_i128.pow(REST));
    }
    let Some(quotient) = quotient.checked_mul(1 << shift) else {
        return MAX;
    };
    let rest = rest << shift;
    let rounded = rest / rest_unit + i128::from(inexact || rest % rest_unit != 0);
    (quotient + rounded).min(MAX)
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos % NANOS == 0;
        if self.suffixes == Suffixes::BinarySi && whole && self.nanos.abs() >= 1024 * NANOS {
            let mut value = self.nanos / NANOS;
            let mut power = 0;
            while value % 1024 == 0 && power < BINARY.len() {
                value /= 1024;
                power += 1;
            }
            return match power {
                0 => write!(f, "{value}"),
                power => write!(f, "{value}{}", BINARY[power - 1]),
            };
        }
        let mut value = self.nanos;
        let mut exponent = -9_i64;
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        match self.suffixes {
            Suffixes::DecimalExponent if exponent == 0 => write!(f, "{value}"),
            Suffixes::DecimalExponent => write!(f, "{value}e{exponent}"),
            _ => {
                let suffix = DECIMAL
                    .iter()
                    .find(|(_, known)| *known == exponent)
                    .map_or("", |(suffix, _)| suffix);
                write!(f, "{value}{suffix}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, want) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1000", "1k"),
            ("1000k", "1M"),
            ("0.1m", "100u"),
            ("0.0000000001", "1n"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e-1", "1200e-3"),
            ("5e0", "5"),
            ("0.5Ki", "512"),
            ("0.5", "500m"),
            ("0.0001Ki", "102400u"),
            ("1.0001Ki", "1024102400u"),
            ("2Ki", "2Ki"),
            ("1023Ki", "1023Ki"),
            ("-1Gi", "-1Gi"),
            ("+1", "1"),
            (".5", "500m"),
            ("1.", "1"),
            ("0Gi", "0"),
            ("9Ei", "9223372036854775807"),
            ("1e30", "9223372036854775807e0"),
            ("1e-30", "1e-9"),
            ("999999999999999999999999999999999999", "9223372036854775807"),
            ("0.00000000000000000000000000000000000000001", "1n"),
            ("123456789.123456789", "123456789123456789n"),
        ] {
            let want = want.trim_end_matches("e0");
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn bad_texts() {
        for (text, want) in [
            ("", ParseError::Format),
            (".", ParseError::Number),
            ("+", ParseError::Number),
            ("1.1.1", ParseError::Format),
            ("1 Gi", ParseError::Format),
            ("abc", ParseError::Format),
            ("1ki", ParseError::Suffix),
            ("1K", ParseError::Suffix),
            ("1mm", ParseError::Suffix),
            ("1e", ParseError::Suffix),
            ("1Gi5", ParseError::Suffix),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap_err(), want, "{text}");
        }
    }

    #[test]
    fn rounding_goes_away_from_zero() {
        let parse = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(parse("1500m").value(), 2);
        assert_eq!(parse("-1500m").value(), -2);
        assert_eq!(parse("1u").millis(), 1);
        assert_eq!(parse("250m").millis(), 250);
        assert_eq!(parse("64Mi").value(), 64 << 20);
        assert_eq!(parse("100m") + parse("0.9"), parse("1"));
        assert_eq!((Quantity::ZERO + parse("512Mi") + parse("512Mi")).to_string(), "1Gi");
        assert_eq!((parse("1") - parse("1500m")).to_string(), "-500m");
        assert!(parse("1Gi") > parse("1G"));
    }

    proptest! {
        #[test]
        fn canonical_text_is_a_fixed_point(value in -1_000_000_000_000_i64..1_000_000_000_000, suffix in "(n|u|m||k|M|Ki|Mi|Gi|e3|e-3)") {
            let first: Quantity = format!("{value}{suffix}").parse().unwrap();
            let text = first.to_string();
            let second: Quantity = text.parse().unwrap();
            prop_assert_eq!(first, second);
            prop_assert_eq!(text, second.to_string());
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in "[-+]?[0-9.]{0,60}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,12}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn sums_of_millis_are_exact(a in 0_i64..1_000_000_000, b in 0_i64..1_000_000_000) {
            prop_assert_eq!((Quantity::from_millis(a) + Quantity::from_millis(b)).millis(), a + b);
        }
    }
}
