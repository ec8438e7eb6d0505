//! The Internet checksum (RFC 1071).

/// Adds bytes to a running sum of big-endian 16-bit words; an odd last byte is padded with zero.
pub(crate) fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    // 2^32 words of 32 bits fit in the sum; no frame has that many.
    let sum = words.iter().fold(sum, |sum, word| sum + u64::from(u32::from_be_bytes(*word)));
    let mut tail = [0; 4];
    tail[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(tail))
}

/// Folds a running sum to 16 bits.
pub(crate) const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn wide_words_sum_as_narrow_ones(bytes: Vec<u8>) {
            let narrow = bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | c.get(1).map_or(0, |b| u64::from(*b))).sum();
            // Zero has two representations in ones' complement; the fold of a nonzero sum is never 0.
            prop_assert_eq!(fold(add(0, &bytes)), fold(narrow));
        }
    }
}
