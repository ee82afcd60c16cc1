//! Everything that is written: data to stdout, the rest to stderr, both escaped (P12).
//!
//! Rust programs get an error for a closed pipe instead of the signal, and the print macros panic on
//! it. So nothing here uses them.

use std::io::{self, BufWriter, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use synclog::Finding;

use super::args::Output;
use super::exit::Stop;
use super::text::{escape, escape_lines, is_unsafe};

/// Stdout, buffered.
pub(crate) struct Out {
    writer: BufWriter<Box<dyn Write>>,
}

impl Out {
    pub(crate) fn new() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    /// What would go to stdout goes there.
    pub(crate) fn to(sink: Box<dyn Write>) -> Self {
        Self { writer: BufWriter::with_capacity(64 * 1024, sink) }
    }

    /// Writes text that is safe as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Stop> {
        self.writer.write_all(text.as_bytes()).map_err(|error| Stop::output(&error))
    }

    /// Writes a line of text that is safe as it is.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Stop> {
        self.text(text)?;
        self.text("\n")
    }

    /// Writes bytes of our own making.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.writer.write_all(bytes).map_err(|error| Stop::output(&error))
    }

    /// Writes one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Stop> {
        write_json(&mut self.writer, value).map_err(|error| Stop::output(&error))?;
        self.text("\n")
    }

    /// Writes one item of a JSON array, with what must stand before it.
    pub(crate) fn array_item(&mut self, first: bool, value: &impl Serialize) -> Result<(), Stop> {
        self.text(if first { "[" } else { ",\n " })?;
        write_json(&mut self.writer, value).map_err(|error| Stop::output(&error))
    }

    /// Writes the end of a JSON array.
    pub(crate) fn array_end(&mut self, empty: bool) -> Result<(), Stop> {
        self.line(if empty { "[]" } else { "]" })
    }

    /// Writes one object: a line of JSON, or a field a line for people.
    pub(crate) fn object(&mut self, output: Output, fields: &Fields) -> Result<(), Stop> {
        match output {
            Output::Table => self.text(&fields.lines()),
            Output::Json | Output::Ndjson => self.json(fields),
        }
    }

    /// Whether anything was not handed to the system yet.
    pub(crate) fn is_pending(&self) -> bool {
        !self.writer.buffer().is_empty()
    }

    /// Gives up what cannot be written.
    pub(crate) fn forget(&mut self) {
        let fresh = Self::new().writer;
        // Taken apart, because a dropped writer would try once more.
        drop(std::mem::replace(&mut self.writer, fresh).into_parts());
    }

    /// Hands everything to the system.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        self.writer.flush().map_err(|error| Stop::output(&error))
    }
}

/// JSON in which nothing can steer a terminal: the formatter escapes more than JSON asks for.
struct SafeJson;

impl serde_json::ser::Formatter for SafeJson {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_unsafe) {
            let (before, from) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut letters = from.chars();
            for unit in letters.next().into_iter().flat_map(|letter| {
                let mut units = [0; 2];
                letter.encode_utf16(&mut units).to_vec()
            }) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = letters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

fn write_json(writer: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(writer, SafeJson)).map_err(io::Error::from)
}

/// The value as one line of JSON, without its end.
pub(crate) fn json_text(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    match write_json(&mut bytes, value) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{{\"error\":{:?}}}", error.to_string()),
    }
}

/// A JSON object whose fields keep their order.
#[derive(Default)]
pub(crate) struct Fields(pub(crate) Vec<(&'static str, Value)>);

impl Fields {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// With one more field.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// With one more field, if there is a value.
    #[must_use]
    pub(crate) fn maybe(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// One field a line, for people.
    pub(crate) fn lines(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut lines = String::new();
        for (name, value) in &self.0 {
            let shown = match value {
                Value::String(text) => escape(text),
                Value::Null => "-".into(),
                other => json_text(other),
            };
            lines += name;
            lines.extend(std::iter::repeat_n(' ', width - name.len() + 2));
            lines += &shown;
            lines.push('\n');
        }
        lines
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A value as JSON. Nothing that is shown fails to be one; if something did, it would say so in its place.
pub(crate) fn value(shown: &impl Serialize) -> Value {
    serde_json::to_value(shown).unwrap_or_else(|error| Value::String(error.to_string()))
}

/// A finding as JSON. Its path is written as well as it can be, where it is no UTF-8.
pub(crate) fn finding(finding: &Finding) -> Fields {
    Fields::new()
        .with("finding", finding.kind.as_str())
        .maybe("seq", finding.seq)
        .maybe("last_seq", finding.last_seq)
        .maybe("column", finding.column.clone())
        .maybe("file", finding.file.as_ref().map(|file| file.to_string_lossy()))
        .maybe("offset", finding.offset)
        .with("detail", finding.detail.clone())
}

/// Writes a line to stderr. Where stderr is gone, there is nobody to tell.
pub(crate) fn tell(line: &str) {
    tell_raw(&format!("{}\n", escape(line)));
}

/// Writes text that is safe as it is to stderr.
pub(crate) fn tell_raw(text: &str) {
    #[cfg(any(test, fuzzing))]
    if super::fuzzing::overhear(text) {
        return;
    }
    // Where stderr takes nothing, there is nobody to tell.
    drop(io::stderr().write_all(text.as_bytes()));
}

/// Stderr for the library's own reports.
pub(crate) struct EscapedStderr;

/// Never an error: whoever reports would try to report that on stderr as well, and panic.
impl Write for EscapedStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        tell_raw(&escape_lines(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // stderr keeps nothing back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_safe_and_reads_back_the_same() {
        let all: String = ('\0'..=char::MAX).step_by(7).chain('\0'..='\u{ffff}').collect();
        let text = json_text(&all);
        assert!(!text.chars().any(is_unsafe));
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), all);
        assert_eq!(json_text(&"\u{7f}\u{9b}"), r#""\u007f\u009b""#);
    }

    #[test]
    fn fields_keep_their_order() {
        let fields = Fields::new().with("b", 1).with("a", Value::Null).maybe("c", None::<u64>);
        assert_eq!(json_text(&fields), r#"{"b":1,"a":null}"#);
        assert_eq!(fields.lines(), "b  1\na  -\n");
    }
}
