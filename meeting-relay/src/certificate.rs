//! The relay's TLS identity: a certificate of its own making, kept between starts, or one from files.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Config;
use crate::error::Error;
use crate::files;

/// A certificate chain and its private key.
#[derive(Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// When a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before this.
    pub from: SystemTime,
    /// Not after this.
    pub until: SystemTime,
}

impl Certificate {
    /// The one that the settings name, or else the relay's own.
    pub fn load(config: &Config) -> Result<Self, Error> {
        let Some((chain, key)) = &config.certificate else {
            let public = config.public_host().map(|(host, _)| host.to_owned());
            let names: Vec<String> = config.names.iter().cloned().chain(public).collect();
            return Self::self_signed(&config.state, &names);
        };
        Self::from_files(chain, key)
    }

    /// Reads a chain and a key from PEM files.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, Error> {
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(chain).and_then(Iterator::collect);
        let certificates = certificates.map_err(|error| fault(chain, "certificate", error))?;
        if certificates.is_empty() {
            return Err(fault(chain, "certificate", pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, "private key", error))?;
        Ok(Self { chain: certificates, key })
    }

    /// The certificate in the state directory, made there at the first start for this machine's loopback and
    /// `names`. It stays the same when `names` change, because links carry its hash.
    pub fn self_signed(state: &Path, names: &[String]) -> Result<Self, Error> {
        let [chain, key] = Self::state_files(state);
        if !chain.exists() || !key.exists() {
            make(state, &chain, &key, names)?;
        }
        Self::from_files(&chain, &key)
    }

    /// Where the relay's own certificate and its key are.
    pub fn state_files(state: &Path) -> [PathBuf; 2] {
        ["certificate.pem", "key.pem"].map(|name| state.join(name))
    }

    /// When it holds; none if it does not say in a way that we can read, which TLS will not like either.
    pub fn validity(&self) -> Option<Validity> {
        let (_, certificate) = x509_parser::parse_x509_certificate(self.chain.first()?).ok()?;
        let time = |time: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        let validity = certificate.validity();
        Some(Validity { from: time(validity.not_before), until: time(validity.not_after) })
    }

    /// SHA-256 over the certificate (DER): what a meeting link names a self-signed relay by.
    pub fn hash(&self) -> [u8; 32] {
        let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let mut hash = [0; 32];
        if let (Some(tls13), Some(certificate)) = (suite.tls13(), self.chain.first()) {
            hash.copy_from_slice(tls13.common.hash_provider.hash(certificate).as_ref());
        }
        hash
    }

    /// The private key in DER, for what is derived from it.
    pub fn private_key(&self) -> &[u8] {
        self.key.secret_der()
    }

    /// A TLS 1.3 server that speaks our ALPN name and takes no 0-RTT data, which could be replayed.
    pub fn into_server(self) -> Result<rustls::ServerConfig, Error> {
        let fault = |error: rustls::Error| Error::Certificate {
            what: "the certificate and its key".into(),
            message: match error {
                rustls::Error::InconsistentKeys(_) => {
                    "the key is of another certificate: give the two that belong together".into()
                }
                other => other.to_string(),
            },
        };
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(fault)?
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)
            .map_err(fault)?;
        server.alpn_protocols = vec![meeting_wire::ALPN.to_vec()];
        server.max_early_data_size = 0;
        Ok(server)
    }
}

/// What is wrong with a file, and what its owner can do.
fn fault(path: &Path, what: &'static str, error: pem::Error) -> Error {
    let message = match error {
        pem::Error::Io(error) => match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!(
                    "{error}: make it readable for the user that runs the relay; one in a folder where there was none \
                     at the start takes a restart"
                )
            }
            _ => format!("{error}: is the path right?"),
        },
        pem::Error::NoItemsFound => format!("there is no {what} in it: it has to be a PEM file with one"),
        other => format!("{other:?}: it has to be a PEM file with a {what}"),
    };
    Error::Certificate { what: path.display().to_string(), message }
}

/// Makes the state directory, if there is none yet.
pub fn make_state(state: &Path) -> Result<(), Error> {
    // Under any umask: nobody else puts another key there.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.map_err(|error| Error::State { path: state.to_owned(), error })
}

fn make(state: &Path, chain: &Path, key: &Path, names: &[String]) -> Result<(), Error> {
    let fault = |error: rcgen::Error| Error::Certificate {
        what: "making a certificate".into(),
        message: error.to_string(),
    };
    make_state(state)?;
    let problem = |error| Error::State { path: state.to_owned(), error };
    let mut subjects: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
    subjects.extend(names.iter().filter(|name| !subjects.contains(name)).cloned().collect::<Vec<_>>());
    let made = rcgen::generate_simple_self_signed(subjects).map_err(fault)?;
    // The key first: a crash in between leaves no certificate, and the next start makes both anew.
    let pem = made.signing_key.serialize_pem();
    files::replace(key, &pem, 0o600).map_err(problem)?;
    files::replace(chain, &made.cert.pem(), 0o644).map_err(problem)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_once_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("deep/state");
        let first = Certificate::self_signed(&state, &["relay.example".into()]).expect("made");
        let second = Certificate::self_signed(&state, &[]).expect("read");
        assert_eq!(first.hash(), second.hash());
        assert_ne!(first.hash(), [0; 32]);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&state.join("key.pem")), mode(&state)), (0o600, 0o700));
        second.into_server().expect("usable");
    }

    #[test]
    fn the_hash_is_sha256() {
        let certificate = Certificate {
            chain: vec![CertificateDer::from(b"abc".to_vec())],
            key: PrivateKeyDer::Pkcs8(vec![].into()),
        };
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(certificate.hash()), expected);
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("empty.pem");
        fs::write(&path, "").expect("written");
        let error = Certificate::from_files(&path, &path).expect_err("no key in there");
        let error = error.to_string();
        assert!(error.contains("empty.pem") && error.contains("no certificate in it"), "{error}");
    }
}
