//! Comparing two security codes (PROTOCOL.md 3.9), digit by digit.

/// What to do when they differ.
pub const SOMEBODY_BETWEEN: &str =
    "Somebody may be in between: `meeting-agent leave`, and tell the others over a channel you trust";

/// Whether `heard` are the digits of `code`, whatever stands between them.
///
/// # Errors
///
/// A sentence that says where they differ first, by the groups of five in which a code is shown, or that digits are
/// missing.
pub fn same(code: &str, heard: &str) -> Result<(), String> {
    let digits = |text: &str| -> Vec<char> { text.chars().filter(char::is_ascii_digit).collect() };
    let (ours, theirs) = (digits(code), digits(heard));
    if heard.chars().any(|c| !(c.is_ascii_digit() || c.is_whitespace() || c == '-')) {
        return Err("a security code has digits only: type the leader's 40 digits".into());
    }
    if ours.len() != theirs.len() {
        return Err(format!(
            "a security code has {} digits, these are {}: type all of them",
            ours.len(),
            theirs.len()
        ));
    }
    match ours.chunks(GROUP).zip(theirs.chunks(GROUP)).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(place) => Err(format!("the codes differ in group {}. {SOMEBODY_BETWEEN}", place + 1)),
    }
}

const GROUP: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_the_same_digits_are_the_same() {
        let code = "12345 67890 12345 67890 12345 67890 12345 67890";
        assert_eq!(same(code, code), Ok(()));
        assert_eq!(same(code, &code.replace(' ', "-")), Ok(()));
        assert_eq!(same(code, &code.replace(' ', "")), Ok(()));
        let other = "12345 67890 12345 67890 12345 67891 12345 67890";
        assert!(same(code, other).is_err_and(|said| said.contains("group 6") && said.contains("leave")));
        for missing in ["", "12345", &code[..code.len() - 1]] {
            assert!(same(code, missing).is_err_and(|said| said.contains("40 digits")), "{missing}");
        }
        assert!(same(code, "yes").is_err_and(|said| said.contains("digits only")));
    }
}
