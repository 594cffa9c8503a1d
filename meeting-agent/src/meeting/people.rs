//! Whom a user means: by the start of an id, or by name as it is shown.

use meeting_wire::ParticipantId;

use crate::show::harmless;

/// The one among `people` that `who` means, or a sentence that says why not.
pub fn find<'a>(
    who: &str,
    people: impl Iterator<Item = (ParticipantId, &'a str)> + Clone,
    where_to_look: &str,
) -> Result<ParticipantId, String> {
    let named = people.clone().filter(|(_, name)| *name == who || harmless(name) == who);
    let mut found: Vec<_> = named.collect();
    if found.is_empty() && who.len() >= SHORTEST_ID {
        let who = who.to_ascii_lowercase();
        found = people.filter(|(id, _)| id.to_string().starts_with(&who)).collect();
    }
    match found[..] {
        [(id, _)] => Ok(id),
        [] => Err(format!("nobody called {:?} {where_to_look}", harmless(who))),
        _ => {
            let ids: Vec<String> = found
                .iter()
                .map(|(id, name)| format!("{} ({})", &id.to_string()[..8], harmless(name)))
                .collect();
            Err(format!("several are meant: say which by id: {}", ids.join(", ")))
        }
    }
}

/// Fewer hex digits than this are not taken for an id.
const SHORTEST_ID: usize = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PEOPLE: [(ParticipantId, &str); 4] = [
        (ParticipantId([0xa1; 16]), "Alice"),
        (ParticipantId([0xb1; 16]), "Bob"),
        (ParticipantId([0xb2; 16]), "Bob"),
        (ParticipantId([0xee; 16]), "Eve\x1b[2J"),
    ];

    fn whom(who: &str) -> Result<ParticipantId, String> {
        find(who, PEOPLE.into_iter(), "is here")
    }

    #[test]
    fn people_are_found_by_name_and_by_the_start_of_their_id() {
        assert_eq!(whom("Alice"), Ok(PEOPLE[0].0));
        assert_eq!(whom("B2B2"), Ok(PEOPLE[2].0));
        assert_eq!(whom("Eve\u{fffd}[2J"), Ok(PEOPLE[3].0));
    }

    #[test]
    fn an_unclear_wish_lists_whom_it_may_mean() {
        let said = whom("Bob").unwrap_err();
        assert!(said.contains("b1b1b1b1") && said.contains("b2b2b2b2"), "{said}");
        assert!(whom("Carol").unwrap_err().contains("is here"));
        assert!(whom("a1").is_err(), "too short for an id");
    }
}
