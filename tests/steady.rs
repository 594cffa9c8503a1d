//! The runner of the tests, `tests/steady`: what fails once and holds alone is named and counts once; what fails again has failed.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::Result;

/// Speaks as a test program does: three tests hold, and those of `$BAD` fail; alone only `always` does.
const PROGRAM: &str = r#"#!/usr/bin/env bash
report() {
    printf '\nfailures:\n\n---- %s stdout ----\n    no name of a test\n\nfailures:\n' "$1"
    printf '    %s\n' "$@"
    printf '\ntest result: FAILED. %s passed; %s failed; 0 ignored; 0 measured\n' "$held" $#
    exit 101
}
held=3
case "$*" in
*--exact\ always) held=0; report always ;;
*--exact\ nowhere) echo 'test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured' ;;
*--exact*) echo 'test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured' ;;
*)
    case "$BAD" in
    *crash*) kill -ABRT $$ ;;
    *nonce*) echo 'nonce ledger: a second seal under one key with one nonce' >&2 ;;
    *property*) echo 'minimal failing input: x = 1' ;;
    esac
    report $BAD
    ;;
esac
"#;

#[test]
fn what_fails_again_has_failed_and_what_holds_alone_is_named() -> Result<()> {
    let steady = concat!(env!("CARGO_MANIFEST_DIR"), "/steady");
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("talk-0123456789abcdef");
    write(&program)?;
    for (bad, named, ends_well) in [
        ("a::stall", vec!["a::stall"], true),
        ("a::stall b::stall", vec!["a::stall", "b::stall"], true),
        ("a::stall always", vec!["a::stall"], false),
        ("a::stall nowhere", vec!["a::stall"], false),
        // no stalls
        ("a b c d", vec![], false),
        ("a crash", vec![], false),
        ("a nonce", vec![], false),
        ("a property", vec![], false),
    ] {
        let output =
            Command::new(steady).arg(&program).args(["--quiet", "--skip=x"]).env("BAD", bad).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), ends_well, "{bad}: {said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("unsteady: ")).collect();
        let expected: Vec<String> = named
            .iter()
            .map(|name| format!("unsteady: talk: {name}: failed once, and holds alone"))
            .collect();
        assert_eq!(lines, expected, "{bad}");
        let counts = said.lines().filter(|line| line.starts_with("test result:")).count();
        assert_eq!(counts, usize::from(bad != "a crash"), "each test counts once: {said}");
    }
    Ok(())
}

fn write(program: &Path) -> Result<()> {
    fs::write(program, PROGRAM)?;
    Ok(fs::set_permissions(program, fs::Permissions::from_mode(0o755))?)
}
