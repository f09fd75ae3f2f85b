//! The embedded headers: which one a kernel includes, and everything that one includes in turn.

use std::collections::{BTreeMap, BTreeSet};

use moac_runtime::launch::Phase;

use crate::lower::Family;

/// The include name of the header that holds the algorithm of a family's phase, as in `moac/sm80/decode.cuh`.
pub fn of_kernel(family: Family, phase: Phase) -> String {
    format!("moac/{}/{}.cuh", family.name(), phase.name())
}

/// The text of an embedded header.
pub fn text(name: &str) -> Option<&'static str> {
    moac_templates::HEADERS.iter().find(|(known, _)| *known == name).map(|&(_, text)| text)
}

/// The embedded headers that `source` includes, directly and through others, by include name.
pub fn closure(source: &str) -> BTreeMap<&'static str, &'static str> {
    closure_in(source, moac_templates::HEADERS)
}

fn closure_in<'h>(source: &str, headers: &[(&'h str, &'h str)]) -> BTreeMap<&'h str, &'h str> {
    let mut found = BTreeMap::new();
    let mut todo: BTreeSet<String> = includes(source).map(str::to_owned).collect();
    while let Some(name) = todo.pop_first() {
        let Some(&(name, text)) = headers.iter().find(|(known, _)| *known == name) else { continue };
        if found.insert(name, text).is_none() {
            todo.extend(includes(text).map(str::to_owned));
        }
    }
    found
}

/// The names that `source` includes in angle brackets from `moac/`, in order.
fn includes(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
        let name = rest.trim_start().strip_prefix('<')?;
        let name = &name[..name.find('>')?];
        name.starts_with("moac/").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closure_follows_includes_once_and_leaves_the_rest() {
        let headers = [
            ("moac/a.cuh", "#include <moac/b.cuh>\n# include <moac/c.cuh> // why"),
            ("moac/b.cuh", "#pragma once\n  #include <moac/a.cuh>"),
            ("moac/c.cuh", "// #include <moac/d.cuh>"),
            ("moac/d.cuh", ""),
        ];
        let names = |source| closure_in(source, &headers).into_keys().collect::<Vec<_>>();
        assert_eq!(names("#include <moac/a.cuh>"), ["moac/a.cuh", "moac/b.cuh", "moac/c.cuh"]);
        assert_eq!(names("#include <moac/c.cuh>\n#include <vector>"), ["moac/c.cuh"]);
        assert_eq!(names("#include <moac/nowhere.cuh>"), [""; 0]);
    }

    #[test]
    fn every_include_of_an_embedded_header_is_embedded_and_from_moac() {
        for (name, source) in moac_templates::HEADERS {
            for line in source.lines().filter(|line| line.trim_start().starts_with("#include")) {
                let included = includes(line).next();
                assert!(included.is_some_and(|it| text(it).is_some()), "{name}: {line}");
            }
        }
    }
}
