//! The sections that can be changed while the service runs, apart from those that can't.
//!
//! A revision of a pipeline's rules is the *text* of its `[[table]]`, `[lookup.*]` and `[[deliver]]` sections, as it stands in a file: with `${VAR}`
//! unexpanded, so no secret gets into the state store and each worker expands by its own environment; and with the mapping files of the
//! deliveries, so that all workers map alike.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The sections that are rules.
pub(super) const RULES: [&str; 3] = ["table", "lookup", "deliver"];

/// The rules of a configuration, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesText {
    /// The sections, in the order of the file.
    pub toml: String,
    /// What the mapping files of the `[[deliver]]` sections hold, in the order of these.
    #[serde(default)]
    pub mappings: Vec<String>,
}

/// A configuration's text in its two parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// The sections that can't be changed while the service runs.
    pub(super) base: String,
    pub(super) rules: String,
}

impl Parts {
    /// Takes a text apart that is TOML.
    pub(super) fn of(text: &str) -> Self {
        let mut parts = Self::default();
        let mut is_rule = false;
        let mut from = 0;
        for header in headers(text) {
            parts.push(is_rule, &text[from..header.start]);
            from = header.start;
            is_rule = RULES.contains(&first_key(&text[header]));
        }
        parts.push(is_rule, &text[from..]);
        parts
    }

    fn push(&mut self, is_rule: bool, text: &str) {
        let part = if is_rule { &mut self.rules } else { &mut self.base };
        part.push_str(text);
        if !part.is_empty() && !part.ends_with('\n') {
            part.push('\n');
        }
    }

    /// The text of both: what stands before the first header must stay before all.
    pub(super) fn joined(&self) -> String {
        let first = headers(&self.base).first().map_or(self.base.len(), |header| header.start);
        let (root, sections) = self.base.split_at(first);
        let root = if root.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) { "" } else { root };
        format!("{root}{}{sections}", self.rules)
    }
}

/// `[[table]]` → `table`, `["lookup".x]` → `lookup`.
fn first_key(header: &str) -> &str {
    let inner = header.trim_start_matches('[').trim_start();
    match inner.chars().next() {
        Some(quote @ ('"' | '\'')) => inner[1..].split(quote).next().unwrap_or_default(),
        _ => inner.split(['.', ']', ' ', '\t']).next().unwrap_or_default(),
    }
}

/// Where the headers of sections stand, from their first bracket to the line's end: brackets at a line's beginning, outside of strings and values.
fn headers(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut scan = Scan::default();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        if scan.is_between() && trimmed.starts_with('[') {
            let start = at + line.len() - trimmed.len();
            found.push(start..at + line.trim_end().len());
        }
        scan.line(line);
        at += line.len();
    }
    found
}

/// What of a value is still open at a line's end.
#[derive(Default)]
struct Scan {
    /// The quotes that close a string of several lines.
    string: Option<&'static str>,
    brackets: usize,
}

impl Scan {
    fn is_between(&self) -> bool {
        self.string.is_none() && self.brackets == 0
    }

    fn line(&mut self, line: &str) {
        let mut rest = line;
        while !rest.is_empty() {
            if let Some(quotes) = self.string {
                let escaped = quotes == "\"\"\"" && rest.starts_with('\\');
                if escaped {
                    rest = skip(rest, 2);
                } else if let Some(after) = rest.strip_prefix(quotes) {
                    // up to two quotes may stand before the closing ones
                    let quote = &quotes[..1];
                    rest = after.trim_start_matches(quote);
                    self.string = None;
                } else {
                    rest = skip(rest, 1);
                }
                continue;
            }
            if let Some(quotes) = ["\"\"\"", "'''"].into_iter().find(|quotes| rest.starts_with(quotes)) {
                self.string = Some(quotes);
                rest = &rest[3..];
                continue;
            }
            match rest.chars().next() {
                Some('#') => return,
                Some(quote @ ('"' | '\'')) => rest = after_string(&rest[1..], quote),
                Some('[' | '{') => {
                    self.brackets += 1;
                    rest = &rest[1..];
                }
                Some(']' | '}') => {
                    self.brackets = self.brackets.saturating_sub(1);
                    rest = &rest[1..];
                }
                _ => rest = skip(rest, 1),
            }
        }
    }
}

fn skip(text: &str, count: usize) -> &str {
    let mut chars = text.chars();
    chars.by_ref().take(count).for_each(drop);
    chars.as_str()
}

/// What follows a string of one line.
fn after_string(mut text: &str, quote: char) -> &str {
    while let Some(c) = text.chars().next() {
        text = skip(text, if c == '\\' && quote == '"' { 2 } else { 1 });
        if c == quote {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[source]\nurl = 'mysql://x' # [[table]]\n[[table]]\nsource = 'a.b'\ntransform = '''\nSELECT x\n[0] FROM input\n'''\n\
         exclude = [\n  'a.[c]',\n]\n[lake]\nurl = \"s\\\"[x\"\n[ 'lookup' . x ]\nurl = 'file:x'\n  [[deliver]]\nsource='a.b'";

    #[test]
    fn rules_are_told_from_the_rest() {
        let parts = Parts::of(TEXT);
        assert_eq!(parts.base, "# mine\n[source]\nurl = 'mysql://x' # [[table]]\n[lake]\nurl = \"s\\\"[x\"\n");
        assert!(parts.rules.starts_with("[[table]]\nsource = 'a.b'\ntransform = '''\nSELECT x\n[0] FROM input\n'''\nexclude"));
        assert!(
            parts.rules.contains("[ 'lookup' . x ]") && parts.rules.ends_with("[[deliver]]\nsource='a.b'\n"),
            "{}",
            parts.rules
        );
    }

    #[test]
    fn parts_make_the_same_configuration_again() {
        for text in [TEXT, "", "[[table]]\nsource='a.b'\n", "x = 1\n[table.y]\n"] {
            let joined = Parts::of(text).joined();
            let value = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
            assert_eq!(value(&joined), value(text), "{joined}");
        }
    }
}
