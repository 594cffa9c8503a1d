//! The peer: groups of `mls-rs`.

use mls_rs::{
    CipherSuite, CipherSuiteProvider, Client, CryptoProvider, Group,
    client_builder::MlsConfig,
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider},
    },
    mls_rules::{CommitOptions, DefaultMlsRules},
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

fn client(number: usize) -> Client<impl MlsConfig> {
    let crypto = RustCryptoProvider::new();
    let suite = crypto.cipher_suite_provider(SUITE).expect("a suite that everybody has");
    let (secret, public) = suite.signature_key_generate().expect("a key");
    let identity = BasicCredential::new(number.to_be_bytes().to_vec());
    Client::builder()
        .identity_provider(BasicIdentityProvider)
        .crypto_provider(crypto)
        // whoever adds somebody gives new keys to its own path, so that a tree fills
        .mls_rules(DefaultMlsRules::new().with_commit_options(CommitOptions::new().with_path_required(true)))
        .signing_identity(SigningIdentity::new(identity.into_credential(), public), secret, SUITE)
        .build()
}

/// Every member was added by the one before, so that everybody has committed: no node of the tree is blank.
pub fn full_tree(members: usize) -> Group<impl MlsConfig> {
    let mut newest = client(0).create_group(Default::default(), Default::default(), None).expect("a group");
    for number in 1..members {
        let joiner = client(number);
        let package = joiner
            .generate_key_package_message(Default::default(), Default::default(), None)
            .expect("a package");
        let commit =
            newest.commit_builder().add_member(package).expect("a member").build().expect("a commit");
        newest = joiner.join_group(None, &commit.welcome_messages[0], None).expect("a welcome").0;
    }
    newest
}

/// One member added all others at once: the tree is blank but for its own path.
pub fn blank_tree(members: usize) -> Group<impl MlsConfig> {
    let mut group = client(0).create_group(Default::default(), Default::default(), None).expect("a group");
    let mut commit = group.commit_builder();
    for number in 1..members {
        let package = client(number)
            .generate_key_package_message(Default::default(), Default::default(), None)
            .expect("a package");
        commit = commit.add_member(package).expect("a member");
    }
    commit.build().expect("a commit");
    group.apply_pending_commit().expect("our own commit");
    group
}

/// New keys for everybody.
pub fn commit(group: &mut Group<impl MlsConfig>) {
    group.commit(Vec::new()).expect("a commit");
    group.apply_pending_commit().expect("our own commit");
}
