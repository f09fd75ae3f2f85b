//! `strftime_now`.

use jiff::Zoned;

use crate::error::{Result, unsupported};

/// The time that a template is told.
#[derive(Clone, Debug)]
pub struct Now(Zoned);

impl Now {
    /// This moment, in the time zone of this machine.
    pub fn local() -> Self {
        Self(Zoned::now())
    }

    /// So many seconds after 1970, in UTC.
    pub fn utc(seconds: i64) -> Self {
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        Self(time.to_zoned(jiff::tz::TimeZone::UTC))
    }
}

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Python's `strftime` in the C locale.
pub(crate) fn strftime(format: &str, Now(now): &Now) -> Result<String> {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let Some(mut directive) = chars.next() else {
            out.push('%');
            break;
        };
        let bare = directive == '-';
        if bare {
            let Some(next) = chars.next() else {
                out.push_str("%-");
                break;
            };
            directive = next;
        }
        let day = DAYS[now.weekday().to_sunday_zero_offset().unsigned_abs() as usize % 7];
        let month = MONTHS[(now.month().unsigned_abs() as usize + 11) % 12];
        let hour12 = match now.hour() % 12 {
            0 => 12,
            hour => hour,
        };
        let number = |value: i64, width: usize| {
            if bare { value.to_string() } else { format!("{value:0width$}") }
        };
        let days = i64::from(now.day_of_year()) - 1;
        let weekday = i64::from(now.weekday().to_sunday_zero_offset());
        let nested = |format: &str| strftime(format, &Now(now.clone()));
        let text = match directive {
            'a' => day[..3].to_owned(),
            'A' => day.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'B' => month.to_owned(),
            'd' => number(now.day().into(), 2),
            'e' => {
                if bare {
                    now.day().to_string()
                } else {
                    format!("{:2}", now.day())
                }
            }
            'm' => number(now.month().into(), 2),
            'y' => number(i64::from(now.year()).rem_euclid(100), 2),
            'Y' => now.year().to_string(),
            'C' => number(i64::from(now.year()).div_euclid(100), 2),
            'H' => number(now.hour().into(), 2),
            'k' => format!("{:2}", now.hour()),
            'I' => number(hour12.into(), 2),
            'l' => format!("{hour12:2}"),
            'p' => if now.hour() < 12 { "AM" } else { "PM" }.to_owned(),
            'P' => if now.hour() < 12 { "am" } else { "pm" }.to_owned(),
            'M' => number(now.minute().into(), 2),
            'S' => number(now.second().into(), 2),
            'f' => format!("{:06}", now.subsec_nanosecond() / 1000),
            'j' => number(days + 1, 3),
            'u' => if weekday == 0 { 7 } else { weekday }.to_string(),
            'w' => weekday.to_string(),
            'U' => number((days + 7 - weekday) / 7, 2),
            'W' => number((days + 7 - (weekday + 6) % 7) / 7, 2),
            'G' => now.date().iso_week_date().year().to_string(),
            'V' => number(now.date().iso_week_date().week().into(), 2),
            's' => now.timestamp().as_second().to_string(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            // transformers' time has no zone.
            'z' | 'Z' => String::new(),
            'D' | 'x' => nested("%m/%d/%y")?,
            'T' | 'X' => nested("%H:%M:%S")?,
            'F' => nested("%Y-%m-%d")?,
            'R' => nested("%H:%M")?,
            'r' => nested("%I:%M:%S %p")?,
            'c' => nested("%a %b %e %H:%M:%S %Y")?,
            other => return unsupported(format!("`%{other}` of strftime_now")),
        };
        out.push_str(&text);
    }
    Ok(out)
}
