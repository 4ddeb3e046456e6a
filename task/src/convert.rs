//! From a text of a page to a typed value. Pure.

use jiff::{
    civil::{Date, DateTime, Time},
    fmt::{rfc2822, strtime, temporal::Pieces},
    tz::{Offset, TimeZone},
};
use serde_json::{Number, Value};
use url::Url;

use crate::DecimalSeparator;

/// What a text becomes.
#[derive(Clone, Debug)]
pub enum Conversion {
    /// Itself.
    Text,
    /// An absolute http or https URL.
    Url,
    /// The first number in it.
    Number(DecimalSeparator),
    /// A truth value.
    Boolean,
    /// RFC 3339.
    Date(DateReader),
    /// The JSON that it is.
    Json,
}

/// How dates are written.
#[derive(Clone, Debug)]
pub struct DateReader {
    formats: Vec<String>,
    zone: TimeZone,
}

/// Dates that nobody can read in two ways, beside ISO 8601 and RFC 2822.
const PLAIN_DATES: [&str; 6] = [
    "%B %d, %Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%d %b %Y",
    "%d. %B %Y",
    "%Y/%m/%d",
];
/// The longest text that is looked at as a date or truth value, in bytes.
const MAX_SHORT: usize = 256;
/// How far into a text a number is looked for, in characters.
const MAX_NUMERIC: usize = 1 << 16;

impl Conversion {
    /// The value of a text, with URLs relative to `base`; `None` when it is none of this type.
    pub fn read(&self, text: &str, base: &Url) -> Option<Value> {
        match self {
            Self::Text => Some(text.into()),
            Self::Url => absolute(base, text).map(|url| String::from(url).into()),
            Self::Number(separator) => number(text, *separator).map(Value::Number),
            Self::Boolean => boolean(text).map(Value::Bool),
            Self::Date(reader) => reader.read(text).map(Value::String),
            Self::Json => serde_json::from_str(text).ok(),
        }
    }
}

/// An absolute http or https URL; `None` for others (`javascript:`, `data:`) and for what is not a URL.
pub fn absolute(base: &Url, url: &str) -> Option<Url> {
    base.join(url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
}

fn boolean(text: &str) -> Option<bool> {
    let text = text.trim();
    if text.len() > MAX_SHORT {
        return None;
    }
    match text.to_lowercase().as_str() {
        "true" | "yes" | "y" | "on" | "1" | "✓" | "✔" => Some(true),
        "false" | "no" | "n" | "off" | "0" | "✗" | "✘" => Some(false),
        _ => None,
    }
}

/// The first number: a sign that no letter or digit stands before, digits with groups of three, a fraction, an exponent.
fn number(text: &str, separator: DecimalSeparator) -> Option<Number> {
    let characters: Vec<char> = text.chars().take(MAX_NUMERIC).collect();
    let mut scan = Scan::first(&characters, separator)?;
    scan.take_whole();
    let has_fraction = scan.take_fraction();
    let has_exponent = scan.take_exponent();
    if !has_fraction
        && !has_exponent
        && let Ok(number) = scan.plain.parse::<i64>()
    {
        return Some(number.into());
    }
    scan.plain.parse::<f64>().ok().and_then(Number::from_f64)
}

/// A number on its way from how a page writes it to how a computer does.
struct Scan<'t> {
    characters: &'t [char],
    index: usize,
    point: char,
    plain: String,
}

impl<'t> Scan<'t> {
    fn first(characters: &'t [char], separator: DecimalSeparator) -> Option<Self> {
        let point = match separator {
            DecimalSeparator::Point => '.',
            DecimalSeparator::Comma => ',',
        };
        let mut scan = Self {
            characters,
            index: 0,
            point,
            plain: String::new(),
        };
        let begins = |index: &usize| scan.is_digit(*index) || (characters[*index] == point && scan.is_digit(index + 1));
        let start = (0..characters.len()).find(begins)?;
        let before = |back: usize| start.checked_sub(back).map(|index| characters[index]);
        if matches!(before(1), Some('-' | '\u{2212}')) && before(2).is_none_or(|c| !c.is_alphanumeric()) {
            scan.plain.push('-');
        }
        scan.index = start;
        Some(scan)
    }

