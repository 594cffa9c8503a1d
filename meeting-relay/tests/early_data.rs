//! No early data: what is sent before the handshake is over can be played again by anybody (RFC 8446, 8).

#[allow(dead_code)]
mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use common::*;
use meeting_wire::Admission;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// How often the client comes again; the ticket of the first time is there at the second, or soon after.
const TIMES: usize = 5;

#[tokio::test]
async fn who_comes_again_is_offered_no_early_data() {
    let rig = Rig::start();
    let generous = generous(rig.state.path());
    let again = eager(&rig);
    assert!(
        early(&again, generous.local_addr().expect("bound")).await,
        "where it is offered, the client uses it"
    );

    let again = eager(&rig);
    for _ in 0..TIMES {
        let connecting = again.connect(rig.address, "localhost").expect("valid settings");
        let Err(connecting) = connecting.into_0rtt() else { panic!("the relay offered early data") };
        // A hello and its answer: the ticket came before.
        let connection = soon(connecting).await.expect("connected");
        Agent::greet(connection, hello(ALICE, Admission::Create { token: String::new() })).await;
    }
}

/// Whether the client gets to send early data there.
async fn early(client: &Endpoint, address: SocketAddr) -> bool {
    for _ in 0..TIMES {
        let connecting = client.connect(address, "localhost").expect("valid settings");
        let connection: Connection = match connecting.into_0rtt() {
            Ok(_) => return true,
            Err(connecting) => soon(connecting).await.expect("connected"),
        };
        // A word of the server's: the ticket came before.
        drop(soon(connection.accept_uni()).await.expect("connected"));
    }
    false
}

/// A server as the relay is, but that it takes early data.
fn generous(state: &Path) -> Endpoint {
    let chain = vec![CertificateDer::from_pem_file(state.join("certificate.pem")).expect("made")];
    let key = PrivateKeyDer::from_pem_file(state.join("key.pem")).expect("made");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    tls.alpn_protocols = vec![meeting_wire::ALPN.to_vec()];
    tls.max_early_data_size = u32::MAX;
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("TLS 1.3")));
    let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
    let serving = endpoint.clone();
    tokio::spawn(async move {
        let mut guests = Vec::new();
        while let Some(incoming) = serving.accept().await {
            let Ok(connection) = incoming.await else { continue };
            let mut word = connection.open_uni().await.expect("allowed");
            word.write_all(b"hello").await.expect("sent");
            guests.push((connection, word));
        }
    });
    endpoint
}

/// A client that keeps tickets and would send early data wherever it may.
fn eager(rig: &Rig) -> Endpoint {
    let mut tls = tls(rig.certificate.clone());
    tls.enable_early_data = true;
    let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
    let crypto = QuicClientConfig::try_from(tls).expect("TLS 1.3");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}
