//! PostgreSQL's patterns of to_char, to_date and to_timestamp (`YYYY-MM-DD HH24:MI:SS`) as those of chrono, which DataFusion takes.

use crate::error::{Position, SqlError, SqlErrorKind};

/// A pattern's parts, and chrono's. The longest that fits counts.
const PARTS: &[(&str, &str)] = &[
    ("YYYY", "%Y"),
    ("IYYY", "%G"),
    ("YY", "%y"),
    ("FMMonth", "%B"),
    ("FMDay", "%A"),
    ("FMMM", "%-m"),
    ("FMDD", "%-d"),
    ("FMHH24", "%-H"),
    ("FMHH12", "%-I"),
    ("Mon", "%b"),
    ("MM", "%m"),
    ("MI", "%M"),
    ("MS", "%3f"),
    ("DDD", "%j"),
    ("DD", "%d"),
    ("Dy", "%a"),
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("HH", "%I"),
    ("SS", "%S"),
    ("US", "%6f"),
    ("IW", "%V"),
    ("ID", "%u"),
    ("AM", "%p"),
    ("PM", "%p"),
    ("am", "%P"),
    ("pm", "%P"),
    ("Q", "%q"),
];

/// Parts that chrono has nothing for: padded names, names in capitals, Julian days, eras.
const REFUSED: &[&str] = &[
    "MONTH", "Month", "month", "MON", "mon", "DAY", "Day", "day", "DY", "dy", "WW", "CC", "BC", "AD", "TZ", "OF", "FM", "TH",
    "th",
];

/// The same pattern in chrono's terms; `None`: it is one already.
///
/// # Errors
/// In words, for a part that chrono does not have.
pub(super) fn chrono_pattern(pattern: &str) -> Result<Option<String>, SqlError> {
    if pattern.contains('%') {
        return Ok(None);
    }
    let mut translated = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        if letter == '"' {
            let (quoted, behind) = rest[1..].split_once('"').unwrap_or((&rest[1..], ""));
            translated.push_str(quoted);
            rest = behind;
            continue;
        }
        let known = PARTS.iter().filter(|(part, _)| rest.starts_with(part)).max_by_key(|(part, _)| part.len());
        let refused = REFUSED.iter().filter(|part| rest.starts_with(**part)).max_by_key(|part| part.len());
        if let Some(part) = refused.filter(|part| known.is_none_or(|(known, _)| known.len() < part.len())) {
            let message = format!("{part} in the pattern '{pattern}' is not supported");
            return Err(SqlError::new(SqlErrorKind::Unsupported, Position::default(), message)
                .with_hint("chrono's patterns are taken as well: %B is a month's name"));
        }
        if let Some((part, chrono)) = known {
            translated.push_str(chrono);
            rest = &rest[part.len()..];
        } else {
            translated.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    Ok(Some(translated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_chronos() {
        let translated = |pattern| chrono_pattern(pattern).unwrap().unwrap();
        assert_eq!(translated("YYYY-MM-DD HH24:MI:SS.US"), "%Y-%m-%d %H:%M:%S.%6f");
        assert_eq!(translated("Dy, DD Mon YYYY \"at\" HH12:MI AM"), "%a, %d %b %Y at %I:%M %p");
        assert_eq!(translated("IYYY-IW, DDD"), "%G-%V, %j");
        assert_eq!(chrono_pattern("%Y").unwrap(), None);
        assert_eq!(chrono_pattern("DD Month").unwrap_err().message, "Month in the pattern 'DD Month' is not supported");
        assert_eq!(translated("FMMonth"), "%B");
    }
}
