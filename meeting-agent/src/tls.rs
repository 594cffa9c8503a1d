//! TLS towards the relay: the certificate that the link names and no other, or the system's authorities.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use crate::error::AgentError;

/// The QUIC client settings for a relay, pinned to `certificate` (SHA-256 over the DER) if there is one.
pub fn client(certificate: Option<[u8; 32]>) -> Result<QuicClientConfig, AgentError> {
    QuicClientConfig::try_from(settings(certificate)?).map_err(|error| AgentError::Tls(error.to_string()))
}

fn settings(certificate: Option<[u8; 32]>) -> Result<ClientConfig, AgentError> {
    let tls = |error: &dyn std::fmt::Display| AgentError::Tls(error.to_string());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| tls(&error))?;
    let mut config = match certificate {
        Some(hash) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { hash, provider }))
            .with_no_client_auth(),
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(AgentError::Tls(
                    "this system has no certificate authorities: install ca-certificates, or ask for a link \
                     that names the relay's certificate"
                        .into(),
                ));
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![meeting_wire::ALPN.to_vec()];
    // What is sent before the handshake is over can be played again by anybody (RFC 8446, 8).
    config.enable_early_data = false;
    Ok(config)
}

/// Accepts one certificate, by hash; that its key is the peer's is still checked in the handshake.
#[derive(Debug)]
struct Pinned {
    hash: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let hash: [u8; 32] = Sha256::digest(end_entity).into();
        if hash == self.hash {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General(NOT_THE_ONE.into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What stands in the connection's error when the certificate is not the pinned one.
pub const NOT_THE_ONE: &str = "not the certificate that the link names";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_agent_sends_early_data() {
        assert!(!settings(Some([7; 32])).expect("settings").enable_early_data);
    }
}
