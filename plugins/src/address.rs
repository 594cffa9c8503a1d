//! What properties and URIs say about which agent and which meeting.

use std::path::PathBuf;

use meeting_protocol::local;
use meeting_wire::MeetingId;

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
    /// Reads `meeting://MEETING-ID[/PARTICIPANT[/TRACK]]`.
    pub fn parse(uri: &str) -> Result<Self, AddressError> {
        if uri.contains('#') {
            return Err(AddressError::Secret);
        }
        let rest = uri.strip_prefix("meeting://").ok_or(AddressError::Uri)?;
        let mut parts = rest.splitn(3, '/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        let address = Self { meeting: part(), participant: part(), track: part() };
        match meeting(&address.meeting)? {
            Some(_) => Ok(address),
            None => Err(AddressError::Uri),
        }
    }
}

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
    fn an_invitation_is_refused_and_not_repeated() {
        let uri = format!("meeting://{ID}#topsecret");
        assert_eq!(Address::parse(&uri), Err(AddressError::Secret));
        assert_eq!(meeting(&uri), Err(AddressError::Secret));
        assert_eq!(socket(&uri), Err(AddressError::Secret));
        assert!(!AddressError::Secret.to_string().contains("topsecret"));
    }
}
