//! Text cut into lines, each checked to be UTF-8.

/// Calls `on_line` with each line of `bytes`: its place from 0, and its text or (if it is not UTF-8) its bytes. An unended last line
/// counts only if `last`. Blank lines have a place but are passed over. Returns the bytes used up and the number of lines.
///
/// # Errors
/// What `on_line` returns.
pub(crate) fn each_line<'a, E>(
    bytes: &'a [u8],
    last: bool,
    mut on_line: impl FnMut(u64, Result<&'a str, &'a [u8]>) -> Result<(), E>,
) -> Result<(usize, u64), E> {
    let (mut start, mut line) = (0, 0);
    while start < bytes.len() {
        // A stretch of whole lines that fits the processor's cache is checked at once, which is far cheaper than line by line and
        // has it at hand for decoding; only where that fails is the bad line looked for.
        let stretch = match memchr::memrchr(b'\n', &bytes[start..bytes.len().min(start + STRETCH)]) {
            Some(length) => start + length + 1,
            None => match memchr::memchr(b'\n', &bytes[start..]) {
                Some(length) => start + length + 1,
                None if last => bytes.len(),
                None => break,
            },
        };
        let lines = &bytes[start..stretch];
        let whole = simdutf8::basic::from_utf8(lines).ok();
        let mut at = 0;
        while at < lines.len() {
            let (end, next) = match memchr::memchr(b'\n', &lines[at..]) {
                Some(length) => (at + length, at + length + 1),
                None => (lines.len(), lines.len()),
            };
            let raw = &lines[at..end];
            let text = match whole {
                // A line feed is never part of another character, so this slice always exists.
                Some(whole) => whole.get(at..end).ok_or(raw),
                None => std::str::from_utf8(raw).map_err(|_| raw),
            };
            let blank = raw.first().is_none_or(|byte| *byte <= b' ') && raw.trim_ascii().is_empty();
            if !blank {
                on_line(line, text)?;
            }
            line += 1;
            at = next;
        }
        start = stretch;
    }
    Ok((start, line))
}

/// Bytes that are checked to be text at once.
const STRETCH: usize = 128 << 10;

/// What a file that begins with a byte order mark begins with.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8], last: bool) -> (Vec<(u64, Option<&str>)>, usize, u64) {
        let mut found = Vec::new();
        let (used, count) = each_line(bytes, last, |line, text| {
            found.push((line, text.ok()));
            Ok::<(), ()>(())
        })
        .unwrap();
        (found, used, count)
    }

    #[test]
    fn an_unended_line_waits_for_its_rest() {
        assert_eq!(lines(b"a\n\nb", false), (vec![(0, Some("a"))], 3, 2));
        assert_eq!(lines(b"a\n \r\nb", true), (vec![(0, Some("a")), (2, Some("b"))], 6, 3));
    }

    #[test]
    fn a_line_that_is_no_text_spares_its_neighbours() {
        assert_eq!(lines(b"a\n\xff\nb\n", false).0, vec![(0, Some("a")), (1, None), (2, Some("b"))]);
    }
}
