//! Text in MySQL's character sets, decoded as the server itself would. No I/O.
//!
//! Single-byte sets use the server's own tables ([`super::charset_table`]), the East Asian ones encoding_rs, corrected where
//! the server differs ([`super::charset_differences`]).

use super::charset_differences as differences;
use super::charset_table::UPPER_HALVES;
use encoding_rs::Encoding;
use std::borrow::Cow;

/// A character set, looked up once a column.
#[derive(Debug, Clone, Copy)]
pub(super) enum Charset {
    /// utf8mb4 and utf8mb3.
    Utf8,
    /// ascii.
    Ascii,
    /// One byte a character, the lower half as ASCII.
    SingleByte(&'static [u16; 128]),
    /// gbk, big5, sjis, ….
    MultiByte(MultiByte),
    /// utf16 and ucs2 (big endian).
    Utf16,
    /// utf16le.
    Utf16Le,
    /// utf32 (big endian).
    Utf32,
}

/// An East Asian character set: one byte for ASCII (and kana), else two or more.
#[derive(Debug, Clone, Copy)]
pub(super) struct MultiByte {
    encoding: &'static Encoding,
    /// Where the server differs, sorted.
    differs: &'static [(u16, char)],
    form: Form,
}

/// How long a character is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Always two.
    Double,
    /// Two, or four if the second is a digit.
    Gb18030,
    /// Two, but half-width kana one.
    ShiftJis,
    /// Two, or three after 0x8f; the rows from 0xf5 on are the users' own.
    EucJp,
}

impl Charset {
    /// The character set called `name`; `None`: one that isn't known (swe7, and what servers may invent).
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "utf8mb4" | "utf8mb3" | "utf8" => Self::Utf8,
            "ascii" => Self::Ascii,
            "gbk" => multi_byte(encoding_rs::GBK, &[], Form::Double),
            "gb2312" => multi_byte(encoding_rs::GBK, differences::GB2312, Form::Double),
            "gb18030" => multi_byte(encoding_rs::GB18030, differences::GB18030, Form::Gb18030),
            "big5" => multi_byte(encoding_rs::BIG5, differences::BIG5, Form::Double),
            "sjis" => multi_byte(encoding_rs::SHIFT_JIS, differences::SJIS, Form::ShiftJis),
            "cp932" => multi_byte(encoding_rs::SHIFT_JIS, &[], Form::ShiftJis),
            "ujis" => multi_byte(encoding_rs::EUC_JP, differences::UJIS, Form::EucJp),
            "eucjpms" => multi_byte(encoding_rs::EUC_JP, &[], Form::EucJp),
            "euckr" => multi_byte(encoding_rs::EUC_KR, &[], Form::Double),
            "utf16" | "ucs2" => Self::Utf16,
            "utf16le" => Self::Utf16Le,
            "utf32" => Self::Utf32,
            _ => Self::SingleByte(UPPER_HALVES.iter().find(|(known, _)| *known == name).map(|(_, table)| table)?),
        })
    }

    /// The text; what is invalid in it became U+FFFD.
    #[inline]
    pub(super) fn decode(self, bytes: &[u8]) -> Decoded<'_> {
        match self {
            Self::Utf8 => match std::str::from_utf8(bytes) {
                Ok(text) => Decoded { text: Cow::Borrowed(text), is_valid: true },
                Err(_) => Decoded { text: String::from_utf8_lossy(bytes), is_valid: false },
            },
            Self::Utf16 => utf16(bytes, u16::from_be_bytes),
            Self::Utf16Le => utf16(bytes, u16::from_le_bytes),
            Self::Utf32 => utf32(bytes),
            Self::Ascii | Self::SingleByte(_) | Self::MultiByte(_) if bytes.is_ascii() => Self::Utf8.decode(bytes),
            Self::Ascii => joined(bytes.iter().map(|byte| byte.is_ascii().then_some(char::from(*byte)))),
            Self::SingleByte(table) => single_byte(bytes, table),
            Self::MultiByte(set) => set.decode(bytes),
        }
    }
}

fn multi_byte(encoding: &'static Encoding, differs: &'static [(u16, char)], form: Form) -> Charset {
    Charset::MultiByte(MultiByte { encoding, differs, form })
}

