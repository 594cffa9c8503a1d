//! What is to be seen on a screen, by its colours.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rig::media::{self, Picture};

/// A place on a picture, in pixels from its top left.
#[derive(Clone, Copy)]
pub struct Place {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

pub const GREEN: [u8; 3] = [0x2e, 0x9e, 0x5b];
pub const AMBER: [u8; 3] = [0xd9, 0x8a, 0x00];
pub const RED: [u8; 3] = [0xd2, 0x3b, 0x2e];
pub const GREY: [u8; 3] = [0x78, 0x82, 0x8c];
/// The share of a shield's place that its colour fills; the padlock and the corners have the rest.
pub const SHIELD: f64 = 0.35;

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

/// Keeps a picture where a person may look at it.
pub fn keep(name: &str, picture: &Picture) -> Result<()> {
    media::write_png(&kept(name), picture.width, picture.height, &picture.rgb)
}

/// Where a picture is kept.
pub fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"))
}

/// The last whole picture of a file of packed RGB.
pub fn last(file: &Path, width: usize, height: usize) -> Result<Option<Picture>> {
    use std::os::unix::fs::FileExt;
    let Ok(file) = std::fs::File::open(file) else { return Ok(None) };
    let size = width * height * 3;
    let whole = file.metadata()?.len() / size as u64;
    let Some(last) = whole.checked_sub(1) else { return Ok(None) };
    let mut rgb = vec![0; size];
    file.read_exact_at(&mut rgb, last * size as u64).context("half a picture")?;
    Ok(Some(Picture { pts: 0, width, height, rgb }))
}
