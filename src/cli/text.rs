//! Text that is safe to show (P12): nothing in it can steer a terminal.

use std::fmt::Write;

/// Whether a character could steer a terminal, reorder what is shown, or hide.
pub(crate) fn is_unsafe(letter: char) -> bool {
    matches!(letter,
        '\0'..='\x1f' | '\x7f'..='\u{9f}'                     // control characters
        | '\u{61c}' | '\u{200e}' | '\u{200f}'                 // direction marks
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'   // separators, direction overrides
        | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{feff}'   // no width
        | '\u{fff9}'..='\u{fffb}')
}

/// The text on one line: what is unsafe is written as an escape.
pub(crate) fn escape(text: &str) -> String {
    escape_but(text, |_| false)
}

/// Like [`escape`], but line ends stay.
pub(crate) fn escape_lines(text: &str) -> String {
    escape_but(text, |letter| letter == '\n')
}

fn escape_but(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if !is_unsafe(letter) || keep(letter) {
            escaped.push(letter);
            continue;
        }
        // Writing to a string cannot fail.
        let _ = match letter {
            '\n' => escaped.write_str("\\n"),
            '\r' => escaped.write_str("\\r"),
            '\t' => escaped.write_str("\\t"),
            letter if u32::from(letter) < 0x100 => write!(escaped, "\\x{:02x}", u32::from(letter)),
            letter => write!(escaped, "\\u{{{:x}}}", u32::from(letter)),
        };
    }
    escaped
}

/// Escaped text, filled up with blanks or cut to `width` characters.
pub(crate) fn cell(text: &str, width: usize) -> String {
    let escaped = escape(text);
    let length = escaped.chars().count();
    if length > width {
        let mut short: String = escaped.chars().take(width.saturating_sub(1)).collect();
        short.push('…');
        return short;
    }
    format!("{escaped:<width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unsafe_is_left() {
        let all: String = ('\0'..='\u{ffff}').collect();
        assert!(!escape(&all).chars().any(is_unsafe));
        assert_eq!(escape("\u{1b}[31m\n\u{9b}\u{202e}ä"), "\\x1b[31m\\n\\x9b\\u{202e}ä");
        assert_eq!(escape_lines("a\nb\r"), "a\nb\\r");
    }

    #[test]
    fn cells_have_their_width() {
        assert_eq!(cell("ab", 4), "ab  ");
        assert_eq!(cell("abcdef", 4), "abc…");
        assert_eq!(cell("\u{1b}\u{1b}", 5).chars().count(), 5);
    }
}
