//! Compression of what is stored. Pure, but for a context that each thread keeps: making one costs more than packing a page with it.

use std::{
    cell::RefCell,
    io::{self, Read},
};

use zstd::bulk::Compressor;

/// The level of what is kept for long.
pub(crate) const STORED: i32 = 3;
/// The level of what is gone within the minute.
pub(crate) const PASSING: i32 = 1;
/// Texts above this go by a context of their own, so that a thread does not keep the memory that one large text took.
const MOST: usize = 1 << 20;

thread_local! {
    static CONTEXT: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// Packs bytes.
pub(crate) fn pack(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    if bytes.len() > MOST {
        return zstd::bulk::compress(bytes, level);
    }
    CONTEXT.with_borrow_mut(|context| {
        let compressor = match context {
            Some(compressor) => compressor,
            None => context.insert(Compressor::new(level)?),
        };
        compressor.set_compression_level(level)?;
        compressor.compress(bytes)
    })
}

/// Unpacks bytes; of what would be more than `most` only so many.
pub(crate) fn unpack(bytes: &[u8], most: u64) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    zstd::Decoder::new(bytes)?.take(most).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_size_and_level_read_back_one_after_the_other() {
        for (size, level) in [
            (10, STORED),
            (5_000, PASSING),
            (MOST + 1, STORED),
            (0, STORED),
            (700_000, PASSING),
        ] {
            let text: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let packed = pack(&text, level).unwrap();
            assert_eq!(unpack(&packed, u64::MAX).unwrap(), text);
        }
    }

    #[test]
    fn a_bomb_is_read_to_its_limit() {
        let packed = pack(&vec![0; 1 << 20], STORED).unwrap();
        assert!(packed.len() < 1000);
        assert_eq!(unpack(&packed, 100).unwrap().len(), 100);
    }
}