    fn is_digit(&self, index: usize) -> bool {
        self.characters.get(index).is_some_and(char::is_ascii_digit)
    }

    fn take_digits(&mut self) {
        while self.is_digit(self.index) {
            self.plain.push(self.characters[self.index]);
            self.index += 1;
        }
    }

    fn take_whole(&mut self) {
        let start = self.index;
        self.take_digits();
        while self.index > start && self.begins_group() {
            self.index += 1;
            self.take_digits();
        }
    }

    /// Exactly three digits behind something that may stand between groups.
    fn begins_group(&self) -> bool {
        let between = self
            .characters
            .get(self.index)
            .is_some_and(|c| is_group(*c, self.point));
        between && (1..=3).all(|ahead| self.is_digit(self.index + ahead)) && !self.is_digit(self.index + 4)
    }

    fn take_fraction(&mut self) -> bool {
        let found = self.characters.get(self.index) == Some(&self.point) && self.is_digit(self.index + 1);
        if found {
            // Rust reads a number without a digit before its point.
            self.plain.push('.');
            self.index += 1;
            self.take_digits();
        }
        found
    }

    fn take_exponent(&mut self) -> bool {
        if !matches!(self.characters.get(self.index), Some('e' | 'E')) {
            return false;
        }
        let signed = usize::from(matches!(self.characters.get(self.index + 1), Some('+' | '-')));
        let found = self.is_digit(self.index + 1 + signed);
        if found {
            self.plain.extend(&self.characters[self.index..=self.index + signed]);
            self.index += 1 + signed;
            self.take_digits();
        }
        found
    }
}

fn is_group(c: char, point: char) -> bool {
    matches!(c, ' ' | '\u{a0}' | '\u{202f}' | '\u{2009}' | '\'' | '\u{2019}' | '_')
        || (matches!(c, '.' | ',') && c != point)
}

impl DateReader {
    /// A reader of these formats, or of the plain ones; times that name no zone are in `zone`.
    ///
    /// # Errors
    /// When there is no such zone.
    pub fn new(formats: Vec<String>, zone: Option<&str>) -> Result<Self, String> {
        let zone = match zone {
            Some(name) => {
                TimeZone::get(name).map_err(|_| "is not an IANA time zone such as Europe/Berlin".to_owned())?
            }
            None => TimeZone::UTC,
        };
        Ok(Self { formats, zone })
    }

    fn read(&self, text: &str) -> Option<String> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_SHORT {
            return None;
        }
        if !self.formats.is_empty() {
            return self.formats.iter().find_map(|format| self.formatted(format, text));
        }
        self.iso(text)
            .or_else(|| rfc2822::parse(text).ok().map(|zoned| zoned_text(&zoned)))
            .or_else(|| PLAIN_DATES.into_iter().find_map(|format| self.formatted(format, text)))
    }

    fn iso(&self, text: &str) -> Option<String> {
        let pieces = Pieces::parse(text).ok()?;
        self.written(pieces.date(), pieces.time(), pieces.to_numeric_offset())
    }

    fn formatted(&self, format: &str, text: &str) -> Option<String> {
        let broken = strtime::parse(format, text).ok()?;
        let time = broken.hour().and_then(|_| broken.to_time().ok());
        self.written(broken.to_date().ok()?, time, broken.offset())
    }

    fn written(&self, date: Date, time: Option<Time>, offset: Option<Offset>) -> Option<String> {
        let Some(time) = time else {
            return Some(date.to_string());
        };
        let zone = offset.map_or_else(|| self.zone.clone(), TimeZone::fixed);
        let zoned = DateTime::from_parts(date, time).to_zoned(zone).ok()?;
        Some(zoned_text(&zoned))
    }
}

