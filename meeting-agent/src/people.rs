//! Whom a user means: by id or the start of one, or by name as it is shown. Somebody may call herself what the id of
//! another begins with: a whole id means nobody but whose it is, and what may mean two is asked again.

use meeting_protocol::identity::Fingerprint;
use meeting_wire::ParticipantId;

use crate::show::harmless;

/// Whether `who` is this participant: a whole id is never a name.
pub fn is_meant(who: &str, id: ParticipantId, name: &str) -> bool {
    who.parse::<ParticipantId>().map_or(who == name, |whole| whole == id)
}

/// The one among `people` that `who` means, the id and as shown to a person; or a sentence that says why not.
pub fn find<'a>(
    who: &str,
    people: impl Iterator<Item = (ParticipantId, &'a str, Fingerprint)>,
    where_to_look: &str,
) -> Result<(ParticipantId, String), String> {
    let start = (who.len() >= SHORTEST_ID).then(|| who.to_ascii_lowercase());
    let whole = who.parse::<ParticipantId>().is_ok();
    let meant = |(id, name, _): &(ParticipantId, &str, Fingerprint)| {
        is_meant(who, *id, name)
            || (!whole && harmless(name) == who)
            || start.as_ref().is_some_and(|start| id.to_string().starts_with(start))
    };
    let shown = |(id, name, device)| (id, format!("{} (device {device})", harmless(name)));
    let mut found: Vec<(ParticipantId, String)> = people.filter(meant).map(shown).collect();
    match (found.pop(), &found[..]) {
        (None, _) => Err(format!("nobody called {:?} {where_to_look}", harmless(who))),
        (Some(one), []) => Ok(one),
        (Some(last), rest) => {
            let all = rest.iter().chain([&last]).map(|(id, shown)| format!("{id} is {shown}"));
            let all = all.collect::<Vec<_>>().join(", ");
            Err(format!("several may be meant, say which by the whole id: {all}"))
        }
    }
}

/// Fewer hex digits than this are not taken for an id.
const SHORTEST_ID: usize = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    type Known = (ParticipantId, &'static str, Fingerprint);

    const fn known(n: u8, name: &'static str) -> Known {
        (ParticipantId([n; 16]), name, Fingerprint([n; 32]))
    }

    const ALICE: Known = known(0xa1, "Alice");
    const PEOPLE: [Known; 4] = [ALICE, known(0xb1, "Bob"), known(0xb2, "Bob"), known(0xee, "Eve\x1b[2J")];

    fn whom(who: &str) -> Result<ParticipantId, String> {
        find(who, PEOPLE.into_iter(), "is here").map(|(id, _)| id)
    }

    #[test]
    fn people_are_found_by_name_and_by_the_start_of_their_id() {
        assert_eq!(whom("Alice"), Ok(ALICE.0));
        assert_eq!(whom("B2B2"), Ok(PEOPLE[2].0));
        assert_eq!(whom("Eve\u{fffd}[2J"), Ok(PEOPLE[3].0));
        let (_, shown) = find("a1a1", PEOPLE.into_iter(), "is here").unwrap();
        assert_eq!(shown, "Alice (device a1a1 a1a1 a1a1 a1a1)");
    }

    #[test]
    fn a_name_that_looks_like_an_id_gets_nobody_in_the_place_of_another() {
        let eve = known(0xee, "a1a1a1a1");
        let said = find("a1a1a1a1", [ALICE, eve].into_iter(), "is here").unwrap_err();
        assert!(said.contains(&ALICE.0.to_string()) && said.contains(&eve.0.to_string()), "{said}");

        let whole = "a1".repeat(16);
        let eve = known(0xee, "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1");
        for who in [whole.clone(), whole.to_uppercase()] {
            let found = find(&who, [eve, ALICE].into_iter(), "is here").map(|(id, _)| id);
            assert_eq!(found, Ok(ALICE.0));
            assert!(find(&who, [eve].into_iter(), "is here").is_err(), "only Eve is here");
        }
    }

    #[test]
    fn an_unclear_wish_lists_whom_it_may_mean() {
        let said = whom("Bob").unwrap_err();
        assert!(said.contains(&"b1".repeat(16)) && said.contains(&"b2".repeat(16)), "{said}");
        assert!(whom("Carol").unwrap_err().contains("is here"));
        assert!(whom("a1").is_err(), "too short for an id");
    }
}
