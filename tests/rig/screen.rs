//! What is to be seen on a screen, by its colours.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use anyhow::{Context, Result};

use crate::media::Picture;

/// A place on a picture, in pixels from its top left.
#[derive(Clone, Copy)]
pub struct Place {
    /// From the left edge.
    pub left: usize,
    /// From the top edge.
    pub top: usize,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
}

/// The pixels of a place.
pub fn pixels(picture: &Picture, place: Place) -> impl Iterator<Item = [u8; 3]> {
    let row = move |y: usize| {
        let start = (y * picture.width + place.left) * 3;
        picture.rgb[start..start + place.width * 3].chunks_exact(3)
    };
    (place.top..place.top + place.height).flat_map(row).map(|pixel| [pixel[0], pixel[1], pixel[2]])
}

/// The share of a place that has a colour, or almost.
pub fn share(picture: &Picture, place: Place, colour: [u8; 3]) -> f64 {
    let near = |pixel: &[u8; 3]| pixel.iter().zip(colour).all(|(have, want)| have.abs_diff(want) < 32);
    pixels(picture, place).filter(near).count() as f64 / (place.width * place.height) as f64
}

/// Whether a place has white writing on something else.
pub fn is_written_on(picture: &Picture, place: Place) -> bool {
    let white = pixels(picture, place).filter(|pixel| pixel.iter().all(|part| *part > 160)).count();
    (0.03..0.5).contains(&(white as f64 / (place.width * place.height) as f64))
}

/// The last whole picture of a file of packed RGB.
pub fn last(file: &Path, width: usize, height: usize) -> Result<Option<Picture>> {
    let Ok(file) = File::open(file) else { return Ok(None) };
    let size = width * height * 3;
    let whole = file.metadata()?.len() / size as u64;
    let Some(last) = whole.checked_sub(1) else { return Ok(None) };
    let mut rgb = vec![0; size];
    file.read_exact_at(&mut rgb, last * size as u64).context("half a picture")?;
    Ok(Some(Picture { pts: 0, width, height, rgb }))
}
