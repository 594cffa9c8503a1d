//! Clients whose address changes in the middle of a meeting.

use std::time::Duration;

use anyhow::Result;
use rig::{Agent, Proxy, Stage, until};

use super::{TALKS, epoch, hearing, ids, one_meeting, opened};

#[test]
fn who_gets_another_address_stays_in_the_meeting() -> Result<()> {
    let stage = Stage::with_books()?;
    let (alice, bob, carol) = (stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?);
    let (alices, bobs) = (Proxy::start(stage.relay.address)?, Proxy::start(stage.relay.address)?);
    let link = alice.create_at(&alices.address.to_string(), &stage.relay.certificate, &[])?;
    bob.join(&bobs.bend(&link)?)?;
    let straight = link.replace(&alices.address.to_string(), &stage.relay.address.to_string());
    carol.join(&straight)?;
    let (mut hears_bob, mut hears_alice) =
        (stage.pipeline(&carol, &hearing("Bob"))?, stage.pipeline(&bob, &hearing("Alice"))?);
    let _talk = (stage.pipeline(&alice, TALKS)?, stage.pipeline(&bob, TALKS)?);
    hears_bob.until("Bob's voice", |stats| opened(stats) > 50)?;
    hears_alice.until("Alice's voice", |stats| opened(stats) > 50)?;
    let before = (bob.code()?, ids(&bob)?, epoch(&bob)?);

    // First who speaks and hears, then the leader, then both at once.
    for moving in [&[&bobs][..], &[&alices], &[&alices, &bobs]] {
        for proxy in moving {
            proxy.rebind()?;
        }
        let so_far = (opened(&hears_bob.stats()), opened(&hears_alice.stats()));
        hears_bob.until("Bob's voice from elsewhere", |stats| opened(stats) > so_far.0 + 150)?;
        hears_alice.until("Alice's voice elsewhere", |stats| opened(stats) > so_far.1 + 150)?;
    }
    one_meeting(&[&alice, &bob, &carol], 3)?;
    assert_eq!((bob.code()?, ids(&bob)?, epoch(&bob)?), before);
    for agent in [&alice, &bob, &carol] {
        assert_eq!(calls(agent), 1, "the connection went along: {}", agent.log());
    }

    // Membership goes on too: somebody comes, and a key reaches those who moved.
    let dave = stage.agent("Dave")?;
    dave.join(&straight)?;
    until("Dave at everybody's", Duration::from_secs(20), || {
        Ok((ids(&bob)?.len() == 4 && ids(&alice)?.len() == 4).then_some(()))
    })?;
    let so_far = opened(&hears_bob.stats());
    hears_bob.until("Bob's voice under the next key", |stats| opened(stats) > so_far + 50)?;
    stage.check_books().map(drop)
}

/// How often an agent connected to the relay.
fn calls(agent: &Agent) -> usize {
    agent.log().matches("connected to the relay").count()
}
