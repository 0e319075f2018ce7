//! The report: lines of at most 80 columns. Pure.

use crate::source::{Finding, Verdict};
use std::fmt;

const COLUMNS: usize = 80;
/// Where a finding's text begins.
const INDENT: usize = 8;
/// The width of the column of subjects; a longer one has a line of its own.
const SUBJECT: usize = 26;

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) sections: Vec<Section>,
    /// The SQL that makes the source's user, where its grants aren't what they should be.
    pub(super) user_sql: Option<&'static str>,
}

/// The findings about one thing.
#[derive(Debug)]
pub(super) struct Section {
    title: String,
    findings: Vec<Finding>,
}

impl Section {
    pub(super) fn new(title: impl Into<String>, findings: Vec<Finding>) -> Self {
        Self { title: title.into(), findings }
    }
}

impl Report {
    pub(super) fn failures(&self) -> usize {
        self.count(Verdict::Failure)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.sections.iter().flat_map(|section| &section.findings).filter(|finding| finding.verdict == verdict).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            writeln!(f, "{}", section.title)?;
            for finding in &section.findings {
                write_finding(f, finding)?;
            }
            writeln!(f)?;
        }
        if let Some(sql) = self.user_sql {
            writeln!(f, "The SQL that makes a user with all grants:\n\n{sql}")?;
        }
        let plural = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
        let warnings = plural(self.count(Verdict::Warning), "warning");
        match self.failures() {
            0 => writeln!(f, "All is as it must be ({warnings})."),
            failures => writeln!(f, "Not ready: {}, {warnings}.", plural(failures, "failure")),
        }
    }
}

fn write_finding(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    let mark = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warn",
        Verdict::Failure => "FAIL",
    };
    let subject = finding.subject.as_str();
    let text_at = INDENT + SUBJECT + 1;
    let mut lines = wrap(&finding.said, COLUMNS - text_at).into_iter();
    if subject.chars().count() <= SUBJECT {
        writeln!(f, "  {mark:<5} {subject:<SUBJECT$} {}", lines.next().unwrap_or_default())?;
    } else {
        writeln!(f, "  {mark:<5} {subject}")?;
    }
    for line in lines {
        writeln!(f, "{:text_at$}{line}", "")?;
    }
    if !finding.remedy.is_empty() {
        for (i, line) in wrap(&finding.remedy, COLUMNS - INDENT - 3).into_iter().enumerate() {
            writeln!(f, "{:INDENT$}{} {line}", "", if i == 0 { "->" } else { "  " })?;
        }
    }
    Ok(())
}

/// Breaks a text at spaces; a word that is too long is cut.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if !line.is_empty() && line.chars().count() + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Catalog, Grants, ServerInfo, check_grants, check_server, check_tables};

    #[test]
    fn a_server_that_is_not_ready() {
        let variables = [
            ("log_bin", "ON"),
            ("binlog_format", "MIXED"),
            ("binlog_row_image", "FULL"),
            ("binlog_row_metadata", "MINIMAL"),
            ("gtid_mode", "OFF"),
            ("server_id", "1"),
            ("binlog_expire_logs_seconds", "7200"),
            ("log_replica_updates", "ON"),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let info = ServerInfo::from_parts("8.4.6".into(), variables);
        let tables = ["shop.a_table_with_a_really_long_name_as_some_have".parse().unwrap()];
        let grants = Grants::parse("repl@%", &["GRANT REPLICATION SLAVE ON *.* TO `repl`@`%`".to_owned()]);
        let mut findings = check_server(&info);
        findings.extend(check_grants(&info, &grants, &tables));
        let report = Report {
            sections: vec![
                Section::new("source mysql://repl:***@db.example.com:3306/", findings),
                Section::new("tables", check_tables(&Catalog::default(), &tables)),
                Section::new(
                    "lake file:/data/lake",
                    vec![Finding::ok("access", "can be read and written, create-if-absent works")],
                ),
            ],
            user_sql: Some(super::super::MYSQL_USER),
        };
        let text = report.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn lines_break_at_spaces_and_long_words_are_cut() {
        assert_eq!(wrap("a bb ccc dddd", 6), ["a bb", "ccc", "dddd"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
