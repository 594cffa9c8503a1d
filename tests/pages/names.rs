//! The tests of the tree by the names that pages cite: `file::test`, with the folder before where files in two folders have
//! that name. Tests inside a file or in a `tests.rs` beside it go by the file that they test.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Result, ensure};

/// A test as it stands in the tree.
pub struct Test {
    folder: String,
    module: String,
    name: String,
}

impl Test {
    /// All of them.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let mut tests = Vec::new();
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            let folder = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !folder.starts_with('.') && !folder.starts_with("target") {
                search(&path, &folder, &mut tests)?;
            }
        }
        Ok(tests)
    }

    /// Whether one is cited by its name, and only one.
    pub fn check(tests: &[Self], name: &str) -> Result<()> {
        let parts: Vec<&str> = name.split("::").collect();
        let found: Vec<&Self> = tests
            .iter()
            .filter(|test| match parts[..] {
                [module, name] => test.module == module && test.name == name,
                [folder, module, name] => test.folder == folder && test.module == module && test.name == name,
                _ => false,
            })
            .collect();
        ensure!(found.len() == 1, "{name} is the name of {} tests", found.len());
        let test = found[0];
        let folders: BTreeSet<&str> = tests
            .iter()
            .filter(|other| other.module == test.module)
            .map(|other| other.folder.as_str())
            .collect();
        let mut whole = format!("{}::{}", test.module, test.name);
        if folders.len() > 1 {
            whole.insert_str(0, &format!("{}::", test.folder));
        }
        ensure!(name == whole, "{name} is {whole}: there is a {} in {folders:?}", test.module);
        Ok(())
    }
}

fn search(folder: &Path, top: &str, tests: &mut Vec<Test>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
            search(&path, top, tests)?;
        } else if let Some(stem) = name.strip_suffix(".rs") {
            let above = path.iter().rev().skip(1).filter_map(|part| part.to_str());
            let file = [stem].into_iter().chain(above).find(|part| !NAMELESS.contains(part));
            let found = functions(&fs::read_to_string(&path)?);
            tests.extend(found.into_iter().map(|(inside, name)| Test {
                folder: top.to_owned(),
                module: inside.or(file.map(str::to_owned)).unwrap_or_default(),
                name,
            }));
        }
    }
    Ok(())
}

/// The test functions of a formatted file, each with the innermost module inside the file that has a name of its own.
fn functions(text: &str) -> Vec<(Option<String>, String)> {
    let (mut found, mut inside, mut is_test) = (Vec::new(), Vec::<(usize, &str)>::new(), false);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if line == "}" {
            inside.pop_if(|(start, _)| *start == indent);
        } else if let [.., "mod", name, "{"] = line.split(' ').collect::<Vec<_>>()[..] {
            inside.push((indent, name));
        } else if let Some(attribute) = line.strip_prefix("#[") {
            let path = attribute.split(['(', ']']).next().unwrap_or_default();
            is_test |= path.rsplit("::").next() == Some("test");
        } else if let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
            if let Some((name, _)) = rest.split_once(['(', '<']).filter(|_| is_test) {
                let module = inside.iter().map(|(_, name)| *name).rfind(|name| !NAMELESS.contains(name));
                found.push((module.map(str::to_owned), name.to_owned()));
            }
            is_test = false;
        }
    }
    found
}

/// What says where a module is and not which.
const NAMELESS: [&str; 5] = ["lib", "main", "mod", "src", "tests"];
