//! The Internet checksum (RFC 1071).

/// Adds bytes to a running sum of big-endian 16-bit words; a missing last byte counts as zero. Parts of one message that
/// are added one after the other have even lengths, but for the last. Holds sums of some gigabytes.
#[inline]
#[must_use]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    // 2^32 words of 32 bits fit in the sum; no frame has that many.
    let sum = words.iter().fold(sum, |sum, word| sum + u64::from(u32::from_be_bytes(*word)));
    let mut tail = [0; 4];
    tail[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(tail))
}

/// Folds a running sum to 16 bits; its complement is what a packet carries.
#[inline]
#[must_use]
pub const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let [.., high, low] = sum.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// What a packet carries in its field for the checksum, if `parts` are summed with nothing in that field; zero, if the
/// field holds what it should. All but the last have even lengths.
#[must_use]
pub fn of(parts: &[&[u8]]) -> u16 {
    !fold(parts.iter().fold(0, |sum, part| add(sum, part)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        // RFC 1071 section 3: the sum is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(&[&bytes]), !0xddf2);
        assert_eq!(of(&[&bytes[..2], &bytes[2..]]), !0xddf2);
    }

    proptest! {
        #[test]
        fn wide_words_sum_as_narrow_ones(bytes: Vec<u8>) {
            let narrow = bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | c.get(1).map_or(0, |b| u64::from(*b))).sum();
            // Zero has two representations in ones' complement; the fold of a nonzero sum is never 0.
            prop_assert_eq!(fold(add(0, &bytes)), fold(narrow));
        }
    }

    #[test]
    fn a_message_with_its_checksum_in_it_sums_to_nothing() {
        let mut message = [0xff; 63];
        message[2..4].copy_from_slice(&[0, 0]);
        let sum = of(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(of(&[&message]), 0);
    }
}
