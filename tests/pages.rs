//! The pages stay true: every path they name exists, every element and test they list is there.

#[path = "pages/names.rs"]
mod names;

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use names::Test;

const PAGES: [&str; 18] = [
    "README.md",
    "ARCHITECTURE.md",
    "PROTOCOL.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/attacks.md",
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

const ELEMENTS: [&str; 9] = [
    "e2eeseal",
    "e2eeopen",
    "meetingkey",
    "meetingsink",
    "meetingsrc",
    "e2eemux",
    "e2eedemux",
    "rtpsframepay",
    "rtpsframedepay",
];

#[test]
fn every_path_that_a_page_links_exists() -> Result<()> {
    for page in PAGES {
        let text = read(page)?;
        let folder = root().join(Path::new(page).parent().context("a page is in a folder")?);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            if path.contains("://") {
                continue;
            }
            let path = if path.is_empty() { root().join(page) } else { folder.join(path) };
            assert!(path.exists(), "{page} links {link}, which is not there");
            if !heading.is_empty() {
                let headings = fs::read_to_string(&path)?;
                let mut headings = headings.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(
                    headings.any(|anchor| anchor == heading),
                    "{page} links {link}, which is no heading there"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn every_test_that_a_page_names_exists() -> Result<()> {
    let tests = Test::all(&root())?;
    let mut faults = Vec::new();
    for (page, at_least) in [("SECURITY.md", 200), ("docs/attacks.md", 100), ("models/README.md", 2)] {
        let text = read(page)?;
        let names = cited(&text);
        ensure!(names.len() >= at_least, "{page} names only {} tests", names.len());
        let wrong = names.into_iter().filter_map(|name| Test::check(&tests, name).err());
        faults.extend(wrong.map(|fault| format!("{page}: {fault}")));
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn every_attack_has_a_test_or_a_sentence() -> Result<()> {
    let rows =
        [('A', 17), ('B', 8), ('C', 5), ('D', 3), ('E', 7), ('F', 4), ('G', 8), ('H', 3), ('I', 6), ('K', 3)]
            .into_iter()
            .flat_map(|(letter, count)| (1..=count).map(move |number| format!("{letter}{number}")));
    let page = read("docs/attacks.md")?;
    // | number | attack | what must happen | shown by |
    let lines: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells[0].ends_with(|last: char| last.is_ascii_digit()))
        .collect();
    let numbers: Vec<&str> = lines.iter().map(|cells| cells[0]).collect();
    assert_eq!(numbers, rows.collect::<Vec<_>>(), "each attack has one line, in order");
    for cells in lines {
        let [number, attack, must, shown] = cells[..] else { panic!("{cells:?} has not four cells") };
        assert!(!attack.is_empty() && !must.is_empty(), "{number} says too little");
        assert!(!cited(shown).is_empty() || shown.contains("](../"), "nothing shows {number}: {shown}");
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
    for element in ELEMENTS {
        assert!(readme.contains(element), "README.md does not name {element}");
    }
    Ok(())
}

#[test]
fn manual_and_package_name_every_element_and_the_manual_every_script() -> Result<()> {
    let (manual, package) = (read("install/gst-e2ee.7.in")?.replace("\\-", "-"), read("debian/control")?);
    let named: Vec<&str> =
        manual.lines().filter(|line| line.starts_with(".B")).flat_map(str::split_whitespace).collect();
    for element in ELEMENTS {
        assert!(named.contains(&element), "the manual does not name {element}");
        assert!(package.contains(element), "debian/control does not name {element}");
    }
    let meson = read("meson.build")?;
    let scripts = meson.split("scripts = [").nth(1).and_then(|rest| rest.split(']').next());
    for script in scripts.context("meson.build lists no scripts")?.split('\'').skip(1).step_by(2) {
        assert!(named.contains(&script), "the manual does not name {script}");
    }
    Ok(())
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(page: &str) -> Result<String> {
    fs::read_to_string(root().join(page)).with_context(|| format!("cannot read {page}"))
}

/// What stands between backquotes and is the name of a test.
fn cited(text: &str) -> Vec<&str> {
    let is_name = |name: &&str| name.contains("::") && name.split("::").all(|part| !part.is_empty());
    text.split('`').skip(1).step_by(2).filter(is_name).collect()
}

/// A heading as links have it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}
