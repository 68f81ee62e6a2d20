//! The fields of one kind of JSON object, found by their place.
//!
//! Messages of one origin have the same fields in the same order, so a shape remembers which field stood where in the object before
//! and compares the bytes first; only a field that is somewhere else is looked up by its name.

use hashbrown::HashMap;

use super::cursor::{Cursor, Fault};

/// What a field is to the reader of its object: a number that the reader chose, or one of [`KNOWN`] and [`UNKNOWN`].
pub(crate) type Target = u16;
/// A field that is declared but not read.
pub(crate) const KNOWN: Target = Target::MAX - 1;
/// A field that is not declared.
pub(crate) const UNKNOWN: Target = Target::MAX;

/// Fields whose place is remembered at most.
const PLACES_MAX: usize = 2048;

/// A field in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) target: Target,
    /// Whether the name matches only without regard to case; a field of the exact name counts more.
    pub(crate) loose: bool,
}

#[derive(Debug)]
struct Place {
    /// `"name":`, as it stood in the last object.
    quoted: Box<[u8]>,
    found: Found,
}

/// `starts_with` for names: of a few bytes, where calling the library's comparison costs more than comparing.
#[inline(always)]
fn begins_with(text: &[u8], name: &[u8]) -> bool {
    let Some(text) = text.get(..name.len()) else { return false };
    let (text_words, text_rest) = text.as_chunks::<8>();
    let (name_words, name_rest) = name.as_chunks::<8>();
    let same = |(one, other): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*one) == u64::from_ne_bytes(*other);
    if !text_words.iter().zip(name_words).all(same) {
        return false;
    }
    match (text.last_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(one), Some(other)) => same((one, other)),
        _ => text_rest.iter().zip(name_rest).all(|(one, other)| one == other),
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    exact: HashMap<Box<str>, Target>,
    folded: HashMap<Box<str>, Target>,
    places: Vec<Place>,
    scratch: Vec<u8>,
}

impl Shape {
    /// A shape of these names. `folding`: names match without regard to case where no exact one does.
    pub(crate) fn new<'n>(names: impl IntoIterator<Item = (&'n str, Target)>, folding: bool) -> Self {
        let mut shape = Shape::default();
        for (name, target) in names {
            shape.exact.insert(name.into(), target);
            if folding {
                shape.folded.entry(name.to_lowercase().into()).or_insert(target);
            }
        }
        shape
    }

    /// What a name is.
    pub(crate) fn find(&self, name: &str) -> Found {
        match self.exact.get(name) {
            Some(target) => Found { target: *target, loose: false },
            None if self.folded.is_empty() => Found { target: UNKNOWN, loose: false },
            None => match self.folded.get(name.to_lowercase().as_str()) {
                Some(target) => Found { target: *target, loose: true },
                None => Found { target: UNKNOWN, loose: false },
            },
        }
    }

    /// Walks over the object at the cursor. `on_field` is called with the cursor on each field's value and must pass over it.
    #[inline]
    pub(crate) fn walk<'a, F>(&mut self, cursor: &mut Cursor<'a>, mut on_field: F) -> Result<(), Fault>
    where
        F: FnMut(&mut Cursor<'a>, Found) -> Result<(), Fault>,
    {
        cursor.expect(b'{')?;
        let mut index = 0;
        loop {
            let found = match self.places.get(index) {
                Some(place) if begins_with(cursor.rest(), &place.quoted) => {
                    cursor.pass(place.quoted.len());
                    if let Some(b' ' | b'\t') = cursor.byte() {
                        cursor.skip_space();
                    }
                    place.found
                }
                _ => match self.look_up(cursor, index)? {
                    Some(found) => found,
                    None => return Ok(()),
                },
            };
            on_field(cursor, found)?;
            match cursor.byte() {
                Some(b',') => cursor.pass(1),
                Some(b'}') => {
                    cursor.pass(1);
                    return Ok(());
                }
                _ => {
                    cursor.skip_space();
                    match cursor.byte() {
                        Some(b',') => cursor.pass(1),
                        Some(b'}') => {
                            cursor.pass(1);
                            return Ok(());
                        }
                        _ => return Err(cursor.unexpected("',' or '}'")),
                    }
                }
            }
            index += 1;
        }
    }

    /// Reads a field's name the long way and remembers its place. `None` at the end of an empty object.
    #[cold]
    fn look_up(&mut self, cursor: &mut Cursor<'_>, index: usize) -> Result<Option<Found>, Fault> {
        cursor.skip_space();
        if index == 0 && cursor.byte() == Some(b'}') {
            cursor.pass(1);
            return Ok(None);
        }
        if cursor.byte() != Some(b'"') {
            return Err(cursor.unexpected("a field's name"));
        }
        let start = cursor.rest();
        let mut scratch = std::mem::take(&mut self.scratch);
        let found = match cursor.token(&mut scratch)? {
            super::cursor::Token::Text(name) => self.find(name),
            _ => Found { target: UNKNOWN, loose: false },
        };
        self.scratch = scratch;
        let name_length = start.len() - cursor.rest().len();
        cursor.expect(b':')?;
        let length = start.len() - cursor.rest().len();
        if length == name_length + 1 && index < PLACES_MAX {
            let place = Place { quoted: start[..length].into(), found };
            if index < self.places.len() {
                self.places[index] = place;
            } else if index == self.places.len() {
                self.places.push(place);
            }
        }
        cursor.skip_space();
        Ok(Some(found))
    }
}
