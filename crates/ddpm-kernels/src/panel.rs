//! The memory layout of matrices: panels of sixteen features.
//!
//! Activations [B, width] are `width/16` panels of B rows; a weight [outputs, inputs] is `outputs/16` panels of a row
//! for each input. A width that sixteen does not divide is filled up with zeros. So a loop over a panel reads memory
//! in order, and a row fills one register or two.

/// The number of features side by side in a panel: one 512-bit register, or two of 256.
pub(crate) const PANEL: usize = 16;

/// Sixteen features next to each other, of an image or of a weight: a line of cache.
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

/// Images as they usually lie, [B, width] one after another, into panels whose places hold the pixels that `order`
/// says, and zero where it says `width`; `to` has a row for each image and panel.
pub(crate) fn to_panels(images: &[f32], width: usize, order: &[[usize; PANEL]], to: &mut [Row]) {
    let batch = images.len().checked_div(width).unwrap_or(0);
    for (rows, pixels) in to.chunks_mut(batch.max(1)).zip(order) {
        for (row, image) in rows.iter_mut().zip(images.chunks(width)) {
            row.0 = pixels.map(|pixel| image.get(pixel).copied().unwrap_or(0.0));
        }
    }
}

/// The way back from [`to_panels`].
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

/// A panel of Wᵀ, a row for each output, from the panels of W, each `stride` rows long: the sixteen inputs from
/// `first` on.
pub(crate) fn transpose(weight: &[Row], stride: usize, first: usize, to: &mut [Row]) {
    for (panel, to) in weight.chunks_exact(stride).zip(to.chunks_exact_mut(PANEL)) {
        // Row by row into columns: the other way round would be compiled to gathers, which are slower.
        for (input, from) in panel[first..first + PANEL].iter().enumerate() {
            for (to, &value) in to.iter_mut().zip(&from.0) {
                to.0[input] = value;
            }
        }
    }
}

/// Asks for a row that will be needed soon; where there is no such instruction, it does nothing.
///
/// This is the one place of the libraries with `unsafe` code.
#[inline(always)]
#[allow(unsafe_code, reason = "the instruction takes a pointer")]
pub(crate) fn prefetch(row: &Row) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which neither reads nor writes; and a reference is an address that could be read.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch(row.0.as_ptr().cast(), _MM_HINT_T0);
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
    fn images_come_back_from_panels() {
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
