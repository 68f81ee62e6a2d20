//! The 22 queries, as SQL text. Query 10 writes files in the reference and computes nothing.

/// One of them.
#[derive(Debug)]
pub struct Query {
    /// `q0` to `q22`.
    pub name: &'static str,
    /// A SELECT, with what it is for and where it departs from the reference as its comment.
    pub sql: &'static str,
}

/// The streams that they read.
pub const SCHEMA: &str = include_str!("queries/schema.sql");

macro_rules! queries {
    ($($name:literal)*) => {
        /// All of them, in their order.
        pub const QUERIES: &[Query] = &[$(Query { name: $name, sql: include_str!(concat!("queries/", $name, ".sql")) }),*];
    };
}

queries! {
    "q0" "q1" "q2" "q3" "q4" "q5" "q6" "q7" "q8" "q9" "q11" "q12" "q13" "q14" "q15" "q16" "q17" "q18" "q19" "q20" "q21" "q22"
}
