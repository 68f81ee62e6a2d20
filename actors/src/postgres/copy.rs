//! `COPY` as a statement: what is copied, which way, in which format.

use pgwire::error::{PgWireError, PgWireResult};

use super::error::{not_supported, wire};
use crate::statements::tokens;

/// A `COPY` statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) direction: Direction,
    pub(super) options: Options,
}

/// Which way rows go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// `COPY … TO STDOUT`.
    Out(Source),
    /// `COPY table [(columns)] FROM STDIN`.
    In { table: String, columns: Vec<String> },
}

/// Where rows to copy out come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A query, or what stands for one.
    Query(String),
    /// `SUBSCRIBE …`.
    Subscription(String),
}

/// The format of copied rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) csv: bool,
    pub(super) header: bool,
    pub(super) delimiter: u8,
    pub(super) null: String,
    pub(super) quote: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { csv: false, header: false, delimiter: b'\t', null: "\\N".to_owned(), quote: b'"' }
    }
}

impl Copy {
    /// The statement, if it is a `COPY`.
    pub(super) fn parse(sql: &str) -> PgWireResult<Option<Self>> {
        let tokens = tokens(sql);
        if !tokens.first().is_some_and(|word| word.eq_ignore_ascii_case("copy")) {
            return Ok(None);
        }
        let mut rest = &tokens[1..];
        if to_file(rest) {
            return Ok(None);
        }
        // COPY ( query ) …
        if rest.first() == Some(&"(") {
            let close = closing(rest).ok_or_else(|| syntax("a parenthesis is not closed"))?;
            let query = between(sql, rest[0], rest[close]).trim().to_owned();
            let first = rest.get(1).copied().unwrap_or_default();
            let source = if first.eq_ignore_ascii_case("subscribe") { Source::Subscription(query) } else { Source::Query(query) };
            let options = target(&rest[close + 1..], "to", "stdout")?;
            return Ok(Some(Self { direction: Direction::Out(source), options: parse_options(options)? }));
        }
        let mut name = String::new();
        while let Some((token, after)) = rest.split_first() {
            if !name.is_empty() && !name.ends_with('.') && *token != "." {
                break;
            }
            name.push_str(token);
            rest = after;
        }
        let mut columns = Vec::new();
        if rest.first() == Some(&"(") {
            let close = closing(rest).ok_or_else(|| syntax("a parenthesis is not closed"))?;
            columns = rest[1..close].iter().filter(|token| **token != ",").map(|token| (*token).to_owned()).collect();
            rest = &rest[close + 1..];
        }
        if rest.first().is_some_and(|word| word.eq_ignore_ascii_case("from")) {
            let options = parse_options(target(rest, "from", "stdin")?)?;
            let columns = columns.iter().map(|column| unquoted(column)).collect();
            return Ok(Some(Self { direction: Direction::In { table: relation(&name), columns }, options }));
        }
        let options = parse_options(target(rest, "to", "stdout")?)?;
        let list = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
        Ok(Some(Self { direction: Direction::Out(Source::Query(format!("SELECT {list} FROM {name}"))), options }))
    }
}

fn syntax(what: &str) -> PgWireError {
    let hint =
        "write COPY name FROM STDIN, COPY (query) TO STDOUT or COPY (SUBSCRIBE view) TO STDOUT, each [WITH (FORMAT csv, HEADER)]";
    wire("42601", format!("COPY: {what}"), Some(hint.to_owned()))
}

/// Whether rows go to a file of the lake: a statement like others, which sends no rows.
fn to_file(tokens: &[&str]) -> bool {
    let mut depth = 0_usize;
    let way = tokens.iter().position(|token| {
        match *token {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && (token.eq_ignore_ascii_case("to") || token.eq_ignore_ascii_case("from"))
    });
    way.is_some_and(|way| {
        tokens[way].eq_ignore_ascii_case("to") && tokens.get(way + 1).is_some_and(|token| token.starts_with('\''))
    })
}

/// `to stdout` or `from stdin`; gives what follows.
fn target<'a, 'b>(tokens: &'a [&'b str], way: &str, stream: &str) -> PgWireResult<&'a [&'b str]> {
    match tokens {
        [first, second, rest @ ..] if first.eq_ignore_ascii_case(way) && second.eq_ignore_ascii_case(stream) => Ok(rest),
        [first, ..] if first.eq_ignore_ascii_case(way) => Err(not_supported(
            format!("COPY {} a file of the server", way.to_uppercase()),
            "copy to or from the client: STDOUT, STDIN, or psql's \\copy",
        )),
        _ => Err(syntax(&format!("{} {} is missing", way.to_uppercase(), stream.to_uppercase()))),
    }
}