fn zoned_text(zoned: &jiff::Zoned) -> String {
    let text = zoned.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string();
    match text.strip_suffix("+00:00") {
        Some(utc) => format!("{utc}Z"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(conversion: &Conversion, text: &str) -> Option<Value> {
        conversion.read(text, &"http://site.test/a/b".parse().unwrap())
    }

    #[test]
    fn numbers_are_read_by_their_separators() {
        let point = Conversion::Number(DecimalSeparator::Point);
        for (text, expected) in [
            ("$1,299.00 incl. VAT", json!(1299.0)),
            ("1 234 567", json!(1_234_567)),
            ("12'345.5", json!(12345.5)),
            ("-3.5 °C", json!(-3.5)),
            ("\u{2212}7", json!(-7)),
            ("A-5", json!(5)),
            ("2019-2020", json!(2019)),
            ("1.2.3", json!(1.2)),
            ("3 500 of 12", json!(3500)),
            ("3 50", json!(3)),
            (".5", json!(0.5)),
            ("6.02e23", json!(6.02e23)),
            ("5 e", json!(5)),
            ("99999999999999999999", json!(1e20)),
        ] {
            assert_eq!(read(&point, text), Some(expected), "{text}");
        }
        let comma = Conversion::Number(DecimalSeparator::Comma);
        assert_eq!(read(&comma, "1.299,00 €"), Some(json!(1299.0)));
        assert_eq!(read(&comma, "12,5 %"), Some(json!(12.5)));
        for none in ["", "free", "-", "."] {
            assert_eq!(read(&point, none), None, "{none}");
        }
        assert_eq!(read(&point, &"1".repeat(400)), None);
    }

    #[test]
    fn dates_become_rfc_3339_and_a_date_without_a_time_stays_a_date() {
        let plain = Conversion::Date(DateReader::new(Vec::new(), None).unwrap());
        for (text, expected) in [
            ("2026-11-24", "2026-11-24"),
            ("2026-11-24T10:00:00Z", "2026-11-24T10:00:00Z"),
            ("2026-11-24 10:00:00+02:00", "2026-11-24T10:00:00+02:00"),
            ("2026-11-24T10:00", "2026-11-24T10:00:00Z"),
            ("Tue, 24 Nov 2026 10:00:00 +0100", "2026-11-24T10:00:00+01:00"),
            ("November 24, 2026", "2026-11-24"),
            ("24 Nov 2026", "2026-11-24"),
        ] {
            assert_eq!(read(&plain, text), Some(json!(expected)), "{text}");
        }
        for none in ["01/02/2026", "yesterday", "2026-13-01", ""] {
            assert_eq!(read(&plain, none), None, "{none}");
        }
    }

    #[test]
    fn dates_are_read_by_the_given_formats_in_the_given_zone() {
        let formats = vec!["%d.%m.%Y %H:%M".to_owned(), "%d.%m.%Y".to_owned()];
        let german = Conversion::Date(DateReader::new(formats, Some("Europe/Berlin")).unwrap());
        assert_eq!(
            read(&german, "24.11.2026 10:30"),
            Some(json!("2026-11-24T10:30:00+01:00"))
        );
        assert_eq!(read(&german, "24.11.2026"), Some(json!("2026-11-24")));
        assert_eq!(read(&german, "2026-11-24"), None);
    }

    #[test]
    fn truth_values_urls_and_json_are_read() {
        assert_eq!(read(&Conversion::Boolean, " Yes "), Some(json!(true)));
        assert_eq!(read(&Conversion::Boolean, "off"), Some(json!(false)));
        assert_eq!(read(&Conversion::Boolean, "maybe"), None);
        assert_eq!(read(&Conversion::Url, "../c?d"), Some(json!("http://site.test/c?d")));
        assert_eq!(read(&Conversion::Url, "data:text/html,x"), None);
        assert_eq!(read(&Conversion::Json, "{\"a\":[1]}"), Some(json!({ "a": [1] })));
        assert_eq!(read(&Conversion::Json, &"[".repeat(100_000)), None);
    }
}
