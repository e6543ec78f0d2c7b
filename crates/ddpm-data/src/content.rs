//! What a file is, by its first bytes: for the error about a file that is not what its name says.

/// Common kinds of files that stand in the place of a data set, by their first bytes.
const SIGNATURES: [(&[u8], &str); 15] = [
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself (`git lfs pull` downloads it)"),
    (b"<!DOCTYPE", "an HTML page, such as the answer to a failed download"),
    (b"<html", "an HTML page, such as the answer to a failed download"),
    (b"<?xml", "an XML document, such as the answer to a failed download"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"PK\x03\x04", "a ZIP archive, which must be unpacked"),
    (b"\xfd7zXZ", "compressed with xz, which must be unpacked"),
    (b"BZh", "compressed with bzip2, which must be unpacked"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd, which must be unpacked"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"PAR1", "a parquet file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"%PDF", "a PDF document"),
];

/// The number of bytes from which [`kind_of`] recognises a file.
pub(crate) const START: usize = 300;

/// What a file is that starts with `bytes`, or `None` if it is of no common kind. The text continues the sentence
/// "the file is …".
///
/// ```
/// let start = b"version https://git-lfs.github.com/spec/v1\n";
/// assert!(ddpm_data::kind_of(start).is_some_and(|kind| kind.starts_with("a Git LFS pointer")));
/// ```
#[must_use]
pub fn kind_of(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.trim_ascii_start();
    let starts = |signature: &&(&[u8], &str)| {
        text.get(..signature.0.len()).is_some_and(|start| start.eq_ignore_ascii_case(signature.0))
    };
    SIGNATURES.iter().find(starts).map(|(_, kind)| *kind).or_else(|| {
        // A tar archive has its signature after the name and the numbers of the first file.
        (bytes.get(257..262) == Some(b"ustar")).then_some("a tar archive, which must be unpacked")
    })
}

/// What a file is that starts with `bytes`: its kind, or the first bytes themselves.
pub(crate) fn describe(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "empty".to_owned();
    }
    let start = &bytes[..bytes.len().min(24)];
    match (kind_of(bytes), std::str::from_utf8(start)) {
        (Some(kind), _) => kind.to_owned(),
        (None, Ok(text)) if !text.contains('\0') => format!("text that begins with {text:?}"),
        _ => {
            let bytes: Vec<_> = start.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            format!("of an unknown kind (it begins with the bytes {})", bytes.join(" "))
        }
    }
}