/// The options in either of PostgreSQL's spellings.
fn parse_options(tokens: &[&str]) -> PgWireResult<Options> {
    let mut words: Vec<&str> = tokens.iter().copied().filter(|token| !matches!(*token, "(" | ")" | "," | "=")).collect();
    words.retain(|word| !word.eq_ignore_ascii_case("with"));
    let mut options = Options::default();
    let mut delimiter = None;
    let mut null = None;
    let mut at = 0;
    let flag = |word: Option<&&str>| match word.map(|word| word.trim_matches('\'').to_ascii_lowercase()).as_deref() {
        Some("true" | "on" | "1") => Some(true),
        Some("false" | "off" | "0") => Some(false),
        _ => None,
    };
    while at < words.len() {
        let value = words.get(at + 1).map(|word| literal(word));
        let need = |what: &str| value.clone().ok_or_else(|| syntax(&format!("{what} needs a value")));
        let mut used = 2;
        match words[at].to_ascii_lowercase().as_str() {
            "format" => match need("FORMAT")?.to_ascii_lowercase().as_str() {
                "csv" => options.csv = true,
                "text" => {}
                other => return Err(not_supported(format!("COPY in format {other}"), "use text or csv")),
            },
            "csv" => {
                options.csv = true;
                used = 1;
            }
            "header" => {
                let given = flag(words.get(at + 1));
                options.header = given.unwrap_or(true);
                used = if given.is_some() { 2 } else { 1 };
            }
            "delimiter" | "delimiters" => {
                delimiter = Some(one_byte("DELIMITER", &need("DELIMITER")?)?);
            }
            "null" => null = Some(need("NULL")?),
            "quote" => options.quote = one_byte("QUOTE", &need("QUOTE")?)?,
            "escape" => {
                if one_byte("ESCAPE", &need("ESCAPE")?)? != options.quote {
                    return Err(not_supported("COPY with an ESCAPE that is not the QUOTE", "double the quote inside quotes"));
                }
            }
            "encoding" => {
                if !matches!(need("ENCODING")?.to_ascii_lowercase().as_str(), "utf8" | "utf-8") {
                    return Err(not_supported("COPY in an encoding other than UTF8", "convert the data to UTF-8"));
                }
            }
            other => return Err(syntax(&format!("there is no option {other}"))),
        }
        at += used;
    }
    options.delimiter = delimiter.unwrap_or(if options.csv { b',' } else { b'\t' });
    options.null = null.unwrap_or_else(|| if options.csv { String::new() } else { "\\N".to_owned() });
    Ok(options)
}

fn one_byte(what: &str, value: &str) -> PgWireResult<u8> {
    match value.as_bytes() {
        [byte] if !matches!(byte, b'\n' | b'\r') => Ok(*byte),
        _ => Err(syntax(&format!("{what} must be one character"))),
    }
}

/// A string literal's text; `E'\t'` too.
fn literal(token: &str) -> String {
    if let Some(escaped) = token.strip_prefix(['e', 'E']).filter(|rest| rest.starts_with('\'')) {
        return escaped.trim_matches('\'').replace("\\t", "\t").replace("\\\\", "\\");
    }
    match token.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inner) => inner.replace("''", "'"),
        None => token.to_owned(),
    }
}

/// A name as the catalog knows it: folded to lower case unless quoted.
fn unquoted(token: &str) -> String {
    match token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => token.to_lowercase(),
    }
}

/// `schema.name` of a written name.
fn relation(written: &str) -> String {
    let parts: Vec<_> = tokens(written).into_iter().filter(|token| *token != ".").map(unquoted).collect();
    match parts.as_slice() {
        [name] => format!("public.{name}"),
        [.., schema, name] => format!("{schema}.{name}"),
        [] => String::new(),
    }
}

/// Where the parenthesis that opens `tokens` closes.
fn closing(tokens: &[&str]) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        match *token {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(index);
        }
    }
    None
}

/// The text between two tokens of `sql`, both being slices of it.
fn between<'a>(sql: &'a str, open: &str, close: &str) -> &'a str {
    let offset = |token: &str| token.as_ptr() as usize - sql.as_ptr() as usize;
    &sql[offset(open) + open.len()..offset(close)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(sql: &str) -> Copy {
        Copy::parse(sql).unwrap().unwrap()
    }

    #[test]
    fn both_ways_and_spellings_are_read() {
        assert!(Copy::parse("SELECT 1").unwrap().is_none());
        let copy = parse("copy (SELECT ')', f(1) FROM x) to STDOUT WITH (FORMAT csv, HEADER, DELIMITER ';', NULL 'nil')");
        assert_eq!(copy.direction, Direction::Out(Source::Query("SELECT ')', f(1) FROM x".to_owned())));
        assert_eq!(copy.options, Options { csv: true, header: true, delimiter: b';', null: "nil".to_owned(), quote: b'"' });
        let copy = parse("COPY (SUBSCRIBE city.zones AS OF 5) TO STDOUT");
        assert_eq!(copy.direction, Direction::Out(Source::Subscription("SUBSCRIBE city.zones AS OF 5".to_owned())));
        assert_eq!(copy.options, Options::default());
        let copy = parse("COPY City.\"Zones\" (Id, \"Name\") FROM STDIN CSV HEADER");
        let columns = vec!["id".to_owned(), "Name".to_owned()];
        assert_eq!(copy.direction, Direction::In { table: "city.Zones".to_owned(), columns });
        assert!(copy.options.csv && copy.options.header && copy.options.delimiter == b',' && copy.options.null.is_empty());
        let copy = parse("COPY notes TO STDOUT (HEADER false, DELIMITER E'\\t')");
        assert_eq!(copy.direction, Direction::Out(Source::Query("SELECT * FROM notes".to_owned())));
        assert_eq!((copy.options.header, copy.options.delimiter), (false, b'\t'));
    }

    #[test]
    fn what_cannot_be_copied_is_refused() {
        for sql in [
            "COPY notes FROM '/etc/passwd'",
            "COPY notes TO STDOUT (FORMAT binary)",
            "COPY (SELECT 1 TO STDOUT",
            "COPY notes",
            "COPY",
            "COPY notes TO STDOUT (SPEED 9)",
        ] {
            assert!(Copy::parse(sql).is_err(), "{sql}");
        }
    }
}
