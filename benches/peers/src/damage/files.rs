//! Copies of a log's files, places in them, and what is done to these places.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::Result;

/// Files may be preallocated to a gigabyte; the records lie at the front.
const LOOKED_AT: u64 = 16 * 1024 * 1024;

/// The size of a page.
pub const PAGE: u64 = 4096;

/// A place in a file.
#[derive(Clone, Debug)]
pub struct Place {
    pub file: PathBuf,
    pub offset: u64,
}

/// Copies a directory. `cp` keeps the holes of large, mostly empty files.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").args(["-a", "--sparse=auto"]).arg(from).arg(to).status()?;
    if status.success() { Ok(()) } else { Err(format!("cp ended with {status}").into()) }
}

/// All files below `dir`, in order of their names, with what is looked at of their content.
pub fn contents(dir: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(dir.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else {
                let mut bytes = Vec::new();
                File::open(dir.join(&path))?.take(LOOKED_AT).read_to_end(&mut bytes)?;
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The first place of `needle` in `bytes`.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| byte == first) {
        if bytes[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// Flips one bit.
pub fn flip(dir: &Path, place: &Place, bit: u32) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(dir.join(&place.file))?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place.offset)?;
    file.write_all_at(&[byte[0] ^ (1 << bit)], place.offset)
}

/// Zeroes the page that a place lies in.
pub fn zero_page(dir: &Path, place: &Place) -> io::Result<()> {
    let file = File::options().write(true).open(dir.join(&place.file))?;
    let start = place.offset / PAGE * PAGE;
    let end = (start + PAGE).min(file.metadata()?.len());
    file.write_all_at(&[0; PAGE as usize][..(end - start) as usize], start)
}
