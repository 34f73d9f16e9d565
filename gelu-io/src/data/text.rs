//! How a table is written as text: its encoding, its delimiter and its quotes, found out from the text itself.

use std::path::Path;

use serde::Serialize;

use crate::Error;

/// How the characters of a text are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextEncoding {
    /// UTF-8, or plain ASCII.
    Utf8,
    /// UTF-16, with or without a byte order mark.
    Utf16,
    /// Latin-1: a byte a character. Taken when the bytes are no UTF-8.
    Latin1,
}

impl TextEncoding {
    /// Returns the encoding's name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16 => "UTF-16",
            Self::Latin1 => "Latin-1",
        }
    }
}

/// The delimiters that are looked for; of two that fit equally well, the first.
const DELIMITERS: [u8; 5] = *b"\t;|, ";
/// Lines that are looked at.
const SAMPLE_LINES: usize = 200;

/// Returns the text of `bytes` without a byte order mark, and how it is encoded; `name` names the file in errors.
///
/// # Errors
/// [`Error::Format`] for what is no text.
pub(super) fn decode(bytes: &[u8], name: &Path) -> Result<(String, TextEncoding), Error> {
    let no_text = |found: &str| Error::format(name, "a table as text", found);
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(no_text("UTF-16 with an odd number of bytes"));
        }
        let text = String::from_utf16(&units.iter().map(|&pair| unit(pair)).collect::<Vec<_>>());
        text.map(|text| (text, TextEncoding::Utf16)).map_err(|_| no_text("broken UTF-16"))
    };
    if let Some(rest) = bytes.strip_prefix(&[0xff, 0xfe]) {
        return utf16(rest, u16::from_le_bytes);
    }
    if let Some(rest) = bytes.strip_prefix(&[0xfe, 0xff]) {
        return utf16(rest, u16::from_be_bytes);
    }
    // Western text in UTF-16 has a zero in every other byte.
    match bytes {
        [a, 0, b, 0, ..] if *a != 0 && *b != 0 => return utf16(bytes, u16::from_le_bytes),
        [0, a, 0, b, ..] if *a != 0 && *b != 0 => return utf16(bytes, u16::from_be_bytes),
        _ => {}
    }
    let is_control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c);
    if let Some(at) = bytes.iter().position(is_control) {
        return Err(no_text(&format!("the byte {:#04x} at offset {at}, which no text has", bytes[at])));
    }
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok((text.to_owned(), TextEncoding::Utf8)),
        Err(_) => Ok((bytes.iter().map(|&byte| char::from(byte)).collect(), TextEncoding::Latin1)),
    }
}

/// Returns the delimiter and the quotation mark of a table; `None` when no delimiter divides its lines.
pub(super) fn dialect(text: &str) -> Option<(u8, u8)> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).take(SAMPLE_LINES).collect();
    let mut best: Option<(f64, u8, u8)> = None;
    for delimiter in DELIMITERS {
        let quote = quote(&lines, delimiter);
        let counts: Vec<usize> = lines.iter().map(|line| fields(line, delimiter, quote)).collect();
        let share = |count: usize| counts.iter().filter(|&&other| other == count).count() as f64;
        let fit = counts.iter().filter(|&&count| count > 1).map(|&count| share(count)).fold(0.0, f64::max);
        if fit > best.map_or(0.0, |(fit, ..)| fit) {
            best = Some((fit, delimiter, quote));
        }
    }
    best.map(|(_, delimiter, quote)| (delimiter, quote))
}

/// The quotation mark that most fields are in; `"` when none are.
fn quote(lines: &[&str], delimiter: u8) -> u8 {
    let quoted = |quote: char| {
        let fields = lines.iter().flat_map(|line| line.split(char::from(delimiter)));
        fields.map(str::trim).filter(|field| field.len() > 1 && field.starts_with(quote)).count()
    };
    if quoted('\'') > quoted('"') { b'\'' } else { b'"' }
}

/// How many fields a line has. Spaces count once, however many there are.
fn fields(line: &str, delimiter: u8, quote: u8) -> usize {
    let (mut count, mut is_quoted, mut at_start) = (1, false, true);
    for &byte in line.trim_matches([' ', '\r']).as_bytes() {
        if byte == quote && (at_start || is_quoted) {
            is_quoted = !is_quoted;
            at_start = false;
        } else if byte == delimiter && !is_quoted {
            if !(delimiter == b' ' && at_start) {
                count += 1;
            }
            at_start = true;
        } else if byte != b' ' {
            at_start = false;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(bytes: &[u8]) -> Result<(String, TextEncoding), Error> {
        decode(bytes, Path::new("test-table"))
    }

    #[test]
    fn encodings_are_told_apart() {
        let units = |text: &str| text.encode_utf16().collect::<Vec<_>>();
        let little: Vec<u8> = units("a;é").iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units("a;é").iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for (bytes, encoding) in [
            ("a;é".as_bytes().to_vec(), TextEncoding::Utf8),
            ("\u{feff}a;é".as_bytes().to_vec(), TextEncoding::Utf8),
            (b"a;\xe9".to_vec(), TextEncoding::Latin1),
            ([&[0xff, 0xfe], &little[..]].concat(), TextEncoding::Utf16),
            ([&[0xfe, 0xff], &big[..]].concat(), TextEncoding::Utf16),
            (little, TextEncoding::Utf16),
            (big, TextEncoding::Utf16),
        ] {
            assert_eq!(decoded(&bytes).unwrap(), ("a;é".to_owned(), encoding), "{bytes:?}");
        }
        assert!(decoded(b"\x89PNG\r\n\x1a\n").unwrap_err().to_string().contains("0x1a at offset 6"));
        assert!(decoded(b"\xff\xfea\0;").unwrap_err().to_string().contains("odd"));
    }

    #[test]
    fn delimiters_and_quotes_are_found() {
        for (text, expected) in [
            ("1,2,a\n3,4,b\n", Some((b',', b'"'))),
            ("5,0;3,5;red\n6,2;2,9;green\n", Some((b';', b'"'))),
            ("1\t2\n3\t4\n", Some((b'\t', b'"'))),
            ("a|b c\nd|e f\n", Some((b'|', b'"'))),
            ("  5.1   3.5 red\n6.25 3 green \n", Some((b' ', b'"'))),
            ("x, y, z\n1, 2, 3\n", Some((b',', b'"'))),
            ("'a;b','c'\n'd','e'\n", Some((b',', b'\''))),
            ("\"a;b\",c\nd,\"e, f\"\n", Some((b',', b'"'))),
            ("it's,1\nthat's,2\n", Some((b',', b'"'))),
            ("alone\nhere\n", None),
            ("", None),
        ] {
            assert_eq!(dialect(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((text, _)) = decoded(&bytes) {
                let _ = dialect(&text);
            }
        }
    }
}
