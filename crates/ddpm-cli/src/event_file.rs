//! Event files of TensorBoard: scalars and images by training step.
//!
//! ```text
//! file     records: u64 length | u32 checksum of the length | data | u32 checksum of the data      (TFRecord)
//! data     a protobuf message Event: wall_time = 1, step = 2, file_version = 3, summary = 5
//! summary  value = 1: tag = 1, and simple_value = 2 or image = 4
//! image    height = 1, width = 2, colorspace = 3, encoded_image_string = 4
//! ```
//!
//! Numbers are little-endian. Five messages of a few fields need no protobuf library.

/// The first record of a file, which names the version of the format.
pub(crate) fn first_record(wall_time: f64) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, wall_time);
    event.bytes(3, b"brain.Event:2");
    record(&event)
}

/// A record of scalars by their tags. `wall_time` is in seconds since 1970.
#[expect(clippy::cast_possible_truncation, reason = "TensorBoard shows scalars as f32")]
pub(crate) fn scalars(wall_time: f64, step: u64, values: &[(&str, f64)]) -> Vec<u8> {
    let values = values.iter().map(|&(tag, value)| {
        let mut message = Message::default();
        message.bytes(1, tag.as_bytes());
        message.float(2, value as f32);
        message
    });
    summary(wall_time, step, values)
}

/// A record of a grey PNG image; `None` if the bytes are no PNG.
pub(crate) fn image(wall_time: f64, step: u64, tag: &str, png: &[u8]) -> Option<Vec<u8>> {
    const GREY: u64 = 1;
    // The signature, the length and the name of the first chunk, then width and height.
    let size = png.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?;
    let number = |at: usize| Some(u64::from(u32::from_be_bytes(*size.get(at..)?.first_chunk()?)));
    let mut image = Message::default();
    image.integer(1, number(4)?);
    image.integer(2, number(0)?);
    image.integer(3, GREY);
    image.bytes(4, png);
    let mut value = Message::default();
    value.bytes(1, tag.as_bytes());
    value.bytes(4, &image.0);
    Some(summary(wall_time, step, [value]))
}

fn summary(wall_time: f64, step: u64, values: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let mut summary = Message::default();
    values.into_iter().for_each(|value| summary.bytes(1, &value.0));
    let mut event = Message::default();
    event.double(1, wall_time);
    event.integer(2, step);
    event.bytes(5, &summary.0);
    record(&event)
}

fn record(Message(data): &Message) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let [of_length, of_data] = [&length[..], data].map(|bytes| checksum(bytes).to_le_bytes());
    [&length[..], &of_length, data, &of_data].concat()
}

/// The checksum of a record: CRC-32C, rotated and shifted, so that it differs from the CRC of data that holds CRCs.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with the polynomial of Castagnoli, bit by bit: an event file has few bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    let bit = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ REVERSED } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), bit))
}

/// A protobuf message: fields, each with a key of its number and the form of its value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, form: u64) {
        self.number(field << 3 | form);
    }

    /// Seven bits a byte, the lowest first. The highest bit says whether there are more.
    fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.number(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.number(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that TensorBoard 2.21.0 writes with `RecordWriter` for the same events.
    #[test]
    fn records_have_the_bytes_that_tensorboard_writes() {
        let hexadecimal = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hexadecimal(first_record(1.5)),
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"
        );
        assert_eq!(
            hexadecimal(scalars(1_700_000_000.25, 300, &[("loss", 0.125), ("zero", 0.0)])),
            "2800000000000000ff70164a0900001040fc54d94110ac022a1a0a0b0a046c6f7373150000003e0a0b0a047a65726f15000000005200679f"
        );
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x01\x2c\0\0\0\x05rest";
        assert_eq!(
            hexadecimal(image(2.0, 1, "samples", png).unwrap()),
            "3f000000000000005165766109000000000000004010012a320a300a0773616d706c65732225080510ac021801221c89504e470d0a1a0a00\
             00000d494844520000012c00000005726573745c077a20"
        );
    }

    #[test]
    fn what_is_no_png_is_no_image() {
        for other in [&b""[..], b"GIF89a", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x01"] {
            assert_eq!(image(2.0, 1, "samples", other), None);
        }
    }

    /// RFC 3720, appendix B.4, and the usual check value.
    #[test]
    fn checksums_are_crc_32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
