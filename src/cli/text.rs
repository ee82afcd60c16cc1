//! Text that is safe to show (P12): nothing in it can steer a terminal.

use std::fmt::Write;

/// Whether a character could steer a terminal, reorder what is shown, or hide: control characters, separators of
/// lines, and what Unicode 17 has as `Default_Ignorable_Code_Point`. Of the latter those stay that only say how the
/// letter before or behind them looks, and that names and words are written with: U+200C and U+200D (Persian, the
/// scripts of India, emoji) and the selectors U+FE00 to U+FE0F. Format characters that are seen (U+0600 and others
/// that stand under a number) steer nothing.
pub(crate) fn is_unsafe(letter: char) -> bool {
    matches!(letter,
        '\0'..='\x1f' | '\x7f'..='\u{9f}'                     // control characters
        | '\u{ad}' | '\u{34f}'                                // soft hyphen, grapheme joiner
        | '\u{61c}' | '\u{200e}' | '\u{200f}'                 // direction marks
        | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'   // Hangul fillers
        | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'   // Khmer vowels, Mongolian selectors
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'   // separators, direction overrides
        | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{feff}'   // no width
        | '\u{206a}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}'   // formats, deprecated or not given out yet
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' // of hieroglyphs, of shorthand
        | '\u{1d173}'..='\u{1d17a}'                           // of music
        | '\u{e0000}'..='\u{e0fff}') // tags, selectors
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
        let all: String = ('\0'..=char::MAX).collect();
        assert!(!escape(&all).chars().any(is_unsafe));
        assert_eq!(escape("\u{1b}[31m\n\u{9b}\u{202e}ä"), "\\x1b[31m\\n\\x9b\\u{202e}ä");
        assert_eq!(escape_lines("a\nb\r"), "a\nb\\r");
    }

    /// All of `Default_Ignorable_Code_Point` of Unicode 17 but the joiners and the first sixteen selectors.
    #[test]
    fn what_nobody_sees_is_shown_as_an_escape() {
        let invisible = [
            (0xad, 0xad),
            (0x34f, 0x34f),
            (0x61c, 0x61c),
            (0x115f, 0x1160),
            (0x17b4, 0x17b5),
            (0x180b, 0x180f),
            (0x200b, 0x200b),
            (0x200e, 0x200f),
            (0x202a, 0x202e),
            (0x2060, 0x206f),
            (0x3164, 0x3164),
            (0xfeff, 0xfeff),
            (0xffa0, 0xffa0),
            (0xfff0, 0xfff8),
            (0x1bca0, 0x1bca3),
            (0x1d173, 0x1d17a),
            (0xe0000, 0xe0fff),
        ];
        for letter in invisible.into_iter().flat_map(|(first, last)| first..=last) {
            let shown = escape(&char::from_u32(letter).unwrap().to_string());
            assert!(shown.is_ascii() && shown.starts_with('\\'), "{letter:x}: {shown}");
        }
        for text in ["क्\u{200d}ष", "می\u{200c}خواهم", "❤\u{fe0f}", "ﾡ한\u{600}١", "Ünï ©"]
        {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn cells_have_their_width() {
        assert_eq!(cell("ab", 4), "ab  ");
        assert_eq!(cell("abcdef", 4), "abc…");
        assert_eq!(cell("\u{1b}\u{1b}", 5).chars().count(), 5);
    }
}
