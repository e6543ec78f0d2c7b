//! Checks of a page, before the parquet library decodes it. The library panics where the values of a page end too early,
//! or are indices into a dictionary that is not there.

use std::iter;

use bytes::Bytes;
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::Result;

use super::ROWS_PER_READ;
use super::checked::invalid;

/// The bytes of the length of a byte array.
const LENGTH: usize = 4;

/// The pages of another reader, checked.
pub(super) struct CheckedPages<R> {
    pages: R,
    physical_type: Type,
    has_dictionary: bool,
}

impl<R: PageReader> CheckedPages<R> {
    pub(super) fn new(pages: R, physical_type: Type) -> Self {
        Self { pages, physical_type, has_dictionary: false }
    }

    fn check(&mut self, mut page: Page) -> Result<Page> {
        if let Page::DictionaryPage { buf, num_values, .. } = &page {
            // The library allocates this number of values.
            let values = match self.physical_type {
                Type::BYTE_ARRAY => byte_arrays(buf),
                Type::INT32 => buf.len().div_euclid(4),
                _ => buf.len().div_euclid(8),
            };
            if *num_values as usize > values {
                return Err(invalid(format!("a dictionary of {num_values} values with bytes for {values}")));
            }
            self.has_dictionary = true;
            return Ok(page);
        }
        match page.encoding() {
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY if self.has_dictionary => {}
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => {
                return Err(invalid("indices into a dictionary that is not there".to_owned()));
            }
            Encoding::PLAIN => {}
            other => {
                return Err(invalid(format!(
                    "values in the encoding {other}, expected PLAIN or a dictionary"
                )));
            }
        }
        if let (Type::BYTE_ARRAY, Page::DataPage { buf, .. } | Page::DataPageV2 { buf, .. }) =
            (self.physical_type, &mut page)
        {
            // Zeros after the end are read as empty values, which are no images. The rows of a read are enough, since
            // each is decoded before the next read.
            *buf = Bytes::from([buf, &[0; LENGTH * ROWS_PER_READ][..]].concat());
        }
        Ok(page)
    }
}

/// The number of complete byte arrays in a page of values.
fn byte_arrays(mut values: &[u8]) -> usize {
    let next = || {
        let (length, rest) = values.split_first_chunk::<LENGTH>()?;
        values = rest.get(u32::from_le_bytes(*length) as usize..)?;
        Some(())
    };
    iter::from_fn(next).count()
}

impl<R: PageReader> PageReader for CheckedPages<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        page.map(|page| self.check(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

impl<R: PageReader> Iterator for CheckedPages<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
