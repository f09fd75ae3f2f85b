//! Numbers as Python writes and reads them.

/// `repr` of a float: the shortest digits that read back the same.
pub(crate) fn repr(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Whether a float has no fraction.
pub(crate) fn is_whole(number: f64) -> bool {
    number.is_finite() && number.fract() == 0.0
}

/// Digits after the point that a float can have.
const MAX_FRACTION: usize = 1100;

/// `%.Nf`: fixed point with so many digits; beyond what a float has they are zeros.
pub(crate) fn fixed(number: f64, precision: usize) -> String {
    let known = precision.min(MAX_FRACTION);
    let mut text = format!("{number:.known$}");
    text.extend(std::iter::repeat_n('0', precision - known));
    text
}

/// `%.Ne`.
pub(crate) fn exponential(number: f64, precision: usize) -> String {
    let known = precision.min(MAX_FRACTION);
    let text = format!("{number:.known$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let zeros = "0".repeat(precision - known);
    format!("{digits}{zeros}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `%.Ng`: whichever of the two is shorter; `keep` leaves zeros at the end.
pub(crate) fn general(number: f64, precision: usize, keep: bool) -> String {
    let precision = precision.max(1);
    let scientific = exponential(number, precision - 1);
    let exponent: i64 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let trim = |digits: &str| {
        if keep || !digits.contains('.') {
            digits.to_owned()
        } else {
            digits.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    };
    if (-4..precision as i64).contains(&exponent) {
        trim(&fixed(number, usize::try_from(precision as i64 - 1 - exponent).unwrap_or(0)))
    } else {
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "+00"));
        format!("{}e{exponent}", trim(digits))
    }
}

/// Digits with single underscores between them, without these.
fn without_underscores(text: &str) -> Option<String> {
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    Some(text.replace('_', ""))
}

/// The reason why a text is not an integer that we can hold.
pub(crate) enum NotInt {
    /// Python raises too.
    Invalid,
    /// It is beyond 128 bits.
    Beyond,
}

/// `int(text, base)`.
pub(crate) fn parse_int(text: &str, base: u32) -> Result<i128, NotInt> {
    let text = text.trim_matches(crate::unicode::is_space);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixed = |prefix: &str| {
        lower.strip_prefix(prefix).map(|rest| rest.strip_prefix('_').unwrap_or(rest).to_owned())
    };
    let (base, digits) = match base {
        0 => match (prefixed("0x"), prefixed("0o"), prefixed("0b")) {
            (Some(digits), ..) => (16, digits),
            (_, Some(digits), _) => (8, digits),
            (_, _, Some(digits)) => (2, digits),
            _ if lower.len() > 1 && lower.starts_with('0') && !lower.trim_matches(['0', '_']).is_empty() => {
                return Err(NotInt::Invalid);
            }
            _ => (10, lower),
        },
        16 => (16, prefixed("0x").unwrap_or(lower)),
        8 => (8, prefixed("0o").unwrap_or(lower)),
        2 => (2, prefixed("0b").unwrap_or(lower)),
        base => (base, lower),
    };
    let digits = without_underscores(&digits).ok_or(NotInt::Invalid)?;
    if !(2..=36).contains(&base) || digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err(NotInt::Invalid);
    }
    i128::from_str_radix(&format!("{sign}{digits}"), base).map_err(|_| NotInt::Beyond)
}

/// `float(text)`, or `None` where Python raises.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let text = without_underscores(text.trim_matches(crate::unicode::is_space))?;
    let plain = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    if text.len() > plain.len() + 1 {
        return None;
    }
    if !matches!(&*plain, "inf" | "infinity" | "nan")
        && !plain.starts_with(|c: char| c.is_ascii_digit() || c == '.')
    {
        return None;
    }
    text.parse().ok()
}
