//! Differences for people, in 80 columns.

use super::tree::Difference;

/// Columns of a terminal.
const WIDTH: usize = 80;

/// Lines that say what comes, goes and changes; empty: nothing does.
pub fn shown_differences(differences: &[Difference]) -> String {
    let mut out = String::new();
    let mut section = None;
    for difference in differences {
        if section != Some(&difference.section) {
            section = Some(&difference.section);
            let mark = match (&difference.key, &difference.before, &difference.now) {
                (key, None, Some(_)) if key.is_empty() => '+',
                (key, Some(_), None) if key.is_empty() => '-',
                _ => '~',
            };
            push_wrapped(&mut out, &format!("{mark} "), &difference.section);
        }
        let Difference { key, before, now, .. } = difference;
        match (before, now) {
            _ if key.is_empty() => {}
            (None, Some(now)) => push_wrapped(&mut out, &format!("    {key}: "), now),
            (Some(before), None) => push_wrapped(&mut out, &format!("    {key} removed: "), before),
            (Some(before), Some(now)) => {
                let line = format!("    {key}: {before} -> {now}");
                if line.chars().count() <= WIDTH {
                    out += &line;
                    out.push('\n');
                } else {
                    push_wrapped(&mut out, "    ", key);
                    push_wrapped(&mut out, "      was ", before);
                    push_wrapped(&mut out, "      now ", now);
                }
            }
            (None, None) => {}
        }
    }
    out
}

/// A line, or several: those after the first begin below the text.
fn push_wrapped(out: &mut String, head: &str, text: &str) {
    let indent = head.chars().count().min(WIDTH / 2);
    let mut line = head.to_owned();
    let mut used = line.chars().count();
    if used > WIDTH / 2 {
        out.push_str(line.trim_end());
        out.push('\n');
        (line, used) = (" ".repeat(indent), indent);
    }
    for c in text.chars() {
        if used == WIDTH {
            out.push_str(&line);
            out.push('\n');
            (line, used) = (" ".repeat(indent), indent);
        }
        line.push(c);
        used += 1;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_wrapped_and_whole() {
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
        let text = shown_differences(&all);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text, @r#"
        - lookup old
        ~ table shop.orders
            history: true -> false
            transform
              was "SELECT * FROM input"
              now "SELECT column_0, column_1, column_2, column_3, column_4, column_5, co
                  lumn_6, column_7, column_8, column_9, column_10, column_11 FROM input"
        + table shop.items
            source: "shop.items"
        ~ lookup c
            match removed: "code"
        "#);
        assert_eq!(shown_differences(&[]), "");
    }
}
