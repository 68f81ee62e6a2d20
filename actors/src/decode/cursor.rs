//! A place in one JSON text, moving forward over it. Long things (strings, nested values) are skipped by sonic-rs's vector code,
//! short ones (numbers, literals, separators) byte by byte, which is faster for the few bytes that they have.

use sonic_rs::Read;
use sonic_rs::parser::Parser;
use sonic_rs::reader::Reader as _;

/// Why a JSON text cannot be read on.
#[derive(Debug)]
pub(crate) struct Fault(Box<str>);

impl Fault {
    #[cold]
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Fault(reason.into().into_boxed_str())
    }

    pub(crate) fn into_reason(self) -> String {
        self.0.into_string()
    }
}

/// A value as it stands in the text.
#[derive(Debug)]
pub(crate) enum Token<'c> {
    Null,
    Truth(bool),
    Number(&'c [u8]),
    /// Unescaped.
    Text(&'c str),
    /// An object or array, checked to be well-formed.
    Nested(&'c str),
}

/// See the module.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    parser: Parser<Read<'a>>,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn new(text: &'a str) -> Self {
        Cursor { text, at: 0, parser: Parser::new(Read::from(text)) }
    }

    /// What is not yet passed.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        // `at` never passes the end.
        &self.text.as_bytes()[self.at..]
    }

    /// The next byte.
    #[inline]
    pub(crate) fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over bytes that have been looked at.
    #[inline]
    pub(crate) fn pass(&mut self, count: usize) {
        self.at = (self.at + count).min(self.text.len());
    }

    #[inline]
    pub(crate) fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.byte() {
            self.at += 1;
        }
    }

    /// Passes over white space and this byte.
    pub(crate) fn expect(&mut self, wanted: u8) -> Result<(), Fault> {
        self.skip_space();
        if self.byte() == Some(wanted) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.unexpected(&format!("'{}'", char::from(wanted))))
        }
    }

    /// Fails unless only white space is left.
    #[inline]
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.unexpected("the end of the message")) }
    }

    /// Passes over a value that nobody reads: strings and nesting are followed, and what else there is must look like a number or
    /// a literal.
    #[inline]
    pub(crate) fn skip(&mut self) -> Result<(), Fault> {
        match self.byte() {
            Some(b'0'..=b'9' | b'-') => {
                self.at += 1;
                while let Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') = self.byte() {
                    self.at += 1;
                }
                Ok(())
            }
            Some(b'"') => self.skip_long(true),
            Some(b'{' | b'[') => self.skip_long(false),
            _ => self.literal().map(|_| ()),
        }
    }

    /// The text of the value here, passed over as by [`skip`](Self::skip).
    #[inline]
    pub(crate) fn raw(&mut self) -> Result<&'a str, Fault> {
        let start = self.at;
        self.skip()?;
        Ok(self.slice(start))
    }

    #[inline]
    fn slice(&self, start: usize) -> &'a str {
        // Both ends lie beside ASCII characters, so this never is `None`.
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn skip_long(&mut self, checked: bool) -> Result<(), Fault> {
        self.parser.read.set_index(self.at);
        if self.parser.skip_one(checked).is_err() {
            return Err(self.broken());
        }
        self.at = self.parser.read.index();
        if self.at > self.text.len() {
            self.at = self.text.len();
            return Err(self.broken());
        }
        Ok(())
    }

    /// Passes over `null`, `true` or `false`.
    fn literal(&mut self) -> Result<Option<bool>, Fault> {
        let rest = self.rest();
        let (value, length) = if rest.starts_with(b"null") {
            (None, 4)
        } else if rest.starts_with(b"true") {
            (Some(true), 4)
        } else if rest.starts_with(b"false") {
            (Some(false), 5)
        } else {
            return Err(self.unexpected("a value"));
        };
        self.at += length;
        Ok(value)
    }

    /// Reads the value here, checked through and through. Strings with escapes are put together in `scratch`.
    pub(crate) fn token<'c>(&mut self, scratch: &'c mut Vec<u8>) -> Result<Token<'c>, Fault>
    where
        'a: 'c,
    {
        let start = self.at;
        match self.byte() {
            Some(first @ (b'0'..=b'9' | b'-')) => {
                self.parser.read.set_index(self.at + 1);
                if self.parser.skip_number(first).is_err() {
                    return Err(self.broken());
                }
                self.at = self.parser.read.index();
                Ok(Token::Number(self.slice(start).as_bytes()))
            }
            Some(b'"') => {
                self.parser.read.set_index(self.at + 1);
                match self.parser.parse_str(scratch) {
                    Ok(sonic_rs::parser::Reference::Borrowed(text)) => {
                        self.at = self.parser.read.index();
                        Ok(Token::Text(text))
                    }
                    Ok(sonic_rs::parser::Reference::Copied(text)) => {
                        self.at = self.parser.read.index();
                        Ok(Token::Text(text))
                    }
                    Err(_) => Err(self.broken()),
                }
            }
            Some(b'{' | b'[') => {
                self.skip_long(true)?;
                Ok(Token::Nested(self.slice(start)))
            }
            _ => Ok(match self.literal()? {
                None => Token::Null,
                Some(value) => Token::Truth(value),
            }),
        }
    }

    /// Whether `null` stands here; passes over it.
    #[inline]
    pub(crate) fn null(&mut self) -> bool {
        let found = self.rest().starts_with(b"null");
        self.at += if found { 4 } else { 0 };
        found
    }

    #[cold]
    pub(crate) fn unexpected(&self, wanted: &str) -> Fault {
        match self.text[floor_boundary(self.text, self.at)..].chars().next() {
            None => Fault::new(format!("malformed JSON: it ends at byte {} where {wanted} should be", self.at)),
            Some(found) => Fault::new(format!("malformed JSON: {found:?} at byte {} where {wanted} should be", self.at)),
        }
    }

    #[cold]
    fn broken(&self) -> Fault {
        let what = match self.byte() {
            Some(b'"') => "the string",
            Some(b'{') => "the object",
            Some(b'[') => "the array",
            _ => "the number",
        };
        Fault::new(format!("malformed JSON: {what} that begins at byte {} is cut off or wrong", self.at))
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
