//! Every label of the protocol. A label opens each signed or hashed byte string and names each derived key, so
//! that bytes made for one purpose never serve another.
//!
//! Labels of signatures and hashes end in a zero byte and have none before it: no label followed by data can be
//! read as another label followed by other data. Labels of derivations carry their length (see
//! [`kdf::info`](super::kdf::info)) and need no mark.

/// SHA-256 over a device public key.
pub const FINGERPRINT: &[u8] = b"e2ee-meeting v1 fingerprint\0";

/// Signature of an announce, by the device key.
pub const ANNOUNCE: &[u8] = b"e2ee-meeting v1 announce\0";
/// Signature of a link, by the leader's key of this stay, as all that follow are by some stay's key.
pub const LINK: &[u8] = b"e2ee-meeting v1 link\0";
/// Signature of a heartbeat.
pub const HEARTBEAT: &[u8] = b"e2ee-meeting v1 heartbeat\0";
/// Signature and MAC of a pulse.
pub const PULSE: &[u8] = b"e2ee-meeting v1 pulse\0";
/// Signature of a pairing, over the encapsulated key and both announces.
pub const PAIRING: &[u8] = b"e2ee-meeting v1 pairing\0";
/// Signature of a stream statement.
pub const STATEMENT: &[u8] = b"e2ee-meeting v1 statement\0";
/// Signature of a good-bye.
pub const LEAVE: &[u8] = b"e2ee-meeting v1 leave\0";
/// Signature of the end of a meeting, by its leader.
pub const OVER: &[u8] = b"e2ee-meeting v1 over\0";
/// Signature of a hand-over, by the leader who leaves.
pub const RESIGN: &[u8] = b"e2ee-meeting v1 resign\0";
/// Signature of a leader's answer to an announce.
pub const ANSWER: &[u8] = b"e2ee-meeting v1 answer\0";
/// Signature of a welcome, over whom it is for and the leader's newest links.
pub const WELCOME: &[u8] = b"e2ee-meeting v1 welcome\0";
/// Signature of a question for what is missing.
pub const ASK: &[u8] = b"e2ee-meeting v1 ask\0";
/// Signature of where somebody stands in the chain.
pub const HEAD: &[u8] = b"e2ee-meeting v1 head\0";
/// Signature of a question for what somebody else's leader has signed.
pub const SHOW: &[u8] = b"e2ee-meeting v1 show\0";
/// Signature of an answer to the heartbeat of another leader.
pub const LEADS: &[u8] = b"e2ee-meeting v1 leads\0";
/// Signature of a silence vote.
pub const VOTE: &[u8] = b"e2ee-meeting v1 silence vote\0";

/// Signature of a beacon, by its sender.
pub const BEACON: &[u8] = b"e2ee-meeting v1 beacon\0";

/// Hash of a frame in a beacon.
pub const BEACON_FRAME: &[u8] = b"e2ee-meeting v1 beacon frame\0";
/// Hash of an announce.
pub const ANNOUNCE_HASH: &[u8] = b"e2ee-meeting v1 announce hash\0";
/// Hash of a link.
pub const LINK_HASH: &[u8] = b"e2ee-meeting v1 link hash\0";
/// Hash of a heartbeat.
pub const HEARTBEAT_HASH: &[u8] = b"e2ee-meeting v1 heartbeat hash\0";
/// Hash of a roster's header and Merkle root.
pub const ROSTER_HASH: &[u8] = b"e2ee-meeting v1 roster hash\0";
/// Hash of both halves of a stream instance id.
pub const STREAM_INSTANCE: &[u8] = b"e2ee-meeting v1 stream instance\0";
/// What a security code is computed from.
pub const SECURITY_CODE: &[u8] = b"e2ee-meeting v1 security code\0";
/// What a roster code is computed from.
pub const ROSTER_CODE: &[u8] = b"e2ee-meeting v1 roster code\0";

/// Opens the `info` of HPKE.
pub const HPKE_INFO: &str = "e2ee-meeting v1 hpke";
/// Opens the `psk_id` of HPKE.
pub const HPKE_PSK: &str = "e2ee-meeting v1 invite";
/// Exported from HPKE: the first chain key.
pub const CHAIN: &str = "e2ee-meeting v1 chain";
/// From one chain key to the next.
pub const CHAIN_NEXT: &str = "e2ee-meeting v1 chain next";
/// Exported from HPKE: the proof key.
pub const PROOF: &str = "e2ee-meeting v1 proof";
/// From a chain key and an epoch link to the wrap key.
pub const WRAP: &str = "e2ee-meeting v1 wrap";
/// From the invite secret and a salt to the key of one post.
pub const BOARD: &str = "e2ee-meeting v1 board";
/// From a meeting key to its public commitment.
pub const COMMIT: &str = "e2ee-meeting v1 commit";
/// From a meeting key to a stream's base key.
pub const STREAM: &str = "e2ee-meeting v1 stream";
/// From a meeting key to a sender's control key.
pub const CONTROL: &str = "e2ee-meeting v1 control";
/// From a stretched passphrase to the key of a key file.
pub const KEY_FILE: &str = "e2ee-meeting v1 key file";

/// All labels that open signed or hashed bytes.
#[cfg(test)]
pub const ALL: [&[u8]; 26] = [
    FINGERPRINT,
    ANNOUNCE,
    LINK,
    HEARTBEAT,
    PULSE,
    PAIRING,
    STATEMENT,
    LEAVE,
    OVER,
    RESIGN,
    VOTE,
    ANSWER,
    WELCOME,
    ASK,
    HEAD,
    SHOW,
    LEADS,
    BEACON,
    BEACON_FRAME,
    ANNOUNCE_HASH,
    LINK_HASH,
    HEARTBEAT_HASH,
    ROSTER_HASH,
    STREAM_INSTANCE,
    SECURITY_CODE,
    ROSTER_CODE,
];
/// All labels of derivations.
#[cfg(test)]
pub const DERIVED: [&str; 11] =
    [HPKE_INFO, HPKE_PSK, CHAIN, CHAIN_NEXT, PROOF, WRAP, BOARD, COMMIT, STREAM, CONTROL, KEY_FILE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_can_be_read_as_another() {
        for (i, label) in ALL.iter().enumerate() {
            assert_eq!(
                label.iter().position(|byte| *byte == 0),
                Some(label.len() - 1),
                "label {i} ends in its only zero"
            );
            assert!(
                ALL[i + 1..].iter().all(|other| !other.starts_with(label) && !label.starts_with(other)),
                "label {i}"
            );
        }
        for (i, label) in DERIVED.iter().enumerate() {
            assert!(DERIVED[i + 1..].iter().all(|other| other != label), "{label}");
        }
    }
}
