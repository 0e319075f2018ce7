//! Differences for people: whole lines where they are stored, 80 columns on a terminal.

use super::tree::Difference;

/// Columns of a terminal.
const WIDTH: usize = 80;

/// Lines that say what comes, goes and changes; empty: nothing does.
pub fn shown_differences(differences: &[Difference]) -> String {
    let mut out = String::new();
    let mut section = None;
    let mut line = |text: String| {
        out += text.trim_end();
        out.push('\n');
    };
    for difference in differences {
        if section != Some(&difference.section) {
            section = Some(&difference.section);
            let mark = match (&difference.key, &difference.before, &difference.now) {
                (key, None, Some(_)) if key.is_empty() => '+',
                (key, Some(_), None) if key.is_empty() => '-',
                _ => '~',
            };
            line(format!("{mark} {}", difference.section));
        }
        let Difference { key, before, now, .. } = difference;
        match (before, now) {
            _ if key.is_empty() => {}
            (None, Some(now)) => line(format!("    {key}: {now}")),
            (Some(before), None) => line(format!("    {key} removed: {before}")),
            (Some(before), Some(now)) => {
                let both = format!("    {key}: {before} -> {now}");
                if both.chars().count() <= WIDTH {
                    line(both);
                } else {
                    line(format!("    {key}"));
                    line(format!("      was {before}"));
                    line(format!("      now {now}"));
                }
            }
            (None, None) => {}
        }
    }
    out
}

/// The same lines for a terminal: what is longer goes on below, four columns further in, from a word's beginning where one is near.
pub fn in_terminal_lines(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let indent = (line.chars().take_while(|c| *c == ' ').count() + 4).min(WIDTH / 2);
        let mut rest: Vec<char> = line.chars().collect();
        while rest.len() > WIDTH {
            let space = rest[WIDTH / 2..=WIDTH].iter().rposition(|c| *c == ' ').map(|place| place + WIDTH / 2);
            let end = space.unwrap_or(WIDTH);
            out.extend(rest[..end].iter());
            out.push('\n');
            let begin = end + usize::from(space.is_some());
            rest = std::iter::repeat_n(' ', indent).chain(rest[begin..].iter().copied()).collect();
        }
        out.extend(rest.iter());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_whole_and_wrapped_on_a_terminal_alone() {
        let difference = |section: &str, key: &str, before: Option<&str>, now: Option<&str>| Difference {
            section: section.into(),
            key: key.into(),
            before: before.map(str::to_owned),
            now: now.map(str::to_owned),
        };
        let sql = format!("\"SELECT {} FROM input\"", (0..12).map(|i| format!("column_{i}")).collect::<Vec<_>>().join(", "));
        let all = [
            difference("lookup old", "", Some(""), None),
            difference("table shop.orders", "history", Some("true"), Some("false")),
            difference("table shop.orders", "transform", Some("\"SELECT * FROM input\""), Some(&sql)),
            difference("table shop.items", "", None, Some("")),
            difference("table shop.items", "source", None, Some("\"shop.items\"")),
            difference("lookup c", "match", Some("\"code\""), None),
        ];
        let stored = shown_differences(&all);
        assert!(stored.contains(&format!("      now {sql}\n")), "{stored}");
        let text = in_terminal_lines(&stored);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text, @r#"
        - lookup old
        ~ table shop.orders
            history: true -> false
            transform
              was "SELECT * FROM input"
              now "SELECT column_0, column_1, column_2, column_3, column_4, column_5,
                  column_6, column_7, column_8, column_9, column_10, column_11 FROM
                  input"
        + table shop.items
            source: "shop.items"
        ~ lookup c
            match removed: "code"
        "#);
        assert_eq!(shown_differences(&[]), "");
        let long = format!("+ {}é\n", "x".repeat(200));
        let wrapped = in_terminal_lines(&long);
        assert!(wrapped.lines().all(|line| line.chars().count() <= 80), "{wrapped}");
        assert_eq!(wrapped.replace("\n    ", ""), long, "a word that is too long is cut");
    }
}
