//! `WITH (name = 'value', …)`: names may be dotted, values are text whatever they were written as.

use std::str::FromStr;

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::{Position, SqlError, SqlErrorKind, nearest};

/// One `name = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorOption {
    /// The name, with its dots, in lower case unless quoted.
    pub name: String,
    /// The value. It may hold secrets once [`Options::resolve`]d: don't print it.
    pub value: String,
    /// Where the name is.
    pub position: Position,
}

/// All of a statement's options, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    entries: Vec<ConnectorOption>,
    /// Where the statement is, for errors about options that are missing.
    statement: Position,
}

impl Options {
    /// All, in the order written.
    pub fn iter(&self) -> impl Iterator<Item = &ConnectorOption> {
        self.entries.iter()
    }

    /// An option's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entry(name).map(|entry| entry.value.as_str())
    }

    /// An option with its place.
    pub fn entry(&self, name: &str) -> Option<&ConnectorOption> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The value of an option that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn require(&self, name: &str) -> Result<&str, SqlError> {
        self.get(name).ok_or_else(|| {
            SqlError::new(SqlErrorKind::InvalidOption, self.statement.clone(), format!("the option {name} is missing"))
                .with_hint(format!("add {name} = '…' to WITH (…)"))
        })
    }

    /// A value parsed as a number or the like; `expected` says what it should be (`a whole number`).
    ///
    /// # Errors
    /// If it does not parse.
    pub fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, SqlError> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        entry.value.trim().parse().map(Some).map_err(|_| self.invalid(entry, expected))
    }

    /// A yes or no: true, false, on, off, yes, no, 1, 0.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, SqlError> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        match entry.value.trim().to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Ok(Some(true)),
            "false" | "off" | "no" | "0" => Ok(Some(false)),
            _ => Err(self.invalid(entry, "true or false")),
        }
    }

    /// One of some words, without regard to case; what is returned is the word of the list.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn one_of<'a>(&self, name: &str, words: &[&'a str]) -> Result<Option<&'a str>, SqlError> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        match words.iter().find(|word| word.eq_ignore_ascii_case(entry.value.trim())) {
            Some(word) => Ok(Some(word)),
            None => {
                let near = nearest(&entry.value, words.iter().copied()).map(|word| format!("did you mean {word}?"));
                Err(self.invalid(entry, &words.join(", ")).with_optional_hint(near))
            }
        }
    }

    /// Options whose names begin with `prefix` (`properties.`), without it.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.entries.iter().filter_map(move |entry| Some((entry.name.strip_prefix(prefix)?, entry.value.as_str())))
    }

    /// Checks that every option is one of `known`; a known name that ends in `.` stands for all that begin so.
    ///
    /// # Errors
    /// The first that is not, with the nearest known name.
    pub fn check_known(&self, known: &[&str]) -> Result<(), SqlError> {
        let fits = |name: &str| known.iter().any(|k| *k == name || (k.ends_with('.') && name.starts_with(k)));
        match self.entries.iter().find(|entry| !fits(&entry.name)) {
            None => Ok(()),
            Some(entry) => {
                let hint = match nearest(&entry.name, known.iter().copied()) {
                    Some(name) => format!("did you mean {name}?"),
                    None => format!("there are {}", known.join(", ")),
                };
                let message = format!("unknown option {}", entry.name);
                Err(SqlError::new(SqlErrorKind::InvalidOption, entry.position.clone(), message).with_hint(hint))
            }
        }
    }

    /// Replaces `${NAME}` in every value by what `lookup` says (the environment, usually).
    ///
    /// # Errors
    /// Names the first name that `lookup` does not know, or a `${` that is not closed.
    pub fn resolve(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Options, SqlError> {
        let mut resolved = self.clone();
        for entry in &mut resolved.entries {
            entry.value = substitute(entry, lookup)?;
        }
        Ok(resolved)
    }

    /// An error about an option's value that says what it should have been.
    pub fn invalid(&self, entry: &ConnectorOption, expected: &str) -> SqlError {
        let message = format!("option {} must be {expected}", entry.name);
        SqlError::new(SqlErrorKind::InvalidOption, entry.position.clone(), message)
    }

    /// Reads `WITH (…)` if it is there.
    pub(super) fn parse(parser: &mut Parser<'_>, statement: &Position) -> Result<Options, ParserError> {
        let mut entries: Vec<ConnectorOption> = Vec::new();
        if !parser.parse_keyword(Keyword::WITH) {
            return Ok(Options { entries, statement: statement.clone() });
        }
        parser.expect_token(&Token::LParen)?;
        while !parser.consume_token(&Token::RParen) {
            let start = parser.peek_token();
            let name = parse_name(parser)?;
            parser.expect_token(&Token::Eq)?;
            let value = parse_value(parser)?;
            if entries.iter().any(|entry| entry.name == name) {
                return parser.expected(&format!("each option once, but {name} is given again"), start);
            }
            entries.push(ConnectorOption { name, value, position: statement.at(start.span.start) });
            if !parser.consume_token(&Token::Comma) {
                parser.expect_token(&Token::RParen)?;
                break;
            }
        }
        Ok(Options { entries, statement: statement.clone() })
    }
}

/// `time.precision.mode`, `headers.X-Api-Key`, `"any text"`.
fn parse_name(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    let mut name = String::new();
    loop {
        let token = parser.next_token();
        match token.token {
            Token::Word(word) if word.quote_style.is_some() => name.push_str(&word.value),
            Token::Word(word) => name.push_str(&word.value.to_lowercase()),
            Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => name.push_str(&text),
            Token::Number(digits, _) => name.push_str(&digits),
            _ => return parser.expected("the name of an option", token),
        }
        if parser.consume_token(&Token::Period) {
            name.push('.');
        } else if parser.consume_token(&Token::Minus) {
            name.push('-');
        } else {
            return Ok(name);
        }
    }
}

fn parse_value(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    let token = parser.next_token();
    match token.token {
        Token::SingleQuotedString(text)
        | Token::DoubleQuotedString(text)
        | Token::EscapedStringLiteral(text)
        | Token::UnicodeStringLiteral(text)
        | Token::NationalStringLiteral(text) => Ok(text),
        Token::DollarQuotedString(text) => Ok(text.value),
        Token::Number(digits, _) => Ok(digits),
        Token::Minus => Ok(format!("-{}", parser.parse_number_value()?.value)),
        Token::Word(word) => Ok(word.value),
        _ => parser.expected("a value in quotes", token),
    }
}

fn substitute(entry: &ConnectorOption, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, SqlError> {
    let error = |message: String| SqlError::new(SqlErrorKind::InvalidOption, entry.position.clone(), message);
    let mut text = String::with_capacity(entry.value.len());
    let mut rest = entry.value.as_str();
    while let Some(start) = rest.find("${") {
        text.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let end = after.find('}').ok_or_else(|| error(format!("option {} has a ${{ without }}", entry.name)))?;
        let name = &after[..end];
        let value = lookup(name).ok_or_else(|| {
            error(format!("option {} needs {name}, which is not set in the environment", entry.name))
                .with_hint(format!("set it: {name}=…"))
        })?;
        text.push_str(&value);
        rest = &after[end + 1..];
    }
    text.push_str(rest);
    Ok(text)
}
