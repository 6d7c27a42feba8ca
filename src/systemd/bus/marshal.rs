//! How D-Bus writes a call, and how values are read from what it answers.

use std::io;

/// How deep values may be nested.
const DEPTH_MAX: usize = 16;

/// What a call takes.
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    Text(&'a str),
    Number(i32),
    Texts(&'a [&'a str]),
}

/// What the service manager answers. A variant is the value in it; structures, dictionaries and their entries are lists.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string, an object path or a signature.
    Text(String),
    Number(i128),
    Flag(bool),
    Real(f64),
    List(Vec<Value>),
}

impl Value {
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn number(&self) -> Option<i128> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// Of what is no list: nothing.
    pub fn list(&self) -> &[Value] {
        if let Self::List(values) = self { values } else { &[] }
    }
}

pub fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a message of the service manager is malformed: {what}"),
    )
}

/// The bytes of a call.
pub fn call(serial: u32, path: &str, interface: &str, method: &str, arguments: &[Argument<'_>]) -> Vec<u8> {
    let mut signature = String::new();
    let mut body = Writer::default();
    for argument in arguments {
        match argument {
            Argument::Text(text) => {
                signature.push('s');
                body.text(text);
            }
            Argument::Number(number) => {
                signature.push('i');
                body.number(*number as u32);
            }
            Argument::Texts(texts) => {
                signature.push_str("as");
                body.list(4, |list| texts.iter().for_each(|text| list.text(text)));
            }
        }
    }
    let mut head = Writer(vec![b'l', 1, 0, 1]);
    head.number(body.0.len() as u32);
    head.number(serial);
    head.list(8, |fields| {
        for (code, kind, text) in
            [(1, b'o', path), (2, b's', interface), (3, b's', method), (8, b'g', signature.as_str())]
        {
            if text.is_empty() {
                continue;
            }
            fields.align(8);
            fields.0.extend([code, 1, kind, 0]);
            if kind == b'g' { fields.signature(text) } else { fields.text(text) }
        }
    });
    head.align(8);
    head.0.extend(body.0);
    head.0
}

#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    pub fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// `align` is that of its elements.
    pub fn list(&mut self, align: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let length = self.0.len();
        self.align(align);
        let start = self.0.len();
        elements(self);
        let written = (self.0.len() - start) as u32;
        self.0[length - 4..length].copy_from_slice(&written.to_le_bytes());
    }
}

pub struct Reader<'b> {
    pub bytes: &'b [u8],
    pub at: usize,
    /// Whether numbers begin with their lowest byte.
    pub little: bool,
}

impl Reader<'_> {
    /// `kinds` is what is left of the signature.
    pub fn value(&mut self, kinds: &mut std::slice::Iter<'_, u8>, depth: usize) -> io::Result<Value> {
        if depth > DEPTH_MAX {
            return Err(malformed("it is nested too deep"));
        }
        let kind = *kinds.next().ok_or_else(|| malformed("its signature ends too soon"))?;
        Ok(match kind {
            b'y' => Value::Number(self.raw(1)?.into()),
            b'b' => Value::Flag(self.raw(4)? != 0),
            b'n' => Value::Number((self.raw(2)? as u16 as i16).into()),
            b'q' => Value::Number(self.raw(2)?.into()),
            b'i' => Value::Number((self.raw(4)? as u32 as i32).into()),
            b'u' | b'h' => Value::Number(self.raw(4)?.into()),
            b'x' => Value::Number((self.raw(8)? as i64).into()),
            b't' => Value::Number(self.raw(8)?.into()),
            b'd' => Value::Real(f64::from_bits(self.raw(8)?)),
            b's' | b'o' => {
                let length = self.raw(4)? as usize;
                self.text(length)?
            }
            b'g' => {
                let length = self.raw(1)? as usize;
                self.text(length)?
            }
            b'v' => {
                let signature = self.value(&mut b"g".iter(), depth)?;
                let kinds = signature.text().unwrap_or_default();
                self.value(&mut kinds.as_bytes().iter(), depth + 1)?
            }
            b'a' => {
                let length = self.raw(4)? as usize;
                self.align(alignment(kinds.as_slice().first().copied()))?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
                let end = end.ok_or_else(|| malformed("a list has no end"))?;
                let element = kinds.clone();
                let mut values = Vec::new();
                while self.at < end {
                    let mut kinds = element.clone();
                    let before = self.at;
                    values.push(self.value(&mut kinds, depth + 1)?);
                    if self.at == before {
                        return Err(malformed("an element of a list is nothing"));
                    }
                }
                skip(kinds, depth + 1)?;
                Value::List(values)
            }
            b'(' | b'{' => {
                self.align(8)?;
                let mut values = Vec::new();
                while !matches!(kinds.as_slice().first(), Some(b')' | b'}')) {
                    values.push(self.value(kinds, depth + 1)?);
                }
                kinds.next();
                Value::List(values)
            }
            _ => return Err(malformed("its signature is unknown")),
        })
    }

    fn raw(&mut self, size: usize) -> io::Result<u64> {
        self.align(size)?;
        let bytes = self.take(size)?;
        let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Ok(if self.little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) })
    }

    fn text(&mut self, length: usize) -> io::Result<Value> {
        let bytes = self.take(length.checked_add(1).ok_or_else(|| malformed("a text has no end"))?)?;
        Ok(Value::Text(String::from_utf8_lossy(&bytes[..length]).into_owned()))
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| malformed("it ends too soon"))?;
        let taken = self.bytes[self.at..end].to_vec();
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> io::Result<()> {
        self.at = self.at.next_multiple_of(to);
        if self.at <= self.bytes.len() { Ok(()) } else { Err(malformed("it ends too soon")) }
    }
}

fn alignment(kind: Option<u8>) -> usize {
    match kind {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// Passes over one whole type of a signature.
fn skip(kinds: &mut std::slice::Iter<'_, u8>, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(malformed("it is nested too deep"));
    }
    match kinds.next().ok_or_else(|| malformed("its signature ends too soon"))? {
        b'a' => skip(kinds, depth + 1),
        b'(' | b'{' => {
            while !matches!(kinds.as_slice().first(), Some(b')' | b'}')) {
                skip(kinds, depth + 1)?;
            }
            kinds.next();
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_message_is_too_odd_to_be_refused(
            signature in "[ybnqiuxtdsogva(){}]{0,12}", bytes in proptest::collection::vec(any::<u8>(), 0..200), little: bool,
        ) {
            let mut reader = Reader { bytes: &bytes, at: 0, little };
            let mut kinds = signature.as_bytes().iter();
            while !kinds.as_slice().is_empty() && reader.value(&mut kinds, 0).is_ok() {}
        }
    }
}