impl MultiByte {
    fn decode(self, bytes: &[u8]) -> Decoded<'_> {
        if self.differs.is_empty() && self.form != Form::EucJp {
            return self.plain(bytes);
        }
        let (mut text, mut is_valid) = (String::with_capacity(bytes.len() * 3 / 2), true);
        let (mut start, mut place) = (0, 0);
        while let Some(rest) = bytes.get(place..).filter(|rest| !rest.is_empty()) {
            let length = self.length(rest);
            if let (2, &[high, low, ..]) = (length, rest)
                && let Some(char) = self.different(high, low)
            {
                let before = self.plain(bytes.get(start..place).unwrap_or_default());
                text.push_str(&before.text);
                is_valid &= before.is_valid;
                text.push(char);
                start = place + length;
            }
            place += length;
        }
        let rest = self.plain(bytes.get(start..).unwrap_or_default());
        text.push_str(&rest.text);
        Decoded { text: Cow::Owned(text), is_valid: is_valid && rest.is_valid }
    }

    fn plain(self, bytes: &[u8]) -> Decoded<'_> {
        let (text, had_errors) = self.encoding.decode_without_bom_handling(bytes);
        Decoded { text, is_valid: !had_errors }
    }

    /// Bytes of the character that `rest` begins with.
    fn length(self, rest: &[u8]) -> usize {
        match (self.form, rest) {
            (_, [..=0x7f, ..]) | (Form::ShiftJis, [0xa1..=0xdf, ..]) => 1,
            (Form::Gb18030, [_, b'0'..=b'9', ..]) => 4,
            (Form::EucJp, [0x8f, ..]) => 3,
            _ => 2,
        }
    }

    /// The server's character, where it is another than encoding_rs's.
    fn different(self, high: u8, low: u8) -> Option<char> {
        if self.form == Form::EucJp && high >= 0xf5 && (0xa1..=0xfe).contains(&low) && high <= 0xfe {
            return char::from_u32(0xe000 + u32::from(high - 0xf5) * 94 + u32::from(low - 0xa1));
        }
        let code = u16::from_be_bytes([high, low]);
        let found = self.differs.binary_search_by_key(&code, |(code, _)| *code).ok()?;
        self.differs.get(found).map(|(_, char)| *char)
    }
}

/// A decoded text.
#[derive(Debug)]
pub(super) struct Decoded<'a> {
    /// The text, with U+FFFD for what is invalid.
    pub(super) text: Cow<'a, str>,
    /// Whether all was valid.
    pub(super) is_valid: bool,
}

/// The characters as a text; `None` is an invalid one.
fn joined<'a>(chars: impl Iterator<Item = Option<char>>) -> Decoded<'a> {
    let mut is_valid = true;
    let chars = chars.map(|char| {
        is_valid &= char.is_some();
        char.unwrap_or(char::REPLACEMENT_CHARACTER)
    });
    let text = Cow::Owned(chars.collect());
    Decoded { text, is_valid }
}

fn single_byte<'a>(bytes: &[u8], table: &[u16; 128]) -> Decoded<'a> {
    joined(bytes.iter().map(|byte| match byte.checked_sub(0x80).and_then(|upper| table.get(usize::from(upper))) {
        None => Some(char::from(*byte)),
        Some(0) => None,
        Some(unit) => char::from_u32(u32::from(*unit)),
    }))
}

fn utf16<'a>(bytes: &[u8], unit: impl Fn([u8; 2]) -> u16) -> Decoded<'a> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let partial = (!rest.is_empty()).then_some(None);
    joined(char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).map(Result::ok).chain(partial))
}

fn utf32<'a>(bytes: &[u8]) -> Decoded<'a> {
    let (quads, rest) = bytes.as_chunks::<4>();
    let partial = (!rest.is_empty()).then_some(None);
    joined(quads.iter().map(|quad| char::from_u32(u32::from_be_bytes(*quad))).chain(partial))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(name: &str, bytes: &[u8]) -> Option<String> {
        let Decoded { text, is_valid } = Charset::named(name).unwrap().decode(bytes);
        assert_eq!(!is_valid, text.contains(char::REPLACEMENT_CHARACTER), "{name} {bytes:x?}");
        is_valid.then(|| text.into_owned())
    }

    #[test]
    fn texts() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(decode("utf8mb4", "größe 🦀".as_bytes()), some("größe 🦀"));
        assert_eq!(decode("utf8mb3", b"\xff"), None);
        assert_eq!(decode("latin1", b"\xe9\x80\x81"), some("é€\u{81}"));
        assert_eq!(decode("ascii", b"a\x80"), None);
        assert_eq!(decode("cp850", b"\x9b\x84"), some("øä"));
        assert_eq!(decode("hebrew", b"a\xa1"), None);
        assert_eq!(decode("gbk", b"\xd6\xd0\xce\xc4 x"), some("中文 x"));
        assert_eq!(decode("gbk", b"\xff\xff"), None);
        assert_eq!(decode("sjis", b"\x83\x65\x83\x58\xb1"), some("テスｱ"));
        assert_eq!(decode("sjis", b"a\x83\x5c\x81\x5f\x81\x60\x82"), None);
        assert_eq!(decode("sjis", b"a\x83\x5c\x81\x5f\x81\x60z"), some("aソ\\〜z"), "as the server has it");
        assert_eq!(decode("cp932", b"\x81\x5f"), some("＼"));
        assert_eq!(decode("ujis", b"\xf5\xa1\xa1\xc0\xa4\xa2"), some("\u{e000}\\あ"));
        assert_eq!(decode("big5", b"\xc6\xe7"), some("ゃ"));
        assert_eq!(decode("ucs2", b"\x00a\x20\xac"), some("a€"));
        assert_eq!(decode("utf16", b"\xd8\x3e\xdd\x80"), some("🦀"));
        assert_eq!(decode("utf16", b"\xd8\x3e"), None);
        assert_eq!(decode("utf16le", b"a\x00"), some("a"));
        assert_eq!(decode("utf32", b"\x00\x01\xf9\x80"), some("🦀"));
        assert_eq!(decode("utf32", b"\x00\x01\xf9"), None);
        assert!(Charset::named("swe7").is_none());
    }
}
