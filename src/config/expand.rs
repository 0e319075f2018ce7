//! `${VAR}`, `${VAR:-default}` and `${file:/path}` in a string; `$${` is a literal `${`.

use std::borrow::Cow;
use std::path::Path;

/// Why a string can't be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What is wrong, without any value.
    pub(super) what: String,
    /// What the operator does.
    pub(super) remedy: String,
}

/// Expands `text`; relative paths of `${file:…}` start at `folder`.
///
/// A value that lands in the `user:password@` part of a URL is percent-encoded where it must be, so that `p@ss/word` works as it is.
pub(super) fn expand<'a>(text: &'a str, folder: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<Cow<'a, str>, Failure> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if let Some(before) = rest[..start].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else {
            return Err(Failure {
                what: "a `${` has no closing `}`".into(),
                remedy: "close it, or write $${ for a literal ${".into(),
            });
        };
        let name = &rest[start + 2..start + length];
        rest = &rest[start + length + 1..];
        let value = value_of(name, folder, variable)?;
        if is_in_userinfo(&out, rest) { push_encoded(&mut out, &value) } else { out.push_str(&value) }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn value_of(name: &str, folder: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, Failure> {
    if let Some(path) = name.strip_prefix("file:") {
        return match std::fs::read_to_string(folder.join(path)) {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => Err(Failure {
                what: format!("the file of ${{{name}}} can't be read: {error}"),
                remedy: "name a readable text file".into(),
            }),
        };
    }
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (name, None),
    };
    variable(name).or_else(|| default.map(str::to_owned)).ok_or_else(|| Failure {
        what: format!("the environment variable {name} isn't set"),
        remedy: format!("set it, or write ${{{name}:-default}} or ${{file:/path}}"),
    })
}

/// Whether what comes next stands between a URL's `://` and its `@`.
fn is_in_userinfo(before: &str, after: &str) -> bool {
    let Some(start) = before.find("://") else { return false };
    !before[start + 3..].contains(['/', '?', '#', '@'])
        && after
            .find('@')
            .is_some_and(|at| !after[..at].replace("${", "").contains(['/', '?', '#', ' ']) || after[..at].contains("${"))
}

/// Encodes what can't stand in a URL's user or password; a `%` with two hexadecimal digits is taken as encoded already.
fn push_encoded(out: &mut String, value: &str) {
    let bytes = value.as_bytes();
    for (i, &byte) in bytes.iter().enumerate() {
        let is_encoded = |i: usize| bytes.get(i + 1..i + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let stays = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) || (byte == b'%' && is_encoded(i));
        if stays {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, Failure> {
        let variable = |name: &str| match name {
            "PASSWORD" => Some("p@ss/w%41d#".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand(text, Path::new("."), &variable).map(Cow::into_owned)
    }

    #[test]
    fn variables_defaults_and_literals() {
        assert_eq!(expanded("plain $x {y}"), Ok("plain $x {y}".into()));
        assert_eq!(expanded("<${PASSWORD}>"), Ok("<p@ss/w%41d#>".into()));
        assert_eq!(expanded("${NONE:-a:b}${EMPTY}"), Ok("a:b".into()));
        assert_eq!(expanded("$${PASSWORD}"), Ok("${PASSWORD}".into()));
        assert!(expanded("${NONE}").unwrap_err().what.contains("NONE isn't set"));
        assert!(expanded("${PASSWORD").unwrap_err().what.contains("closing"));
        assert!(expanded("${file:/does/not/exist}").unwrap_err().what.contains("can't be read"));
    }

    #[test]
    fn a_password_in_a_url_needs_no_encoding_by_hand() {
        assert_eq!(expanded("mysql://u:${PASSWORD}@h/db"), Ok("mysql://u:p%40ss%2Fw%41d%23@h/db".into()));
        assert_eq!(expanded("mysql://u@h/${PASSWORD}"), Ok("mysql://u@h/p@ss/w%41d#".into()));
    }

    #[test]
    fn a_files_last_newline_is_not_part_of_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "hush\n").unwrap();
        assert_eq!(expand("${file:secret}", folder.path(), &|_| None).unwrap(), "hush");
    }
}
