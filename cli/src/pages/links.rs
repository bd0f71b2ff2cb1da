//! Links lead somewhere.

use std::collections::BTreeSet;

use super::{pages, read, root};

/// The anchors of a page: its headings, as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        inside ^= line.starts_with("```");
        if !inside && line.starts_with('#') {
            let heading = line.trim_start_matches('#').trim().to_lowercase().replace('`', "");
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            found.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    found
}

#[test]
fn every_link_between_pages_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    let mut looked_at = 0;
    for page in pages() {
        let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let prose = page.prose();
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            looked_at += 1;
            let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
            let path = root().join(folder).join(file);
            let leads = if file.is_empty() { true } else { path.exists() };
            let text = || if file.is_empty() { page.text.clone() } else { read(&path.display().to_string()) };
            if !leads || anchor.is_some_and(|anchor| !anchors(&text()).contains(anchor)) {
                broken.push(format!("{}: {target}", page.path));
            }
        }
    }
    assert!(broken.is_empty(), "links lead nowhere: {broken:#?}");
    assert!(looked_at > 30, "{looked_at}");
}
