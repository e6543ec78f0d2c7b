//! The memory layout of matrices: panels of sixteen features.
//!
//! Activations [B, width] are stored as `width/16` panels of B rows. A weight [outputs, inputs] is stored as
//! `outputs/16` panels with a row for each input. A width that is not a multiple of sixteen is padded with zeros. So a
//! loop over a panel reads memory in order, and a row fills one or two registers.

/// The number of features of a panel: one 512-bit register of f32, or two of 256 bits.
pub(crate) const PANEL: usize = 16;

/// Sixteen neighbouring features of an image or a weight: 64 bytes, one cache line.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Row(pub(crate) [f32; PANEL]);

impl Row {
    /// Sixteen zeros.
    pub(crate) const ZERO: Self = Self([0.0; PANEL]);
}

/// The number of panels of `width` features.
pub(crate) fn panels(width: usize) -> usize {
    width.div_ceil(PANEL)
}

/// Copies images [B, width] in row-major order into panels. `order` gives the pixel of each position of each panel; the
/// value `width` stands for padding, which becomes 0. `to` has a row for each panel and image.
pub(crate) fn to_panels(images: &[f32], width: usize, order: &[[usize; PANEL]], to: &mut [Row]) {
    let batch = images.len().checked_div(width).unwrap_or(0);
    for (rows, pixels) in to.chunks_mut(batch.max(1)).zip(order) {
        for (row, image) in rows.iter_mut().zip(images.chunks(width)) {
            row.0 = pixels.map(|pixel| image.get(pixel).copied().unwrap_or(0.0));
        }
    }
}

/// The inverse of [`to_panels`].
pub(crate) fn from_panels(from: &[Row], width: usize, order: &[[usize; PANEL]], images: &mut [f32]) {
    let batch = images.len().checked_div(width).unwrap_or(0);
    for (rows, pixels) in from.chunks(batch.max(1)).zip(order) {
        for (row, image) in rows.iter().zip(images.chunks_mut(width)) {
            for (&pixel, &value) in pixels.iter().zip(&row.0) {
                if let Some(to) = image.get_mut(pixel) {
                    *to = value;
                }
            }
        }
    }
}

/// Writes one panel of Wᵀ: the sixteen inputs from `first` on, with a row for each output. `weight` holds the panels
/// of W, each of `stride` rows.
pub(crate) fn transpose(weight: &[Row], stride: usize, first: usize, to: &mut [Row]) {
    for (panel, to) in weight.chunks_exact(stride).zip(to.chunks_exact_mut(PANEL)) {
        // The next panel of inputs is often the next one to be transposed.
        panel.iter().skip(first + PANEL).take(PANEL).for_each(prefetch);
        // Reads rows and writes columns: with the loops exchanged, the compiler emits gathers, which are slower.
        for (input, from) in panel[first..first + PANEL].iter().enumerate() {
            for (to, &value) in to.iter_mut().zip(&from.0) {
                to.0[input] = value;
            }
        }
    }
}

/// Prefetches a row into the cache; does nothing on processors other than x86-64.
///
/// This is the only `unsafe` code of the library crates.
#[inline(always)]
#[allow(unsafe_code, reason = "the instruction takes a pointer")]
pub(crate) fn prefetch(row: &Row) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is a hint, which does not access memory, and a reference is a valid address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch(row.0.as_ptr().cast(), _MM_HINT_T1);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_panel_is_a_panel_of_the_transpose() {
        let (stride, first, outputs) = (3 * PANEL + 1, PANEL, 2 * PANEL);
        let weight: Vec<Row> =
            (0..2 * stride).map(|row| Row(std::array::from_fn(|lane| (row * PANEL + lane) as f32))).collect();
        let mut to = vec![Row::ZERO; outputs];
        transpose(&weight, stride, first, &mut to);
        for (output, row) in to.iter().enumerate() {
            for (input, &found) in row.0.iter().enumerate() {
                let from = weight[output.div_euclid(PANEL) * stride + first + input];
                assert_eq!(found, from.0[output % PANEL]);
            }
        }
    }

    #[test]
    fn from_panels_inverts_to_panels() {
        for (batch, width) in [(3, 37), (1, 16), (5, 7), (0, 20)] {
            let images: Vec<f32> = (0..batch * width).map(|i| i as f32).collect();
            let order: Vec<[usize; PANEL]> = (0..panels(width))
                .map(|panel| std::array::from_fn(|lane| (panel * PANEL + lane).min(width)))
                .collect();
            let mut rows = vec![Row([9.0; PANEL]); panels(width) * batch];
            to_panels(&images, width, &order, &mut rows);
            if width == 37 {
                assert_eq!(rows[2 * batch + 1].0[..6], [69.0, 70.0, 71.0, 72.0, 73.0, 0.0]);
            }
            let mut back = vec![9.0; images.len()];
            from_panels(&rows, width, &order, &mut back);
            assert_eq!(back, images);
        }
    }
}
