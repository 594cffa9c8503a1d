//! HKDF (RFC 5869), straight into [`Secret`]s.
//!
//! Our own derivations go through `expand`, whose info is injective: the label and each part carry their
//! length, so that no two different lists of parts ever derive the same key. Labels that another standard
//! fixes byte for byte go through `expand_raw`.

use hkdf::Hkdf;
use sha2::{Sha256, Sha512};
use zeroize::Zeroize;

use crate::{crypto::wiped::on_a_wiped_stack, secret::Secret};

/// The injective encoding of a label and its parts: each preceded by its length, 32 bits big-endian.
pub fn info(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut info =
        Vec::with_capacity(parts.iter().map(|part| 4 + part.len()).sum::<usize>() + 4 + label.len());
    for part in [label.as_bytes()].iter().chain(parts) {
        // Parts are ids, hashes and bounded labels; one of 4 GiB is a bug in this program.
        let length = u32::try_from(part.len()).expect("a part under 4 GiB");
        info.extend_from_slice(&length.to_be_bytes());
        info.extend_from_slice(part);
    }
    info
}

macro_rules! hkdf {
    ($(#[$doc:meta])* $name:ident, $hash:ty, $size:literal) => {
        $(#[$doc])*
        pub struct $name(Secret<$size>);

        impl $name {
            /// HKDF-Extract; an empty salt stands for the RFC's string of zeros.
            pub fn extract(salt: &[u8], ikm: &[u8]) -> Self {
                Self(on_a_wiped_stack(|| {
                    let (mut prk, _) = Hkdf::<$hash>::extract(Some(salt), ikm);
                    let secret = Secret::init_with(|bytes| bytes.copy_from_slice(&prk));
                    prk.zeroize();
                    secret
                }))
            }

            /// Takes up a pseudorandom key extracted before.
            pub fn from_prk(prk: Secret<$size>) -> Self {
                Self(prk)
            }

            /// HKDF-Expand with an injective info, see [`info`].
            pub fn expand<const N: usize>(&self, label: &str, parts: &[&[u8]]) -> Secret<N> {
                self.expand_raw(&info(label, parts))
            }

            /// HKDF-Expand with an info whose bytes another standard fixes.
            pub fn expand_raw<const N: usize>(&self, info: &[u8]) -> Secret<N> {
                const { assert!(N <= 255 * $size, "RFC 5869 2.3: at most 255 blocks") };
                on_a_wiped_stack(|| {
                    Secret::init_with(|okm| {
                        Hkdf::<$hash>::from_prk(self.0.expose())
                            .expect("a key as long as the hash")
                            .expand(info, okm)
                            .expect("a length checked at compile time");
                    })
                })
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

hkdf!(
    /// HKDF with SHA-512, after extraction.
    HkdfSha512,
    Sha512,
    64
);
hkdf!(
    /// HKDF with SHA-256, after extraction.
    HkdfSha256,
    Sha256,
    32
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_tells_boundaries_apart() {
        let all = [
            info("ab", &[]),
            info("a", &[b"b"]),
            info("a", &[b"b", b""]),
            info("a", &[b"", b"b"]),
            info("", &[b"a", b"b"]),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| one != other), "{i}");
        }
    }

    #[test]
    fn label_and_parts_separate_keys() {
        let prk = HkdfSha512::extract(b"salt", b"ikm");
        let key = prk.expand::<32>("label", &[b"part"]);
        assert!(prk.expand::<32>("label", &[b"part"]).ct_eq(key.expose()));
        assert!(!prk.expand::<32>("label", &[b"parT"]).ct_eq(key.expose()));
        assert!(!prk.expand::<32>("labe", &[b"lpart"]).ct_eq(key.expose()));
    }
}
