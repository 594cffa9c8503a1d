//! Names and texts of others, made harmless before a person sees them.
//!
//! A display name is signed by its owner, who may be Eve: escape sequences would rewrite the terminal,
//! direction overrides would turn "Eve" into somebody else.

/// `text` with every control, direction and invisible character replaced by U+FFFD and at most
/// [`MAX_SHOWN`] characters long.
pub fn harmless(text: &str) -> String {
    limited(text, MAX_SHOWN)
}

/// As [`harmless`], for sentences.
pub fn sentence(text: &str) -> String {
    limited(text, 1_000)
}

/// `text` without what follows a `#` and looks like an invitation's secret: somebody put a link where it does
/// not belong, and errors repeat what they were given.
pub fn without_invitation(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('#') {
        let secret = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | '=');
        let len = after.find(|c| !secret(c)).unwrap_or(after.len());
        shown.push_str(before);
        shown.push_str(if len < SHORTEST_SECRET { "#" } else { "#(hidden)" });
        rest = if len < SHORTEST_SECRET { after } else { &after[len..] };
    }
    shown + rest
}

fn limited(text: &str, max: usize) -> String {
    let mut shown: String =
        text.chars().take(max).map(|c| if deceives(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether a character changes more than its own place: C0, C1, separators, direction marks, joiners, tags.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}'
            | '\u{ad}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// The longest name shown, in characters: as many as an announce can hold bytes (PROTOCOL.md 3.2).
pub const MAX_SHOWN: usize = 64;

/// A quarter of an invitation's secret in base64: even a part that was lost in pasting is not shown.
const SHORTEST_SECRET: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(harmless("Eve\x1b[2J\x07\u{9b}31m\n"), "Eve\u{fffd}[2J\u{fffd}\u{fffd}31m\u{fffd}");
    }

    #[test]
    fn direction_overrides_and_invisible_characters_show() {
        for c in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{61c}', '\u{2028}', '\u{e0041}'] {
            assert_eq!(harmless(&format!("a{c}b")), "a\u{fffd}b", "{:x}", c as u32);
        }
    }

    #[test]
    fn ordinary_names_of_any_script_stay() {
        for name in ["Alice", "Bob O'Brien", "Çelik", "王小明", "أليس", "Zoë 🦊"] {
            assert_eq!(harmless(name), name);
        }
    }

    #[test]
    fn a_link_in_an_error_loses_its_secret() {
        let text = "no file 'meeting://r/0a#c2VjcmV0c2VjcmV0.Zg_-' here; item #7, #c2VjcmV0c2Vj#c2VjcmV0c2Vj";
        assert_eq!(
            without_invitation(text),
            "no file 'meeting://r/0a#(hidden)' here; item #7, #(hidden)#(hidden)"
        );
    }

    #[test]
    fn long_names_are_cut() {
        let shown = harmless(&"x".repeat(1_000));
        assert_eq!(shown.chars().count(), MAX_SHOWN + 1);
        assert!(shown.ends_with('…'));
    }
}
