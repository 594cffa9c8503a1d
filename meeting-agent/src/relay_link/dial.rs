//! From a relay's name to a QUIC connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use meeting_protocol::link::DEFAULT_PORT;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, IdleTimeout, TransportConfig, VarInt};
use tokio::{net::lookup_host, time::timeout};

use super::Hail;
use crate::{error::AgentError, tls};

/// Host and port of `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`.
pub fn address(relay: &str) -> Result<(String, u16), AgentError> {
    let bad = || AgentError::RelayAddress(relay.to_owned());
    let (host, port) = match relay.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) })
        }
        None => match relay.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (relay, None),
        },
    };
    let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse().map_err(|_| bad()))?;
    if host.is_empty() || port == 0 { Err(bad()) } else { Ok((host.to_owned(), port)) }
}

/// Calls one relay, as often as needed.
#[derive(Clone)]
pub struct Dialler {
    host: String,
    port: u16,
    config: ClientConfig,
}

impl Dialler {
    pub fn new(hail: &Hail) -> Result<Self, AgentError> {
        let (host, port) = address(&hail.relay)?;
        let mut config = ClientConfig::new(Arc::new(tls::client(hail.certificate)?));
        config.transport_config(Arc::new(transport()));
        Ok(Self { host, port, config })
    }

    /// A connection to the first address that answers, or a reason for a person.
    pub async fn dial(self) -> Result<Connection, String> {
        let addresses = lookup_host((self.host.as_str(), self.port)).await.map_err(|_| {
            format!("the relay's name {:?} cannot be found: check it, and this machine's network", self.host)
        })?;
        let mut reason = format!("the relay's name {:?} has no address: check it", self.host);
        for address in addresses.take(MAX_ADDRESSES) {
            match timeout(EACH, self.dial_one(address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => reason = error,
                Err(_) => {
                    reason = format!(
                        "the relay at {address} does not answer: check that it runs and that UDP gets there"
                    )
                }
            }
        }
        Err(reason)
    }

    async fn dial_one(&self, address: SocketAddr) -> Result<Connection, String> {
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let endpoint = Endpoint::client(any).map_err(|error| format!("no UDP socket: {error}"))?;
        endpoint
            .connect_with(self.config.clone(), address, &self.host)
            .map_err(|error| format!("the relay cannot be called: {error}"))?
            .await
            .map_err(|error| match error {
                ConnectionError::TransportError(error) => untrusted(address, &error.reason)
                    .unwrap_or_else(|| format!("the relay at {address} did not let us connect: {error}")),
                error => format!("the relay at {address} did not let us connect: {error}"),
            })
    }
}

/// Why a certificate was not accepted, for a person; none if that was not the reason.
fn untrusted(address: SocketAddr, reason: &str) -> Option<String> {
    if reason.contains(tls::NOT_THE_ONE) {
        return Some(format!(
            "what answers at {address} has another certificate than the link (or `--relay-certificate`) names: \
             ask for a new link if the relay was set up anew, else do not trust it"
        ));
    }
    if !reason.contains("certificate") {
        return None;
    }
    let clock = "is this machine's clock right (`date`)?";
    Some(if reason.contains("expired") {
        format!(
            "the certificate of the relay at {address} has run out: {clock} If so, its operator has to renew it"
        )
    } else if reason.contains("not valid yet") {
        format!("the certificate of the relay at {address} is not valid yet: {clock} If so, ask its operator")
    } else {
        format!(
            "the relay at {address} does not prove who it is ({reason}): ask its operator, or use a link that names \
             its certificate"
        )
    })
}

/// quinn's settings for one device of a meeting.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(INCOMING_STREAMS))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE))
        .datagram_send_buffer_size(DATAGRAM_SEND)
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE));
    transport
}

/// Groups on their way at once: as many as a relay has on their way to one subscriber, so that those of one sender, 64,
/// leave room for the others'. quinn keeps some bytes for each allowed one.
const INCOMING_STREAMS: u32 = 1024;
/// Flow control over all streams: 100 Mbit/s at 300 ms.
const RECEIVE_WINDOW: u32 = 4 * 1024 * 1024;
/// Flow control of one stream: 8 Mbit/s at 1 s.
const STREAM_RECEIVE_WINDOW: u32 = 1024 * 1024;
/// Unsent and unacknowledged bytes; what waits beyond them is still ours to drop.
const SEND_WINDOW: u64 = 512 * 1024;
/// Audio that was received and not yet read.
const DATAGRAM_RECEIVE: usize = 256 * 1024;
/// Audio that waits to be sent: more would only add delay.
const DATAGRAM_SEND: usize = 16 * 1024;
/// Silence after which the connection counts as lost, in ms.
const IDLE_MS: u32 = 10_000;
/// Two fit into the silence after which a relay is given up, and NAT bindings stay open.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// What a call reckons with before it knows better: a relay that was started meanwhile hears the next packet of it
/// within half a second.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Addresses of one name that are tried, each for so long.
const MAX_ADDRESSES: usize = 4;
const EACH: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn relay_addresses() {
        let good = [
            ("relay.example", ("relay.example", 443)),
            ("relay.example:4433", ("relay.example", 4433)),
            ("127.0.0.1:9", ("127.0.0.1", 9)),
            ("[::1]", ("::1", 443)),
            ("[::1]:9", ("::1", 9)),
        ];
        for (text, (host, port)) in good {
            assert_eq!(address(text).unwrap(), (host.to_owned(), port), "{text}");
        }
        for text in ["", ":443", "relay:0", "relay:x", "relay:99999", "[::1", "[::1]9", "a:1:2"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
