//! A NumPy array.
//!
//! ```text
//! 0x93 N U M P Y | u8 major | u8 minor | length of the header: u16 if major is 1, u32 if it is 2 or 3 | header | data
//! {'descr': '<f4', 'fortran_order': False, 'shape': (2, 28, 28), }
//! ```
//!
//! The length is little-endian. The header is a dictionary of Python with exactly these keys
//! (`numpy.lib.format`).

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::Path;

use super::array_error;
use super::arrays::{self, Array, Arrays, Element, Header, Kind};
use crate::dataset::Dataset;
use crate::error::{Error, Result};

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest header that is read, in bytes. It is the limit of NumPy.
const MAX_HEADER: usize = 10_000;
/// What errors call the only array of a file.
const UNNAMED: &str = "of the file";

/// Reads the images of an `.npy` file.
pub(super) fn read(file: &Path, input: &mut dyn Read, size: Option<[usize; 2]>) -> Result<Dataset> {
    arrays::dataset(file, &mut Single { file, input }, size)
}

struct Single<'a> {
    file: &'a Path,
    input: &'a mut dyn Read,
}

impl Arrays for Single<'_> {
    fn names(&self) -> Vec<String> {
        vec![UNNAMED.to_owned()]
    }

    fn read(&mut self, name: &str, check: &dyn Fn(&Header) -> Result<()>) -> Result<Array<'_>> {
        let error = |source| Error::Read { file: self.file.to_owned(), source };
        read_array(self.file, name, self.input, check, error)
    }
}

/// Reads an array, which must be all that `input` has. The data is read only if `check` allows the header.
pub(super) fn read_array<'a>(
    file: &Path,
    name: &str,
    input: &mut dyn Read,
    check: &dyn Fn(&Header) -> Result<()>,
    io_error: impl Fn(io::Error) -> Error,
) -> Result<Array<'a>> {
    let mut take = |count: usize| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        input.take(count as u64).read_to_end(&mut bytes).map_err(&io_error)?;
        Ok(bytes)
    };
    let start = take(MAGIC.len() + 2)?;
    let major = start.get(MAGIC.len()).filter(|_| start.starts_with(MAGIC) && start.len() == MAGIC.len() + 2);
    let width = match major {
        Some(1) => 2,
        Some(2 | 3) => 4,
        Some(other) => {
            return Err(array_error(file, name, format!("the version {other} of its format"), "1, 2 or 3"));
        }
        None => return Err(array_error(file, name, "no header", "an array as `numpy.save` writes it")),
    };
    let too_short = || array_error(file, name, "an incomplete header", "an array as `numpy.save` writes it");
    let length = take(width)?;
    if length.len() != width {
        return Err(too_short());
    }
    let length = length.iter().rev().fold(0_usize, |length, &byte| length << 8 | usize::from(byte));
    if length > MAX_HEADER {
        let expected = format!("at most {MAX_HEADER}");
        return Err(array_error(file, name, format!("a header of {length} bytes"), expected));
    }
    let text = take(length)?;
    if text.len() != length {
        return Err(too_short());
    }
    let Some(Dictionary { descr, is_fortran, shape }) = std::str::from_utf8(&text).ok().and_then(parse)
    else {
        let found = format!("the header {}", String::from_utf8_lossy(&text).trim_end());
        return Err(array_error(
            file,
            name,
            found,
            "a type, an order and a shape as `numpy.save` writes them",
        ));
    };
    let header = Header { element: element(descr), shape };
    if is_fortran && header.shape.len() > 1 {
        let expected = "row-major order, as `numpy.ascontiguousarray` gives it";
        return Err(array_error(file, name, "column-major order (Fortran)", expected));
    }
    check(&header)?;
    let expected = header.bytes(file)?;
    // One byte more shows whether there are more.
    let data = take(expected + 1)?;
    if data.len() != expected {
        let found = match data.len() {
            more if more > expected => format!("more than {expected} bytes"),
            fewer => format!("{fewer} bytes"),
        };
        let expected =
            format!("{expected} bytes for its shape {:?} and its type {}", header.shape, header.element.name);
        return Err(array_error(file, name, found, expected));
    }
    Ok(Array { header, data: Cow::Owned(data) })
}

/// The content of a header.
#[derive(Debug, PartialEq, Eq)]
struct Dictionary<'a> {
    descr: &'a str,
    is_fortran: bool,
    shape: Vec<usize>,
}

