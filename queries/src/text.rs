//! How values are spelled where no library spells them so: the same in casts to text and in answers over PostgreSQL's protocol.

pub mod float;
pub mod json;
pub mod time;
