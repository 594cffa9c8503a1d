//! Secrets: born in place, wiped, silent and incomparable.
//!
//! A [`Secret`] never moves its bytes (only the [`Slot`] that holds them), so no copy stays behind on a stack, and
//! nothing prints, clones or compares it by accident. Where the kernel can, they lie in memory that no other process sees.

use std::fmt;

use rand_core::CryptoRng;
use secret_memory::Slot;
use subtle::ConstantTimeEq;

/// `N` secret bytes. They are wiped when dropped, and not there in a fork of this process, which panics on use.
///
/// There is no `Clone` and no `PartialEq`: a copy is asked for by name ([`duplicate`](Self::duplicate)), a
/// comparison takes constant time ([`ct_eq`](Self::ct_eq)).
pub struct Secret<const N: usize>(Slot<N>);

impl<const N: usize> Secret<N> {
    /// Makes a secret where it will live; `f` sees zeros and fills them in.
    pub fn init_with(f: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Slot::new());
        f(&mut secret.0);
        secret
    }

    /// Draws a secret.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        Self::init_with(|bytes| rng.fill_bytes(bytes))
    }

    /// The bytes. What is copied out of here is no longer wiped.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// A second secret of the same bytes, wiped on its own. Each call widens what a memory dump can find: use it
    /// only where two owners must hold the key at once.
    pub fn duplicate(&self) -> Self {
        Self::init_with(|bytes| bytes.copy_from_slice(self.expose()))
    }

    /// Its name, for the tests that search programs for it; in what is shipped nobody is told.
    #[inline]
    pub(crate) fn called(self, _name: &str) -> Self {
        #[cfg(feature = "nonce-ledger")]
        crate::canary::tell(_name, self.expose());
        self
    }

    /// Whether these are the bytes, in a time that does not depend on the answer.
    pub fn ct_eq(&self, other: &[u8; N]) -> bool {
        self.0.as_slice().ct_eq(other.as_slice()).into()
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_silent() {
        let secret = Secret::<4>::init_with(|bytes| *bytes = [0xab, 171, 0xab, 171]);
        assert_eq!(format!("{secret:?} {secret:#?}"), "Secret<4>(..) Secret<4>(..)");
    }

    #[test]
    fn a_duplicate_lives_on_its_own() {
        let secret = Secret::<4>::init_with(|bytes| *bytes = [1, 2, 3, 4]);
        let copy = secret.duplicate();
        drop(secret);
        assert!(copy.ct_eq(&[1, 2, 3, 4]));
        assert!(!copy.ct_eq(&[1, 2, 3, 5]));
    }
}
