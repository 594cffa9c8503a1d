//! For a test that needs what this machine does not have. It says so, and `tests/run` says it again at its end: the test runner
//! counts such a test as passed.

use std::{env, fs::OpenOptions, io::Write, thread};

/// Says that the calling test, or a part of it, did not run, and why. With `DID_NOT_RUN` in the environment the line goes into
/// the file of that name too.
pub fn did_not_run(why: &str) {
    let program = env::current_exe().ok().and_then(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    // Cargo adds a hash to the name of the test's file; the runner names the thread after the test.
    let file = program.as_deref().and_then(|name| name.rsplit_once('-')).map_or("?", |(file, _)| file);
    let line = format!("{file}::{}: {why}\n", thread::current().name().unwrap_or("?"));
    eprint!("did not run: {line}");
    if let Some(list) = env::var_os("DID_NOT_RUN") {
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&list)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "cannot write to {}: {written:?}", list.display());
    }
}
