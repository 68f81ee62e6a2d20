//! Any text is a script of statements or an error with its place, never a panic; and what was parsed parses again from its own text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livelake_queries::statement::parse_script;

fuzz_target!(|text: &str| {
    if let Ok(statements) = parse_script(text, Some("fuzz.sql")) {
        for statement in statements {
            let again = parse_script(&statement.text, None);
            assert!(again.is_ok_and(|again| again.len() == 1), "{}", statement.text);
        }
    }
});