/// Parses a header. It has each key once, in any order.
fn parse(header: &str) -> Option<Dictionary<'_>> {
    let mut rest = Rest(header);
    let (mut descr, mut is_fortran, mut shape) = (None, None, None);
    rest.eat("{")?;
    while rest.eat("}").is_none() {
        match rest.quoted()? {
            "descr" if descr.is_none() => {
                rest.eat(":")?;
                descr = Some(rest.quoted()?);
            }
            "fortran_order" if is_fortran.is_none() => {
                rest.eat(":")?;
                let is_true = rest.eat("True").is_some();
                is_fortran = Some(is_true || rest.eat("False").map(|()| false)?);
            }
            "shape" if shape.is_none() => {
                rest.eat(":")?;
                shape = Some(rest.shape()?);
            }
            _ => return None,
        }
        if rest.eat(",").is_none() {
            rest.eat("}")?;
            break;
        }
    }
    rest.0.trim_ascii().is_empty().then_some(())?;
    Some(Dictionary { descr: descr?, is_fortran: is_fortran?, shape: shape? })
}

/// The part of a header that is not parsed yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Skips white space and a token, or returns `None` if there is another token.
    fn eat(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_ascii_start().strip_prefix(token)?;
        Some(())
    }

    /// A text in quotes, without escapes.
    fn quoted(&mut self) -> Option<&'a str> {
        let quote = if self.eat("'").is_some() { '\'' } else { self.eat("\"").map(|()| '"')? };
        let (text, rest) = self.0.split_once(quote)?;
        self.0 = rest;
        (!text.contains('\\')).then_some(text)
    }

    /// A tuple of numbers.
    fn shape(&mut self) -> Option<Vec<usize>> {
        self.eat("(")?;
        let mut sizes = Vec::new();
        while self.eat(")").is_none() {
            let text = self.0.trim_ascii_start();
            let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            sizes.push(text[..digits].parse().ok()?);
            self.0 = &text[digits..];
            if self.eat(",").is_none() {
                // A tuple of one number has a comma.
                self.eat(")")?;
                return (sizes.len() > 1).then_some(sizes);
            }
        }
        Some(sizes)
    }
}

/// The type that a text such as `<f4` stands for: the byte order, the kind and the number of bytes.
fn element(descr: &str) -> Element {
    let other = || Element { kind: Kind::Other, width: 1, is_big_endian: false, name: descr.to_owned() };
    let mut characters = descr.chars();
    let (Some(order), Some(kind)) = (characters.next(), characters.next()) else { return other() };
    let (Ok(width @ (1 | 2 | 4 | 8)), '<' | '>' | '|') = (characters.as_str().parse::<usize>(), order) else {
        return other();
    };
    // Only a number of one byte has no order.
    if (order == '|') != (width == 1) {
        return other();
    }
    let (kind, word) = match kind {
        'u' => (Kind::Unsigned, "uint"),
        'i' => (Kind::Signed, "int"),
        'f' if width > 1 => (Kind::Float, "float"),
        'b' if width == 1 => (Kind::Other, "bool"),
        _ => return other(),
    };
    let bits = if word == "bool" { String::new() } else { (8 * width).to_string() };
    Element { kind, width, is_big_endian: order == '>', name: format!("{word}{bits}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_numpy_writes_them_are_parsed() {
        let dictionary = |descr, is_fortran, shape: &[usize]| {
            Some(Dictionary { descr, is_fortran, shape: shape.to_vec() })
        };
        for (header, expected) in [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 28, 28), }     \n",
                dictionary("<f4", false, &[2, 28, 28]),
            ),
            ("{'descr': '|u1', 'fortran_order': True, 'shape': (3,), }\n", dictionary("|u1", true, &[3])),
            (
                "{\"shape\":(3,4),\"fortran_order\":False,\"descr\":\"<i8\"}",
                dictionary("<i8", false, &[3, 4]),
            ),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (), }\n", dictionary("<f8", false, &[])),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn other_headers_are_refused() {
        for header in [
            "",
            "{}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (+2,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2.,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': [2, 3]}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)",
            "{'de\\x73cr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        ] {
            assert_eq!(parse(header), None, "{header}");
        }
    }

    #[test]
    fn types_are_named_as_in_numpy() {
        for (descr, kind, width, is_big_endian, name) in [
            ("|u1", Kind::Unsigned, 1, false, "uint8"),
            ("<i8", Kind::Signed, 8, false, "int64"),
            (">f4", Kind::Float, 4, true, "float32"),
            ("<f2", Kind::Float, 2, false, "float16"),
            ("|b1", Kind::Other, 1, false, "bool"),
            ("<c8", Kind::Other, 1, false, "<c8"),
            ("|O", Kind::Other, 1, false, "|O"),
            ("<u1", Kind::Other, 1, false, "<u1"),
            ("|f4", Kind::Other, 1, false, "|f4"),
            ("<f16", Kind::Other, 1, false, "<f16"),
            ("", Kind::Other, 1, false, ""),
        ] {
            let expected = Element { kind, width, is_big_endian, name: name.to_owned() };
            assert_eq!(element(descr), expected, "{descr}");
        }
    }
}
