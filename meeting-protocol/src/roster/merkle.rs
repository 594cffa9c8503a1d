//! The Merkle tree hash of RFC 9162 section 2.1.1: leaves and nodes are hashed under different first bytes.

use sha2::{Digest, Sha256};

use crate::crypto::sign::Hash;

/// The root over leaves in order.
pub(super) fn root(leaves: impl Iterator<Item = Vec<u8>>) -> Hash {
    let mut level: Vec<Hash> =
        leaves.map(|leaf| Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()).collect();
    if level.is_empty() {
        return Sha256::digest([]).into();
    }
    // Pairing neighbours level by level and carrying an odd last one up gives the RFC's tree, whose left half is
    // the largest power of two.
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => {
                    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
                }
                [odd] => *odd,
                _ => unreachable!("chunks of two"),
            })
            .collect();
    }
    level[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9162 2.1.1, word for word.
    fn by_the_book(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => Sha256::new().chain_update([0]).chain_update(leaf).finalize().into(),
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(k);
                Sha256::new()
                    .chain_update([1])
                    .chain_update(by_the_book(left))
                    .chain_update(by_the_book(right))
                    .finalize()
                    .into()
            }
        }
    }

    #[test]
    fn level_by_level_is_by_the_book() {
        let leaves: Vec<Vec<u8>> = (0..70u8).map(|i| vec![i; i as usize]).collect();
        for n in 0..leaves.len() {
            assert_eq!(root(leaves[..n].iter().cloned()), by_the_book(&leaves[..n]), "{n} leaves");
        }
    }
}
