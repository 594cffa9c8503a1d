//! Known answers: what the standards publish, byte for byte, over both AEAD back ends.

use meeting_protocol::{
    crypto::{
        aead::{Aead, aws_lc, pure_rust},
        kdf::{HkdfSha256, HkdfSha512},
    },
    frame::{CipherSuite, FrameKey, Header, KeyId},
};
use serde::Deserialize;

#[test]
fn sframe_headers() {
    let vectors: SFrameFile = json(include_str!("vectors/sframe-rfc9605.json"));
    assert_eq!(vectors.header.len(), 289);
    for vector in vectors.header {
        let header = Header { kid: vector.kid, ctr: vector.ctr };
        let mut emitted = [0; Header::MAX_LEN];
        let len = header.emit(&mut emitted);
        assert_eq!(emitted[..len], vector.encoded, "{header:?}");
        assert_eq!(Header::parse(&vector.encoded), Some((header, len)));
        let followed = [&vector.encoded[..], &[0xa5; 16]].concat();
        assert_eq!(Header::parse(&followed), Some((header, len)));
    }
}

#[test]
fn sframe_suites_4_and_5_on_aws_lc() {
    sframe::<aws_lc::AeadKey>();
}

#[test]
fn sframe_suites_4_and_5_in_pure_rust() {
    sframe::<pure_rust::AeadKey>();
}

fn sframe<A: Aead>() {
    let vectors: SFrameFile = json(include_str!("vectors/sframe-rfc9605.json"));
    let mut run = Vec::new();
    for vector in vectors.sframe {
        let Ok(suite) = CipherSuite::try_from(vector.cipher_suite) else {
            continue;
        };
        let key = FrameKey::<A>::derive(suite, KeyId::from(vector.kid), &vector.base_key);
        let nonce = key.nonce_of(vector.ctr);
        assert_eq!(nonce[..], vector.nonce, "suite {suite:?}");

        let mut header = [0; Header::MAX_LEN];
        let header_len = Header { kid: vector.kid, ctr: vector.ctr }.emit(&mut header);
        let aad = [&header[..header_len], &vector.metadata].concat();
        assert_eq!(aad, vector.aad);

        let mut sealed = vec![0; vector.pt.len()];
        let mut tag = [0; 16];
        key.aead().seal(&nonce, &aad, &vector.pt, &mut sealed, &mut tag).expect("sealed");
        assert_eq!([&header[..header_len], &sealed, &tag].concat(), vector.ct, "suite {suite:?}");

        let mut opened = vec![0; vector.pt.len()];
        key.aead().open(&nonce, &aad, &sealed, &tag, &mut opened).expect("opened");
        assert_eq!(opened, vector.pt);
        run.push(vector.cipher_suite);
    }
    assert_eq!(run, [4, 5]);
}

#[test]
fn wycheproof_aes_gcm_on_aws_lc() {
    aes_gcm::<aws_lc::AeadKey>();
}

#[test]
fn wycheproof_aes_gcm_in_pure_rust() {
    aes_gcm::<pure_rust::AeadKey>();
}

fn aes_gcm<A: Aead>() {
    let vectors: Wycheproof<AeadTest> = json(include_str!("vectors/aes_gcm_test.json"));
    let (mut valid, mut invalid) = (0, 0);
    for test in vectors.test_groups.into_iter().flat_map(|group| group.tests) {
        let key = match test.key.len() {
            16 => A::aes_128_gcm(test.key[..].try_into().expect("16 bytes")),
            32 => A::aes_256_gcm(test.key[..].try_into().expect("32 bytes")),
            _ => continue,
        };
        let Ok(nonce) = <[u8; 12]>::try_from(&test.iv[..]) else {
            continue;
        };
        let tag = test.tag[..].try_into().expect("a tag of 16 bytes");

        let mut opened = vec![0xee; test.ct.len()];
        let mut in_place = test.ct.clone();
        let result = key.open(&nonce, &test.aad, &test.ct, &tag, &mut opened);
        assert_eq!(key.open_in_place(&nonce, &test.aad, &mut in_place, &tag), result, "test {}", test.id);
        assert_eq!(in_place, opened);

        if test.result == "valid" {
            assert_eq!((result, &opened), (Ok(()), &test.msg), "test {}", test.id);
            let mut sealed = vec![0; test.msg.len()];
            let mut sealed_tag = [0; 16];
            key.seal(&nonce, &test.aad, &test.msg, &mut sealed, &mut sealed_tag).expect("sealed");
            assert_eq!((sealed, sealed_tag), (test.ct.clone(), tag), "test {}", test.id);
            let mut in_place = test.msg.clone();
            let sealed_tag = key.seal_in_place_detached(&nonce, &test.aad, &mut in_place).expect("sealed");
            assert_eq!((in_place, sealed_tag), (test.ct, tag), "test {}", test.id);
            valid += 1;
        } else {
            assert!(result.is_err(), "test {}", test.id);
            assert!(opened.iter().all(|&byte| byte == 0), "test {}", test.id);
            invalid += 1;
        }
    }
    assert_eq!((valid, invalid), (VALID, INVALID));
}

