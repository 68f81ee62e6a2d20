//! Where one SQL statement ends and the next begins, without parsing either: what a prompt, a client and a wire protocol need to know of a
//! string that may hold several statements in dialects of their own.

/// A statement in a longer text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Its text without the semicolon and without white space or comments around it.
    pub text: &'a str,
    /// Whether a semicolon closed it.
    pub closed: bool,
}

/// The statements of `sql` in order. Semicolons in strings, quoted names, dollar quotes, comments and parentheses do not end a statement.
pub fn split(sql: &str) -> Vec<Statement<'_>> {
    let bytes = sql.as_bytes();
    let mut statements = Vec::new();
    // Where the current statement's first and last tokens are.
    let mut span: Option<(usize, usize)> = None;
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        if let Some(end) = blank_end(bytes, at) {
            at = end;
            continue;
        }
        if bytes[at] == b';' && depth == 0 {
            if let Some((start, end)) = span.take() {
                statements.push(Statement { text: &sql[start..end], closed: true });
            }
            at += 1;
            continue;
        }
        match bytes[at] {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let end = token_end(sql, at);
        span = Some((span.map_or(at, |(start, _)| start), end));
        at = end;
    }
    if let Some((start, end)) = span {
        statements.push(Statement { text: &sql[start..end], closed: false });
    }
    statements
}

/// Tokens of a statement, comments and white space left out: words and numbers, quoted things whole, single characters.
pub fn tokens(sql: &str) -> Vec<&str> {
    let bytes = sql.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match blank_end(bytes, at) {
            Some(end) => at = end,
            None => {
                let end = token_end(sql, at);
                tokens.push(&sql[at..end]);
                at = end;
            }
        }
    }
    tokens
}

/// The end of white space or a comment that begins at `at`.
fn blank_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at].is_ascii_whitespace() {
        return Some(at + 1);
    }
    if bytes[at..].starts_with(b"--") {
        return Some(memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |offset| at + offset + 1));
    }
    if bytes[at..].starts_with(b"/*") {
        let mut depth = 0_usize;
        let mut end = at;
        while end < bytes.len() {
            if bytes[end..].starts_with(b"/*") {
                depth += 1;
                end += 2;
            } else if bytes[end..].starts_with(b"*/") {
                depth -= 1;
                end += 2;
                if depth == 0 {
                    return Some(end);
                }
            } else {
                end += 1;
            }
        }
        return Some(bytes.len());
    }
    None
}

/// The end of the token that begins at `at`; an unclosed quote reaches to the end of the text.
fn token_end(sql: &str, at: usize) -> usize {
    let bytes = sql.as_bytes();
    match bytes[at] {
        b'\'' => quoted_end(bytes, at, b'\'', false),
        b'"' => quoted_end(bytes, at, b'"', false),
        b'e' | b'E' if bytes.get(at + 1) == Some(&b'\'') => quoted_end(bytes, at + 1, b'\'', true),
        b'$' => dollar_end(sql, at),
        first if word_byte(first) => {
            bytes[at..].iter().position(|byte| !word_byte(*byte) && *byte != b'$').map_or(bytes.len(), |length| at + length)
        }
        _ => at + 1,
    }
}

/// Letters of every alphabet count as parts of words, so a token never ends inside a character.
fn word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn quoted_end(bytes: &[u8], at: usize, quote: u8, escapes: bool) -> usize {
    let mut end = at + 1;
    while end < bytes.len() {
        if escapes && bytes[end] == b'\\' {
            end += 2;
        } else if bytes[end] != quote {
            end += 1;
        } else if bytes.get(end + 1) == Some(&quote) {
            end += 2;
        } else {
            return end + 1;
        }
    }
    bytes.len()
}

/// `$tag$ … $tag$`, or a parameter such as `$1`.
fn dollar_end(sql: &str, at: usize) -> usize {
    let bytes = sql.as_bytes();
    let mut tag_end = at + 1;
    while tag_end < bytes.len() && word_byte(bytes[tag_end]) {
        tag_end += 1;
    }
    let is_tag = bytes.get(tag_end) == Some(&b'$') && !bytes[at + 1].is_ascii_digit();
    if !is_tag {
        return tag_end;
    }
    let tag = &bytes[at..=tag_end];
    memchr::memmem::find(&bytes[tag_end + 1..], tag).map_or(bytes.len(), |offset| tag_end + 1 + offset + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        split(sql).iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_count_only_between_statements() {
        assert_eq!(texts("select 1; select 2"), ["select 1", "select 2"]);
        assert_eq!(texts(" ;; ;"), [""; 0]);
        assert_eq!(
            texts("select ';', \";\", E'\\';', $$;$$, $x$ ; $$ $x$ -- ; \n, /* ; /* ; */ ; */ 2;a"),
            ["select ';', \";\", E'\\';', $$;$$, $x$ ; $$ $x$ -- ; \n, /* ; /* ; */ ; */ 2", "a"]
        );
        assert_eq!(texts("-- only a comment\n"), [""; 0]);
        assert_eq!(texts("select 'it''s;'; select $1;"), ["select 'it''s;'", "select $1"]);
    }

    #[test]
    fn unclosed_things_reach_to_the_end() {
        for sql in ["select 'a;", "select \"a;", "select $$a;", "select (a;", "select E'\\"] {
            let statements = split(sql);
            assert_eq!(statements.len(), 1, "{sql}");
            assert!(!statements[0].closed, "{sql}");
        }
        assert!(split("select 1;")[0].closed);
    }

    #[test]
    fn tokens_are_whole_words_and_quotes() {
        assert_eq!(
            tokens("COPY (a.\"B c\") TO/**/STDOUT,$1 'x''y' été"),
            ["COPY", "(", "a", ".", "\"B c\"", ")", "TO", "STDOUT", ",", "$1", "'x''y'", "été"]
        );
    }
}
