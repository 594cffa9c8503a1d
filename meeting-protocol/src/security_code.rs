//! The security code: what people read aloud to know that they have the same leader (PROTOCOL.md 3.9).
//!
//! It is computed over the genesis link and the leader's announce, whose suite and keys are inside, through a slow
//! hash: who looks for a key with the same code pays 32 MiB and two passes for each try at 132 bits.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, PoisonError},
};

use argon2::{Algorithm, Argon2, Params, Version};

use crate::crypto::{
    kdf::info,
    labels,
    sign::{Hash, hash},
};

/// 40 decimal digits, shown in groups of five.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecurityCode([u8; 40]);

impl SecurityCode {
    /// The code of a leader: stable while the leader stays.
    pub(crate) fn of_leader(genesis: &Hash, announce: &Hash, suite: u16) -> Self {
        Self::slow(hash(labels::SECURITY_CODE, &info("", &[genesis, announce, &suite.to_be_bytes()])))
    }

    /// The code of a roster head: equal on two devices only if they see the same people.
    pub(crate) fn of_roster(genesis: &Hash, head: &Hash) -> Self {
        Self::slow(hash(labels::ROSTER_CODE, &info("", &[genesis, head])))
    }

    /// The code as eight pronounceable words of five letters, one for each group of digits.
    pub fn words(&self) -> String {
        // Consonant and vowel in turn: 16 * 6 * 16 * 6 * 16 words are more than 100,000.
        let word = |digits: &[u8]| {
            let number = digits.iter().fold(0u32, |number, digit| number * 10 + u32::from(*digit));
            let consonant = |bits: u32| char::from(b"bdfghjklmnprstvz"[(bits & 15) as usize]);
            let vowel = |bits: u32| char::from(b"aeiouy"[(bits % 6) as usize]);
            let (a, rest) = (number & 15, number >> 4);
            let (b, rest) = (rest % 6, rest / 6);
            let (c, rest) = (rest & 15, rest >> 4);
            let (d, e) = (rest % 6, rest / 6);
            [consonant(a), vowel(b), consonant(c), vowel(d), consonant(e)].iter().collect::<String>()
        };
        self.0.chunks(5).map(word).collect::<Vec<_>>().join(" ")
    }

    fn slow(input: Hash) -> Self {
        // A code is computed when a leader is met and looked up ever after; it is public, so it may be kept.
        static KEPT: Mutex<VecDeque<(Hash, SecurityCode)>> = Mutex::new(VecDeque::new());
        let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, code)) = kept().iter().find(|(key, _)| *key == input) {
            return *code;
        }
        let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).expect("parameters within RFC 9106");
        let mut out = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&input, labels::SECURITY_CODE, &mut out)
            .expect("lengths within RFC 9106");
        let code = Self(digits(&out));
        let mut kept = kept();
        if kept.len() >= KEEP {
            kept.pop_front();
        }
        kept.push_back((input, code));
        code
    }
}

/// Eight groups of five digits, each from 32 bits: the bias is below 2^-15.
fn digits(bytes: &[u8; 32]) -> [u8; 40] {
    let mut digits = [0; 40];
    for (group, word) in digits.chunks_mut(5).zip(bytes.as_chunks::<4>().0) {
        let mut number = u32::from_be_bytes(*word) % 100_000;
        for digit in group.iter_mut().rev() {
            *digit = (number % 10) as u8;
            number /= 10;
        }
    }
    digits
}

impl fmt::Display for SecurityCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, digit) in self.0.iter().enumerate() {
            if i > 0 && i % 5 == 0 {
                f.write_str(" ")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SecurityCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecurityCode({self})")
    }
}

const MEMORY_KIB: u32 = if cfg!(fuzzing) { 8 } else { 32 * 1024 };
const PASSES: u32 = 2;
/// Codes that are kept: meetings and leaders a process meets at one time.
const KEEP: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn digits_and_words() {
        let code = SecurityCode::of_leader(&[1; 32], &[2; 32], 5);
        assert_eq!(code.to_string().len(), 47);
        assert_eq!(code.to_string().split(' ').count(), 8);
        assert!(code.words().split(' ').all(|word| word.len() == 5));
        assert_eq!(code, SecurityCode::of_leader(&[1; 32], &[2; 32], 5));
    }

    #[test]
    fn every_input_counts() {
        let codes: HashSet<_> = [
            SecurityCode::of_leader(&[1; 32], &[2; 32], 5),
            SecurityCode::of_leader(&[1; 32], &[2; 32], 4),
            SecurityCode::of_leader(&[1; 32], &[3; 32], 5),
            SecurityCode::of_leader(&[2; 32], &[2; 32], 5),
            SecurityCode::of_roster(&[1; 32], &[2; 32]),
        ]
        .into();
        assert_eq!(codes.len(), 5);
    }

    #[test]
    fn words_tell_all_groups_apart() {
        let words: HashSet<String> = (0..100_000u32)
            .map(|number| {
                let mut digits = [0; 40];
                for (digit, place) in digits[..5].iter_mut().zip([10_000, 1_000, 100, 10, 1]) {
                    *digit = (number / place % 10) as u8;
                }
                SecurityCode(digits).words()[..5].to_owned()
            })
            .collect();
        assert_eq!(words.len(), 100_000);
    }
}
