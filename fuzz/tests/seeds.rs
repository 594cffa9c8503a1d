//! Every seed, through every target, in an ordinary build: so that the targets do not rot, and what was found once stays
//! mended.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

#[test]
fn every_seed_of_every_target_holds() -> Result<()> {
    for target in meeting_fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target.name);
        let mut seeds = 0;
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            println!("{}", path.display());
            (target.run)(&fs::read(path)?);
            seeds += 1;
        }
        ensure!(seeds > 0, "{} has no seeds", target.name);
    }
    Ok(())
}

#[test]
fn no_target_is_left_out_by_the_script() -> Result<()> {
    let script = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("run"))?;
    let list = script.split("|| targets=(").nth(1).and_then(|rest| rest.split(')').next());
    let named: Vec<&str> = list.context("the list of targets")?.split_whitespace().collect();
    let forgotten =
        meeting_fuzz::TARGETS.map(|target| target.name).into_iter().find(|name| !named.contains(name));
    ensure!(forgotten.is_none(), "fuzz/run leaves out {forgotten:?}");
    Ok(())
}
