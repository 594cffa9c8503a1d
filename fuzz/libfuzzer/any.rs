//! One binary for all targets, because each would be linked anew: `FUZZ_TARGET` names the one to run.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use meeting_fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    meeting_fuzz::target(&name).unwrap_or_else(|| {
        eprintln!("FUZZ_TARGET is one of: {}", meeting_fuzz::names());
        std::process::exit(2)
    })
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
