//! A parsed TOML file that still knows where each value stands.

use super::{Needs, expand::expand};
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// Sections and keys that the format has and this version does not: said at once rather than passed over.
const LATER: [(&str, &str); 3] = [("source", "dir"), ("table", "lookups"), ("table", "mask")];

/// The file's tree.
pub(super) struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    root: Spanned<DeTable<'a>>,
    /// Each key's path with the place of its key and value, outer ones first.
    keys: Vec<(Range<usize>, String)>,
}

impl<'a> Document<'a> {
    /// Parses `text` and refuses what only a later version knows.
    pub(super) fn parse(path: &'a Path, text: &'a str) -> Result<Self> {
        let root = DeTable::parse(text).map_err(|error| {
            place(path, text, error.span(), Error::config(first_line(error.message()))).remedy("correct the TOML syntax")
        })?;
        let mut keys = Vec::new();
        note_keys(root.get_ref(), "", &mut keys);
        let document = Self { path, text, root, keys };
        document.refuse_later()?;
        Ok(document)
    }

    fn refuse_later(&self) -> Result<()> {
        for (section, key) in LATER {
            let Some((name, value)) = self.root.get_ref().get_key_value(section) else { continue };
            let tables: Vec<&DeTable<'_>> = match value.get_ref() {
                DeValue::Table(table) => vec![table],
                DeValue::Array(array) => array.iter().filter_map(|item| item.get_ref().as_table()).collect(),
                _ => Vec::new(),
            };
            let found = match key {
                "" => Some(name.span()),
                _ => tables.iter().find_map(|table| Some(table.get_key_value(key)?.0.span())),
            };
            if let Some(span) = found {
                let shown = if key.is_empty() { format!("[{section}]") } else { format!("{section}.{key}") };
                let error = Error::config(format!("`{shown}` is not in this version yet"));
                return Err(self.place(Some(span), error).remedy("remove it"));
            }
        }
        Ok(())
    }

    /// Expands `${…}` in every string.
    pub(super) fn expand(mut self, folder: &Path, needs: Needs, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let lenient = |section: &str| needs == Needs::Lake && section != "lake";
        let mut failed = None;
        for (key, value) in self.root.get_mut().iter_mut() {
            let lenient = lenient(key.get_ref());
            expand_value(value, &mut |text, span| match expand(text, folder, variable) {
                Ok(expanded) => Some(expanded.into_owned()),
                Err(_) if lenient => None,
                Err(failure) => {
                    failed.get_or_insert((span, failure));
                    None
                }
            });
        }
        match failed {
            Some((span, failure)) => Err(self.place(Some(span), Error::config(failure.what)).remedy(failure.remedy)),
            None => Ok(self),
        }
    }

    /// Gives the values to `T`.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T> {
        let Self { path, text, root, keys } = self;
        T::deserialize(toml::Deserializer::from(root)).map_err(|error| {
            let message = first_line(error.message());
            let span = error.span();
            let (what, remedy) = explain(&message);
            let error = place_key(place(path, text, span.clone(), Error::config(what)), &keys, span);
            match remedy {
                Some(remedy) => error.remedy(remedy),
                None => error,
            }
        })
    }

    fn place(&self, span: Option<Range<usize>>, error: Error) -> Error {
        place_key(place(self.path, self.text, span.clone(), error), &self.keys, span)
    }
}

/// Adds `at=file:line`.
fn place(path: &Path, text: &str, span: Option<Range<usize>>, error: Error) -> Error {
    match span.and_then(|span| text.get(..span.start)) {
        Some(before) => error.with("at", format!("{}:{}", path.display(), before.matches('\n').count() + 1)),
        None => error.with("at", path.display()),
    }
}

/// Adds `key=section.key`: the innermost key whose name or value holds the place.
fn place_key(error: Error, keys: &[(Range<usize>, String)], span: Option<Range<usize>>) -> Error {
    let Some(span) = span else { return error };
    let holds = |range: &Range<usize>| range.start <= span.start && span.end <= range.end;
    match keys.iter().rev().find(|(range, _)| holds(range)) {
        Some((_, key)) => error.with("key", key),
        None => error,
    }
}

fn note_keys(table: &DeTable<'_>, prefix: &str, keys: &mut Vec<(Range<usize>, String)>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        keys.push((key.span(), path.clone()));
        keys.push((value.span(), path.clone()));
        match value.get_ref() {
            DeValue::Table(inner) => note_keys(inner, &path, keys),
            DeValue::Array(array) => {
                for inner in array.iter().filter_map(|item| item.get_ref().as_table()) {
                    note_keys(inner, &path, keys);
                }
            }
            _ => {}
        }
    }
}

fn expand_value(value: &mut Spanned<DeValue<'_>>, expand: &mut dyn FnMut(&str, Range<usize>) -> Option<String>) {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) => {
            if let Some(expanded) = expand(text, span) {
                *text = expanded.into();
            }
        }
        DeValue::Array(array) => expand_array(array, expand),
        DeValue::Table(table) => table.iter_mut().for_each(|(_, inner)| expand_value(inner, expand)),
        _ => {}
    }
}

fn expand_array(array: &mut DeArray<'_>, expand: &mut dyn FnMut(&str, Range<usize>) -> Option<String>) {
    array.iter_mut().for_each(|inner| expand_value(inner, expand));
}

/// serde's message as ours, with the nearest known name as the remedy.
fn explain(message: &str) -> (String, Option<String>) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let list = |names: &[&str]| format!("known are {}", names.join(", "));
    let nearest = |name: &str, known: &[&str]| {
        let best = known.iter().max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)))?;
        (strsim::jaro_winkler(name, best) > 0.7).then(|| format!("did you mean `{best}`?"))
    };
    if let (true, [name, known @ ..]) = (message.starts_with("unknown field"), quoted.as_slice()) {
        return (format!("unknown key `{name}`"), nearest(name, known).or_else(|| Some(list(known))));
    }
    if let (true, [name, known @ ..]) = (message.starts_with("unknown variant"), quoted.as_slice()) {
        return (format!("unknown value `{name}`"), nearest(name, known).or_else(|| Some(list(known))));
    }
    if message == "missing field `source`" {
        // the one name that is a section and a table's key
        return ("`source` is missing".into(), Some("add [source] with url = …, and source = … to each [[table]]".into()));
    }
    if let (true, [name]) = (message.starts_with("missing field"), quoted.as_slice()) {
        return (format!("the key `{name}` is missing"), Some(format!("add {name} = …")));
    }
    if let Some((_, expected)) = message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected ")) {
        // without the value: it may be a secret
        return (format!("the value has the wrong type, expected {}", plain_type(expected)), None);
    }
    match message.split_once("; ") {
        Some((what, remedy)) => (what.to_owned(), Some(remedy.to_owned())),
        None => (message.to_owned(), None),
    }
}

fn first_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

/// A Rust type as the file's readers call it.
fn plain_type(expected: &str) -> &str {
    match expected {
        "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a string" => "a string in quotes",
        "a sequence" => "a list in square brackets",
        other => other.strip_prefix("struct ").map_or(other, |_| "a section"),
    }
}
