//! The pages stay true: every path they name exists, every element and test they list is there.

use std::{fs, path::Path};

use anyhow::{Context, Result};

const PAGES: [&str; 17] = [
    "README.md",
    "ARCHITECTURE.md",
    "PROTOCOL.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/figures.md",
    "examples/README.md",
    "examples/c/README.md",
    "examples/gtk/README.md",
    "examples/python/README.md",
    "examples/rust/README.md",
    "fuzz/README.md",
    "meeting-agent/README.md",
    "meeting-relay/README.md",
    "models/README.md",
    "pipelines/README.md",
    "plugins/README.md",
];

#[test]
fn every_path_that_a_page_links_exists() -> Result<()> {
    for page in PAGES {
        let text = read(page)?;
        let folder = root().join(Path::new(page).parent().context("a page is in a folder")?);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                assert!(folder.join(path).exists(), "{page} links {path}, which is not there");
            }
        }
    }
    Ok(())
}

#[test]
fn every_test_that_security_md_names_exists() -> Result<()> {
    let sources = sources(&root())?;
    let text = read("SECURITY.md")?;
    let names: Vec<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.contains("::") && name.split("::").all(|part| !part.is_empty()))
        .collect();
    assert!(names.len() >= 10, "SECURITY.md names only {} tests", names.len());
    for name in names {
        let (module, function) = name.rsplit_once("::").context("a name has two parts")?;
        let is_there = |(file, text): &(String, String)| {
            let before =
                text.split(&format!("fn {function}(")).next().filter(|before| before.len() < text.len());
            // Behind its attribute, and in a file or a module of that name.
            before.is_some_and(|before| {
                let attributes = before.rsplit("\n\n").next().unwrap_or_default();
                let in_module = file.as_str() == module || text.contains(&format!("mod {module}"));
                (in_module || module == "tests")
                    && ["test]", "test("].iter().any(|end| attributes.contains(end))
            })
        };
        assert!(sources.iter().any(is_there), "SECURITY.md names the test {name}, which is not there");
    }
    Ok(())
}

#[test]
fn what_the_models_quote_stands_in_protocol_md() -> Result<()> {
    let plain = |text: &str| text.replace(['`', '"'], "").split_whitespace().collect::<Vec<_>>().join(" ");
    let protocol = plain(&read("PROTOCOL.md")?);
    let mut quotes = 0;
    for entry in fs::read_dir(root().join("models/verifpal"))? {
        let path = entry?.path();
        for line in fs::read_to_string(&path)?.lines().filter(|line| line.starts_with("// broken: ")) {
            // NAME: CODE: SECTION, "words"; SECTION, "more words"
            let words =
                line.split_once(", \"").context("a broken variant quotes its rule")?.1.trim_end_matches('"');
            for quote in words.split("\"; ").map(|part| part.rsplit(", \"").next().unwrap_or(part)) {
                assert!(
                    protocol.contains(&plain(quote)),
                    "{} quotes \"{quote}\", which is not there",
                    path.display()
                );
                quotes += 1;
            }
        }
    }
    assert!(quotes >= 16, "only {quotes} quotes");
    Ok(())
}

#[test]
fn the_readme_shows_a_result_before_line_20_and_lists_every_element() -> Result<()> {
    let readme = read("README.md")?;
    let line = readme.lines().position(|line| line.contains("./pipelines/demo"));
    assert!(line.is_some_and(|line| line < 20), "./pipelines/demo is on line {line:?}");
    for element in [
        "e2eeseal",
        "e2eeopen",
        "meetingkey",
        "meetingsink",
        "meetingsrc",
        "e2eemux",
        "e2eedemux",
        "rtpsframepay",
        "rtpsframedepay",
    ] {
        assert!(readme.contains(element), "README.md does not name {element}");
    }
    Ok(())
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(page: &str) -> Result<String> {
    fs::read_to_string(root().join(page)).with_context(|| format!("cannot read {page}"))
}

/// The name and the text of every Rust file below a folder.
fn sources(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
            all.extend(sources(&path)?);
        } else if name.ends_with(".rs") {
            all.push((name.trim_end_matches(".rs").to_owned(), fs::read_to_string(&path)?));
        }
    }
    Ok(all)
}
