//! What properties and URIs say about which agent and which meeting.

use std::{fmt, path::PathBuf};

use meeting_protocol::local;
use meeting_wire::MeetingId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What is wrong with the text of a property or URI. The text is never repeated: it may hold a secret.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// Not a meeting id.
    #[error("a meeting is named by 32 hex digits, as `meeting-agent status` shows them")]
    Meeting,
    /// There is a fragment.
    #[error(
        "this is an invitation: its part behind '#' is secret and does not belong in a pipeline. \
         Give it to `meeting-agent join`, and here only the meeting's id"
    )]
    Secret,
    /// Not `meeting://MEETING[/PARTICIPANT[/TRACK]]`.
    #[error("expected meeting://MEETING-ID[/PARTICIPANT[/TRACK]]")]
    Uri,
}

/// Which meeting a `meeting` property names; none if it is empty.
pub fn meeting(text: &str) -> Result<Option<MeetingId>, AddressError> {
    match text.trim() {
        "" => Ok(None),
        text if text.contains('#') => Err(AddressError::Secret),
        text => text.parse().map(Some).map_err(|_| AddressError::Meeting),
    }
}

/// What a `meeting://` URI names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The meeting's id in hex.
    pub meeting: String,
    /// One participant, or empty.
    pub participant: String,
    /// One track, or empty.
    pub track: String,
}

impl Address {
    /// Reads `meeting://MEETING-ID[/PARTICIPANT[/TRACK]]`, also as `meeting:///MEETING-ID...`: it names no host. Names
    /// are percent-encoded, as everywhere in URIs.
    pub fn parse(uri: &str) -> Result<Self, AddressError> {
        if uri.contains('#') {
            return Err(AddressError::Secret);
        }
        let rest = uri.strip_prefix("meeting://").ok_or(AddressError::Uri)?;
        let mut parts = rest.strip_prefix('/').unwrap_or(rest).splitn(3, '/');
        let mut part = || parts.next().map_or(Ok(String::new()), decoded);
        let address = Self { meeting: part()?, participant: part()?, track: part()? };
        match meeting(&address.meeting)? {
            Some(_) => Ok(address),
            None => Err(AddressError::Uri),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = |text| utf8_percent_encode(text, ENCODED);
        write!(f, "meeting://{}", self.meeting)?;
        if !self.participant.is_empty() || !self.track.is_empty() {
            write!(f, "/{}", encoded(&self.participant))?;
        }
        if !self.track.is_empty() {
            write!(f, "/{}", encoded(&self.track))?;
        }
        Ok(())
    }
}

fn decoded(text: &str) -> Result<String, AddressError> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| AddressError::Uri)?;
    // A property could not hold it.
    if text.contains('\0') { Err(AddressError::Uri) } else { Ok(text.into_owned()) }
}

/// All but what RFC 3986 leaves as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the agent listens: the property if it is set, else as [`local::socket_path`] says.
///
/// # Errors
///
/// [`AddressError::Secret`] for an invitation: a path is shown when nobody answers there.
pub fn socket(property: &str) -> Result<PathBuf, AddressError> {
    if property.contains("://") {
        return Err(AddressError::Secret);
    }
    if !property.is_empty() {
        return Ok(property.into());
    }
    let uid = rustix::process::geteuid().as_raw();
    Ok(local::socket_path(|name| std::env::var_os(name), uid, |path| path.exists()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "000102030405060708090a0b0c0d0e0f";

    #[test]
    fn a_uri_names_meeting_participant_and_track() {
        let address = Address::parse(&format!("meeting://{ID}/Alice/video-2")).expect("a URI");
        assert_eq!(
            (address.meeting.as_str(), &*address.participant, &*address.track),
            (ID, "Alice", "video-2")
        );
        assert_eq!(Address::parse(&format!("meeting://{ID}")).expect("a URI").participant, "");
        assert_eq!(Address::parse("meeting://relay.example/x"), Err(AddressError::Meeting));
        assert_eq!(Address::parse("http://x"), Err(AddressError::Uri));
    }

    #[test]
    fn the_host_may_be_empty() {
        for rest in ["", "/Alice", "/Alice/video", "//video"] {
            let short = Address::parse(&format!("meeting://{ID}{rest}")).expect("a URI");
            assert_eq!(Address::parse(&format!("meeting:///{ID}{rest}")), Ok(short));
        }
        assert_eq!(Address::parse("meeting:///"), Err(AddressError::Uri));
    }

    #[test]
    fn names_are_percent_encoded() {
        let address =
            Address { meeting: ID.into(), participant: "Zoë / 100 % #1".into(), track: "a/b".into() };
        let uri = address.to_string();
        assert!(!uri.contains([' ', '#']) && uri.matches('/').count() == 4, "{uri}");
        assert_eq!(Address::parse(&uri), Ok(address));
        for bad in ["%ff", "%00"] {
            assert_eq!(Address::parse(&format!("meeting://{ID}/{bad}")), Err(AddressError::Uri), "{bad}");
        }
        assert_eq!(Address::parse(&format!("meeting:///{ID}%23topsecret")), Err(AddressError::Secret));
    }

    #[test]
    fn an_invitation_is_refused_and_not_repeated() {
        let uri = format!("meeting://{ID}#topsecret");
        assert_eq!(Address::parse(&uri), Err(AddressError::Secret));
        assert_eq!(meeting(&uri), Err(AddressError::Secret));
        assert_eq!(socket(&uri), Err(AddressError::Secret));
        assert!(!AddressError::Secret.to_string().contains("topsecret"));
    }
}
