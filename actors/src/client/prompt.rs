//! `livelake sql` without a statement: read until a semicolon, ask, print, go on.

use std::io::{BufRead, Write};
use std::time::Instant;

use super::{ClientError, OutputFormat};
use crate::statements::split;

/// Runs a prompt over `input` until its end or `\q`. Statements may span lines and end with a semicolon; errors are printed and the prompt
/// goes on. With `interactive` a prompt and the time each statement took are shown.
///
/// # Errors
/// Only when input or output fail: what the lake refuses is printed.
pub fn run(
    url: &str,
    format: OutputFormat,
    interactive: bool,
    input: &mut dyn BufRead,
    out: &mut (dyn Write + Send),
    errors: &mut dyn Write,
) -> Result<(), ClientError> {
    if interactive {
        writeln!(out, "livelake at {url}: end statements with a semicolon, leave with \\q, help with \\?")
            .map_err(ClientError::output)?;
    }
    let mut pending = String::new();
    loop {
        if interactive {
            let prompt = if pending.trim().is_empty() { "lake=> " } else { "lake-> " };
            write!(out, "{prompt}").and_then(|()| out.flush()).map_err(ClientError::output)?;
        }
        let mut line = String::new();
        if input.read_line(&mut line).map_err(ClientError::output)? == 0 {
            if interactive {
                writeln!(out).map_err(ClientError::output)?;
            }
            // What was not closed is still run: `echo 'SELECT 1' | livelake sql` means it.
            return answer(url, &pending, format, interactive, out, errors).map(drop);
        }
        if pending.trim().is_empty()
            && let Some(sql) = command(line.trim())
        {
            match sql {
                Command::Quit => return Ok(()),
                Command::Help => writeln!(out, "{HELP}").map_err(ClientError::output)?,
                Command::Sql(sql) => answer(url, &sql, format, interactive, out, errors)?,
                Command::Unknown => {
                    writeln!(errors, "there is no command {}: try \\?", line.trim()).map_err(ClientError::output)?
                }
            }
            continue;
        }
        pending.push_str(&line);
        // Only once the last statement is closed is nothing of it missing.
        if split(&pending).last().is_none_or(|last| last.closed) {
            let statements = std::mem::take(&mut pending);
            answer(url, &statements, format, interactive, out, errors)?;
        }
    }
}

const HELP: &str = "\\d            all relations
\\d NAME       a relation's columns
\\q            leave
SELECT …;     any query; AS OF t at its end answers as of then
SUBSCRIBE v;  follows a view (interrupt to stop)";

enum Command {
    Quit,
    Help,
    Sql(String),
    Unknown,
}

fn command(line: &str) -> Option<Command> {
    if !line.starts_with('\\') {
        return None;
    }
    let mut words = line.split_whitespace();
    Some(match (words.next(), words.next()) {
        (Some("\\q"), _) => Command::Quit,
        (Some("\\?" | "\\h"), _) => Command::Help,
        (Some("\\d"), Some(name)) => Command::Sql(format!("SHOW COLUMNS FROM {name}")),
        (Some("\\d"), None) => Command::Sql("SHOW SOURCES; SHOW TABLES; SHOW VIEWS; SHOW MATERIALIZED VIEWS".to_owned()),
        _ => Command::Unknown,
    })
}

fn answer(
    url: &str,
    sql: &str,
    format: OutputFormat,
    interactive: bool,
    out: &mut (dyn Write + Send),
    errors: &mut dyn Write,
) -> Result<(), ClientError> {
    for statement in split(sql) {
        let start = Instant::now();
        match super::sql(url, statement.text, format, out) {
            Ok(()) if interactive => {
                writeln!(out, "{:.1} ms", start.elapsed().as_secs_f64() * 1e3).map_err(ClientError::output)?
            }
            Ok(()) => {}
            Err(ClientError::Output { what, source }) => return Err(ClientError::Output { what, source }),
            Err(error) => writeln!(errors, "error: {error}").map_err(ClientError::output)?,
        }
    }
    Ok(())
}
