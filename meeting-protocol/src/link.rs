//! Meeting links: who may ask for a place, and whom to believe.
//!
//! ```text
//! meeting://relay.example:443/<meeting id>#<invite secret>.<creator's fingerprint>[.<relay certificate's hash>]
//! ```
//!
//! Everything behind `#` is unpadded base64url of 32 bytes and never reaches the relay (PROTOCOL.md 3.1).

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use meeting_wire::{Hex, MeetingId};
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{identity::Fingerprint, secret::Secret};

/// The UDP port of a relay whose link names none.
pub const DEFAULT_PORT: u16 = 443;

/// A parsed link.
pub struct MeetingLink {
    /// Host name or address, with `:port` where it is not [`DEFAULT_PORT`].
    pub relay: String,
    /// Which meeting.
    pub meeting: MeetingId,
    /// Who holds it may ask for a place and can read the board, but no media.
    pub secret: Secret<32>,
    /// SHA-256 fingerprint of the creator's device key.
    pub creator: Fingerprint,
    /// SHA-256 of a self-signed relay's DER certificate; none means the system's authorities decide.
    pub relay_certificate: Option<[u8; 32]>,
}

/// Why a text is not a meeting link. The text is never repeated: it may hold the secret.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// Another scheme.
    #[error("a meeting link starts with meeting://")]
    Scheme,
    /// No host, or characters no host has.
    #[error("the link names no relay that can be reached: expected meeting://HOST[:PORT]/MEETING#...")]
    Relay,
    /// Not 32 hex digits.
    #[error("the link's meeting id is not 32 hex digits")]
    Meeting,
    /// No fragment: an address of the meeting, not an invitation.
    #[error("the link has no part behind '#': ask for the whole link")]
    NoSecret,
    /// A fragment of another form.
    #[error("the part of the link behind '#' is damaged: ask for the link again")]
    Fragment,
}

impl MeetingLink {
    /// A link to a new meeting of `creator`.
    pub fn new(
        relay: String,
        creator: Fingerprint,
        relay_certificate: Option<[u8; 32]>,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let mut meeting = [0; 16];
        rng.fill_bytes(&mut meeting);
        Self { relay, meeting: MeetingId(meeting), secret: Secret::random(rng), creator, relay_certificate }
    }

    /// Reads a link; white space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let rest = text.trim().strip_prefix("meeting://").ok_or(LinkError::Scheme)?;
        let (relay, rest) = rest.split_once('/').ok_or(LinkError::Relay)?;
        let host_like = |c: char| c.is_ascii_alphanumeric() || ".-:[]_".contains(c);
        if relay.is_empty() || relay.len() > 255 || !relay.chars().all(host_like) {
            return Err(LinkError::Relay);
        }
        let (meeting, fragment) = match rest.split_once('#') {
            Some((meeting, fragment)) => (meeting, Some(fragment)),
            None => (rest, None),
        };
        let meeting = meeting.parse().map_err(|_| LinkError::Meeting)?;
        let mut parts = fragment.ok_or(LinkError::NoSecret)?.split('.');
        let mut part = || parts.next().map(bytes32);
        let link = Self {
            relay: relay.to_owned(),
            meeting,
            secret: part().ok_or(LinkError::Fragment)??,
            creator: Fingerprint(*part().ok_or(LinkError::Fragment)??.expose()),
            relay_certificate: part().transpose()?.map(|hash| *hash.expose()),
        };
        if parts.next().is_some() { Err(LinkError::Fragment) } else { Ok(link) }
    }

    /// The whole link, secret included: for the person who asked for it and nobody's log.
    pub fn reveal(&self) -> Zeroizing<String> {
        let encode = |bytes: &[u8; 32]| URL_SAFE_NO_PAD.encode(bytes);
        let mut link = Zeroizing::new(String::with_capacity(512));
        link.push_str(&format!("meeting://{}/{}#", self.relay, self.meeting));
        link.push_str(&Zeroizing::new(encode(self.secret.expose())));
        link.push('.');
        link.push_str(&encode(&self.creator.0));
        if let Some(hash) = &self.relay_certificate {
            link.push('.');
            link.push_str(&encode(hash));
        }
        link
    }

    /// A second copy, for a session that is started again.
    pub fn duplicate(&self) -> Self {
        Self {
            relay: self.relay.clone(),
            meeting: self.meeting,
            secret: self.secret.duplicate(),
            creator: self.creator,
            relay_certificate: self.relay_certificate,
        }
    }
}

impl fmt::Debug for MeetingLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MeetingLink(meeting://{}/{}, creator {})",
            self.relay,
            self.meeting,
            Hex(&self.creator.0[..8])
        )
    }
}

fn bytes32(text: &str) -> Result<Secret<32>, LinkError> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| LinkError::Fragment)?);
    if bytes.len() != 32 {
        return Err(LinkError::Fragment);
    }
    Ok(Secret::init_with(|out| out.copy_from_slice(&bytes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn link() -> MeetingLink {
        MeetingLink {
            relay: "relay.example:4433".into(),
            meeting: MeetingId([7; 16]),
            secret: Secret::init_with(|secret| *secret = [1; 32]),
            creator: Fingerprint([2; 32]),
            relay_certificate: Some([3; 32]),
        }
    }

    #[test]
    fn a_link_survives_being_written_and_read() {
        let text = link().reveal();
        let read = MeetingLink::parse(&text).unwrap();
        assert_eq!(*read.reveal(), *text);
        assert_eq!(read.relay_certificate, Some([3; 32]));
    }

    #[test]
    fn a_damaged_link_is_named_by_its_damaged_part() {
        let whole = link().reveal();
        let (address, fragment) = whole.split_once('#').unwrap();
        let cases = [
            ("http://relay.example/", LinkError::Scheme),
            ("meeting:///00", LinkError::Relay),
            ("meeting://relay.example/xyz#a.b", LinkError::Meeting),
            (address, LinkError::NoSecret),
            (&format!("{address}#{}", &fragment[1..]), LinkError::Fragment),
            (&format!("{}.AAAA", *whole), LinkError::Fragment),
        ];
        for (text, error) in cases {
            assert_eq!(MeetingLink::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_link_in_a_log_shows_no_secret() {
        let shown = format!("{:?}", link());
        assert!(!shown.contains(&URL_SAFE_NO_PAD.encode([1; 32])) && !shown.contains("0101"));
    }
}
