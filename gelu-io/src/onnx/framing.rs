//! What must hold of a file's bytes before they are decoded: every length lies within what it is a part of, messages
//! are nested to a depth that a file for ONNX needs, and there are no more of them than memory is meant for.
//!
//! The decoder reserves memory by the lengths that it reads and descends as deep as messages go.

/// Messages in one another: a model, its graph, a node, an attribute, and what that holds.
const MOST_DEPTH: usize = 16;
/// Messages of all kinds; a large network has some thousands.
const MOST_MESSAGES: usize = 1 << 20;
/// Fields of all messages.
const MOST_FIELDS: usize = 1 << 24;
/// Bytes of integers of variable length, each of which becomes eight.
const MOST_VARINT_BYTES: usize = 1 << 24;

/// A kind of message of `onnx.proto` that the decoder looks into.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    SequenceType,
    TensorShape,
    Dimension,
    /// A pair of texts, or an operator set.
    Entry,
}

/// What a field with a length holds.
enum Content {
    Message(Message),
    /// Numbers of so many bytes each.
    Fixed(usize),
    Varints,
    /// Text, bytes, or something that the decoder skips.
    Bytes,
}

impl Message {
    fn content(self, field: u64) -> Content {
        use Content::{Fixed, Varints};
        Content::Message(match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6) => Self::Graph,
            (Self::Model, 8 | 14) | (Self::Tensor, 13) => Self::Entry,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5) => Self::Tensor,
            (Self::Graph, 11..=13) => Self::ValueInfo,
            (Self::Node, 5) => Self::Attribute,
            (Self::ValueInfo, 2) | (Self::SequenceType, 1) => Self::Type,
            (Self::Type, 1) => Self::TensorType,
            (Self::Type, 4) => Self::SequenceType,
            (Self::TensorType, 2) => Self::TensorShape,
            (Self::TensorShape, 1) => Self::Dimension,
            (Self::Tensor, 4) => return Fixed(4),
            (Self::Tensor, 10) => return Fixed(8),
            (Self::Tensor, 5 | 7) => return Varints,
            _ => return Content::Bytes,
        })
    }
}

/// Checks the bytes of a model.
///
/// # Errors
/// What is wrong, as the end of "expected ..., found ...".
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    Framing::default().message(Message::Model, bytes, 1)
}

#[derive(Default)]
struct Framing {
    messages: usize,
    fields: usize,
    varint_bytes: usize,
}

impl Framing {
    fn message(&mut self, kind: Message, mut bytes: &[u8], depth: usize) -> Result<(), String> {
        self.messages += 1;
        limit("messages", self.messages, MOST_MESSAGES)?;
        limit("levels of messages", depth, MOST_DEPTH)?;
        while !bytes.is_empty() {
            self.fields += 1;
            limit("fields", self.fields, MOST_FIELDS)?;
            let key = varint(&mut bytes)?;
            match key & 7 {
                0 => drop(varint(&mut bytes)?),
                1 => drop(take(&mut bytes, 8)?),
                5 => drop(take(&mut bytes, 4)?),
                2 => {
                    let length = varint(&mut bytes)?;
                    let part = take(&mut bytes, length)?;
                    self.part(kind.content(key >> 3), part, depth)?;
                }
                other => return Err(format!("a field of type {other}")),
            }
        }
        Ok(())
    }

    fn part(&mut self, content: Content, mut part: &[u8], depth: usize) -> Result<(), String> {
        match content {
            Content::Message(kind) => self.message(kind, part, depth + 1),
            Content::Fixed(size) if !part.len().is_multiple_of(size) => {
                Err(format!("{} bytes of numbers of {size} bytes", part.len()))
            }
            Content::Varints => {
                self.varint_bytes += part.len();
                limit("bytes of integers outside of raw data", self.varint_bytes, MOST_VARINT_BYTES)?;
                while !part.is_empty() {
                    varint(&mut part)?;
                }
                Ok(())
            }
            Content::Fixed(_) | Content::Bytes => Ok(()),
        }
    }
}

fn limit(what: &str, found: usize, limit: usize) -> Result<(), String> {
    if found <= limit { Ok(()) } else { Err(format!("more than {limit} {what}")) }
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    let available = bytes.len();
    let split = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
    let (part, rest) =
        split.ok_or_else(|| format!("a field of {length} bytes with {available} bytes left for it"))?;
    *bytes = rest;
    Ok(part)
}

/// An integer in groups of seven bits, of at most 64 in all.
fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for place in 0..10 {
        let (&byte, rest) = bytes.split_first().ok_or("an integer that is cut off")?;
        *bytes = rest;
        if place == 9 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("an integer of more than 64 bits".to_owned())
}
