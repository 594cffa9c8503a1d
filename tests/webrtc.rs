//! Sealed frames over WebRTC: `webrtcbin` to `webrtcbin`, and through Janus, an SFU that knows nothing of them.
//!
//! All in one process, so that `meetingkey loopback=true` has the keys of both sides, and on no network but the loopback
//! or one that the test makes.

use std::time::Duration;

use anyhow::{Result, ensure};

#[path = "webrtc/call.rs"]
mod call;
#[path = "webrtc/janus.rs"]
mod janus;
#[path = "webrtc/peer.rs"]
mod peer;

use call::Call;
use peer::Peer;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn sealed_video_and_sound_cross_from_one_webrtcbin_to_another() -> Result<()> {
    let call = Call::at("127.0.0.1")?;
    let (alice, bob) = (call.alice(["video", "audio"])?, call.bob()?);
    call.play()?;

    let offer = alice.offer()?;
    let answer = bob.answer(&offer)?;
    alice.accept(&answer)?;
    for (who, sdp) in [("Alice", &offer), ("Bob", &answer)] {
        let (lines, sealed) = (sdp.matches("m=").count(), sdp.matches("a=sframe\r\n").count());
        ensure!((lines, sealed) == (2, 2), "{who} says a=sframe in {sealed} of {lines} m-lines:\n{sdp}");
        ensure!(!sdp.contains("sprop-"), "{who} says codec headers in the clear:\n{sdp}");
    }

    call.until_seen_and_heard()?;
    call.who_came_late_got_a_keyframe()?;
    call.a_lost_picture_brings_a_keyframe()?;
    call.hang_up()
}

#[test]
fn sealed_video_and_sound_cross_an_sfu_that_knows_nothing_of_them() -> Result<()> {
    janus::in_a_network_of_its_own("sealed_video_and_sound_cross_an_sfu_that_knows_nothing_of_them", || {
        let call = Call::at(janus::NETWORK)?;
        // Sound first, as browsers have it: Janus takes what it cannot place for something about the first.
        let (alice, bob) = (call.alice(["audio", "video"])?, call.bob()?);
        call.play()?;

        let sfu = janus::Janus::start()?;
        let room = sfu.room()?;
        let (feed, answer) = room.publish(&alice.offer()?)?;
        alice.accept(&answer)?;
        room.until_up()?;
        let (watching, offer) = room.subscribe(feed)?;
        room.start(watching, &bob.answer_to_janus(&offer)?)?;

        call.until_seen_and_heard()?;
        call.who_came_late_got_a_keyframe()?;
        call.a_lost_picture_brings_a_keyframe()?;
        call.hang_up()
    })
}
