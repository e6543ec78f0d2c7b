//! The forward pass of a stage: consecutive layers that treat each patch alike. They run strip by strip, so that what one
//! layer writes is in the second-level cache when the next one reads it.

use std::{iter::zip, mem::take, ops::Range};

use pulp::Arch;
use rayon::prelude::*;

use crate::{
    forward::{Add, Forward},
    network::{Activations, Conditions},
    panel::Row,
    plan::{Layer, Plan},
};

/// What the layers of a stage write in a strip: for each layer, the panels of its output, and of SiLU's derivative.
struct Task<'a> {
    strip: Strip,
    outs: Vec<Vec<&'a mut [Row]>>,
    slopes: Vec<Vec<&'a mut [Row]>>,
}

impl Activations {
    /// Runs the layers of a stage. A slot for which `is_internal` is true is kept in a buffer of the strip.
    pub(crate) fn run_stage(
        &mut self,
        plan: &Plan,
        layers: &[Layer],
        weights: &[Vec<Row>],
        conditions: Conditions<'_>,
        is_internal: impl Fn(usize) -> bool + Sync,
    ) {
        let patches = layers.first().map_or(0, |layer| layer.patches);
        let (images, rows) = (self.rows, self.rows * patches);
        let strips = strips(patches, images, rayon::current_num_threads());
        let mut written: Vec<[Vec<Row>; 2]> =
            layers.iter().map(|l| [take(&mut self.values[l.out]), take(&mut self.slopes[l.out])]).collect();
        let empty = |strip: &Strip| Task { strip: strip.clone(), outs: Vec::new(), slopes: Vec::new() };
        let mut tasks: Vec<Task<'_>> = strips.iter().map(empty).collect();
        for (layer, [out, slope]) in zip(layers, &mut written) {
            let out = if is_internal(layer.out) { &mut [] } else { out.as_mut_slice() };
            for ((task, out), slope) in
                zip(&mut tasks, split(out, rows, &strips)).zip(split(slope, rows, &strips))
            {
                task.outs.push(out);
                task.slopes.push(slope);
            }
        }
        let buffers = || vec![Vec::new(); layers.len()];
        tasks.into_par_iter().for_each_init(buffers, |buffers: &mut Vec<Vec<Row>>, task| {
            let Task { strip, mut outs, mut slopes } = task;
            for ((layer, out), buffer) in zip(layers, &mut outs).zip(buffers) {
                if out.is_empty() && !layer.continues {
                    buffer.resize(layer.outputs.panels() * strip.rows.len(), Row::ZERO);
                    *out = buffer.chunks_mut(strip.rows.len()).collect();
                }
            }
            for (at, layer) in layers.iter().enumerate() {
                if layer.continues {
                    outs[at] = take(&mut outs[at - 1]);
                    slopes[at] = take(&mut slopes[at - 1]);
                }
                let (done, rest) = outs.split_at_mut(at);
                let x = self.strip_of(layer.x, layers, done, &strip.rows, rows);
                let add: Vec<Add<'_>> = match layer.add {
                    None => Vec::new(),
                    Some(slot) if plan.of_image[slot] => {
                        let panels = self.strip_of(slot, layers, done, &strip.rows, rows);
                        panels.into_iter().map(Add::Rows).collect()
                    }
                    Some(slot) => conditions.add(slot, strip.images.clone()),
                };
                Arch::new().dispatch(Forward {
                    weight: &weights[at],
                    stride: layer.stride(),
                    x: &x,
                    continues: layer.continues,
                    add: &add,
                    silu: layer.silu,
                    out: &mut rest[0],
                    slope: &mut slopes[at],
                });
            }
        });
        for (layer, [out, slope]) in zip(layers, written).filter(|(layer, _)| !layer.continues) {
            self.values[layer.out] = out;
            self.slopes[layer.out] = slope;
        }
    }

    /// The panels of a slot for the rows of a strip. A slot that an earlier layer of the stage wrote is in `done`.
    fn strip_of<'a>(
        &'a self,
        slot: usize,
        layers: &[Layer],
        done: &'a [Vec<&mut [Row]>],
        strip: &Range<usize>,
        rows: usize,
    ) -> Vec<&'a [Row]> {
        match zip(layers, done).rev().find(|(layer, _)| layer.out == slot) {
            Some((_, panels)) => panels.iter().map(|panel| &**panel).collect(),
            None => self.values[slot].chunks(rows).map(|panel| &panel[strip.clone()]).collect(),
        }
    }
}

/// A range of rows of a slot: some images of one patch, or all images of some patches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Strip {
    /// The rows, in the order of the patches.
    pub(crate) rows: Range<usize>,
    /// The images of each patch.
    images: Range<usize>,
}

/// The largest number of rows of a strip.
const ROWS: usize = 128;

/// Divides the rows of `patches` patches of `images` images into strips of nearly equal size, at least one for each of
/// `threads` threads if there are as many patches.
pub(crate) fn strips(patches: usize, images: usize, threads: usize) -> Vec<Strip> {
    let bounds = |total: usize, parts: usize| {
        let bound = move |part: usize| (total * part).div_euclid(parts);
        (0..parts).map(move |part| bound(part)..bound(part + 1))
    };
    if images == 0 {
        return Vec::new();
    }
    let parts = images.div_ceil(ROWS);
    let groups =
        if parts > 1 { patches } else { (patches * images).div_ceil(ROWS).max(threads).min(patches) };
    let strip = |of_patches: Range<usize>, of_images: Range<usize>| {
        let first = of_patches.start * images + of_images.start;
        Strip { rows: first..first + of_patches.len() * of_images.len(), images: of_images }
    };
    let of_patches = bounds(patches, groups);
    of_patches
        .flat_map(|of_patches| bounds(images, parts).map(move |part| strip(of_patches.clone(), part)))
        .collect()
}

/// Divides each panel of a slot, of `rows` rows, into the rows of each strip: a list of panels for each strip.
pub(crate) fn split<'a>(slot: &'a mut [Row], rows: usize, strips: &[Strip]) -> Vec<Vec<&'a mut [Row]>> {
    let mut divided: Vec<Vec<&mut [Row]>> = strips.iter().map(|_| Vec::new()).collect();
    for mut panel in slot.chunks_mut(rows.max(1)) {
        for (strip, divided) in strips.iter().zip(&mut divided) {
            let (part, rest) = panel.split_at_mut(strip.rows.len());
            divided.push(part);
            panel = rest;
        }
    }
    divided
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_cover_all_rows_in_order() {
        for (patches, images) in
            [(49, 1), (49, 25), (49, 84), (49, 128), (49, 512), (4, 3), (1, 1000), (3, 0)]
        {
            for threads in [1, 2, 60] {
                let strips = strips(patches, images, threads);
                assert!(strips.len() >= threads.min(patches) || images == 0);
                let mut next = 0;
                for Strip { rows, images: of_patch } in &strips {
                    assert_eq!(rows.start, next);
                    assert_eq!(rows.start % images, of_patch.start);
                    assert!(of_patch.end <= images && rows.len() % of_patch.len() == 0);
                    assert!(
                        !rows.is_empty() && rows.len() <= ROWS + images.min(ROWS),
                        "{patches} {images} {rows:?}"
                    );
                    assert!(*of_patch == (0..images) || rows.len() == of_patch.len());
                    next = rows.end;
                }
                assert_eq!(next, patches * images);
            }
        }
    }
}