#[test]
fn wycheproof_hkdf() {
    let mut run = 0;
    let mut check = |file: &str, okm: fn(&HkdfTest) -> Vec<u8>, most: usize| {
        let vectors: Wycheproof<HkdfTest> = json(file);
        for test in vectors.test_groups.into_iter().flat_map(|group| group.tests) {
            // Longer outputs do not compile here.
            if test.size > most {
                assert_eq!(test.result, "invalid");
                continue;
            }
            assert_eq!(test.result, "valid");
            assert_eq!(okm(&test)[..test.size], test.okm, "test {}", test.id);
            run += 1;
        }
    };
    // A shorter output is the start of a longer one (RFC 5869 2.3), so the longest serves for all.
    check(
        include_str!("vectors/hkdf_sha256_test.json"),
        |test| {
            HkdfSha256::extract(&test.salt, &test.ikm)
                .expand_raw::<{ 255 * 32 }>(&test.info)
                .expose()
                .to_vec()
        },
        255 * 32,
    );
    check(
        include_str!("vectors/hkdf_sha512_test.json"),
        |test| {
            HkdfSha512::extract(&test.salt, &test.ikm)
                .expand_raw::<{ 255 * 64 }>(&test.info)
                .expose()
                .to_vec()
        },
        255 * 64,
    );
    assert_eq!(run, HKDF_RUN);
}

#[test]
fn rfc_5869_hkdf() {
    let text = include_str!("vectors/rfc-5869-HKDF-SHA256.txt");
    let mut run = 0;
    for case in text.split("COUNT = ").skip(1) {
        let field = |name: &str| {
            let line =
                case.lines().find(|line| line.split('=').next().is_some_and(|left| left.trim() == name));
            hex::decode(line.and_then(|line| line.split('=').nth(1)).expect("a field").trim()).expect("hex")
        };
        let okm = field("OKM");
        let out = HkdfSha256::extract(&field("salt"), &field("IKM")).expand_raw::<82>(&field("info"));
        assert_eq!(out.expose()[..okm.len()], okm);
        run += 1;
    }
    assert_eq!(run, 3);
}

fn json<'a, T: Deserialize<'a>>(text: &'a str) -> T {
    serde_json::from_str(text).expect("a vector file")
}

#[derive(Deserialize)]
struct SFrameFile {
    header: Vec<HeaderVector>,
    sframe: Vec<SFrameVector>,
}

#[derive(Deserialize)]
struct HeaderVector {
    kid: u64,
    ctr: u64,
    #[serde(with = "hex")]
    encoded: Vec<u8>,
}

#[derive(Deserialize)]
struct SFrameVector {
    cipher_suite: u16,
    kid: u64,
    ctr: u64,
    #[serde(with = "hex")]
    base_key: Vec<u8>,
    #[serde(with = "hex")]
    metadata: Vec<u8>,
    #[serde(with = "hex")]
    nonce: Vec<u8>,
    #[serde(with = "hex")]
    aad: Vec<u8>,
    #[serde(with = "hex")]
    pt: Vec<u8>,
    #[serde(with = "hex")]
    ct: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wycheproof<T> {
    test_groups: Vec<Group<T>>,
}

#[derive(Deserialize)]
struct Group<T> {
    tests: Vec<T>,
}

#[derive(Deserialize)]
struct AeadTest {
    #[serde(rename = "tcId")]
    id: u32,
    #[serde(with = "hex")]
    key: Vec<u8>,
    #[serde(with = "hex")]
    iv: Vec<u8>,
    #[serde(with = "hex")]
    aad: Vec<u8>,
    #[serde(with = "hex")]
    msg: Vec<u8>,
    #[serde(with = "hex")]
    ct: Vec<u8>,
    #[serde(with = "hex")]
    tag: Vec<u8>,
    result: String,
}

#[derive(Deserialize)]
struct HkdfTest {
    #[serde(rename = "tcId")]
    id: u32,
    #[serde(with = "hex")]
    ikm: Vec<u8>,
    #[serde(with = "hex")]
    salt: Vec<u8>,
    #[serde(with = "hex")]
    info: Vec<u8>,
    size: usize,
    #[serde(with = "hex")]
    okm: Vec<u8>,
    result: String,
}

/// Tests in the file with nonces of 96 bits and keys of 128 or 256, so that none is skipped unnoticed.
const VALID: usize = 79;
const INVALID: usize = 54;
/// Tests in the two HKDF files whose output is not too long.
const HKDF_RUN: usize = 163;
