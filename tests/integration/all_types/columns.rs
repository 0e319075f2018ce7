//! The columns, each with its edges.

use crate::mysql::Flavour;

/// A column and the values that it is tried with, as SQL; rows beyond them have NULL.
pub(super) struct TypeColumn {
    pub(super) name: &'static str,
    pub(super) definition: String,
    pub(super) values: Vec<String>,
}

impl TypeColumn {
    pub(super) fn is_generated(&self) -> bool {
        self.definition.contains("GENERATED")
    }
}

fn column(name: &'static str, definition: &str, values: &[&str]) -> TypeColumn {
    TypeColumn { name, definition: definition.to_owned(), values: values.iter().map(|value| (*value).to_owned()).collect() }
}

fn texts(name: &'static str, definition: &str, values: &[&str]) -> TypeColumn {
    let values = values.iter().map(|value| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))).collect();
    TypeColumn { name, definition: definition.to_owned(), values }
}

/// All columns that the server has.
pub(super) fn columns(flavour: Flavour) -> Vec<TypeColumn> {
    let mut all = vec![column("marker", "INT", &["1", "-5"])];
    all.extend(numbers());
    all.extend(strings());
    all.extend(bytes());
    all.extend(members());
    all.extend(times());
    all.extend(shapes(flavour));
    if flavour == Flavour::MySql {
        all.push(json());
        all.push(column("vector3", "VECTOR(3)", &["TO_VECTOR('[1,2,3]')", "TO_VECTOR('[-0.1, 1e-30, 3.4e38]')"]));
        all.push(column("vector_default", "VECTOR", &["TO_VECTOR('[0.5]')"]));
    } else {
        all.push(texts("json", "JSON", &["{\"k\": [1, 2.50, \"x\"]}", "[]"]));
    }
    all.push(column("generated_virtual", "BIGINT GENERATED ALWAYS AS (medium + 1) VIRTUAL", &[]));
    all.push(column("generated_stored", "VARCHAR(400) GENERATED ALWAYS AS (CONCAT(latin, '!')) STORED", &[]));
    all.push(column("hidden", "INT INVISIBLE", &["7", "-7"]));
    all
}

fn numbers() -> Vec<TypeColumn> {
    vec![
        column("tiny", "TINYINT", &["-128", "127", "0", "-1"]),
        column("tiny_one", "TINYINT(1)", &["-128", "127", "0", "1"]),
        column("tiny_unsigned", "TINYINT UNSIGNED", &["0", "255", "128"]),
        column("small", "SMALLINT", &["-32768", "32767", "0", "-1"]),
        column("small_unsigned", "SMALLINT UNSIGNED", &["0", "65535", "32768"]),
        column("medium", "MEDIUMINT", &["-8388608", "8388607", "0", "-1"]),
        column("medium_unsigned", "MEDIUMINT UNSIGNED", &["0", "16777215", "8388608"]),
        column("int", "INT", &["-2147483648", "2147483647", "0", "-1"]),
        column("int_unsigned", "INT UNSIGNED", &["0", "4294967295", "2147483648"]),
        column("int_zerofill", "INT(8) ZEROFILL", &["0", "4294967295", "42"]),
        column("big", "BIGINT", &["-9223372036854775808", "9223372036854775807", "0", "-1"]),
        column("big_unsigned", "BIGINT UNSIGNED", &["0", "18446744073709551615", "9223372036854775808"]),
        column(
            "float",
            "FLOAT",
            &["0", "-0.0", "3.402823466e38", "-3.402823466e38", "1.175494351e-38", "0.1", "16777217", "1.5", "123456789"],
        ),
        column("float_scaled", "FLOAT(10,3)", &["1234567.891", "-0.001", "0"]),
        column(
            "double",
            "DOUBLE",
            &[
                "0",
                "-0.0",
                "1.7976931348623157e308",
                "-1.7976931348623157e308",
                "2.2250738585072014e-308",
                "0.1",
                "9007199254740993",
                "1e15",
                "1e-7",
            ],
        ),
        column("double_scaled", "DOUBLE(20,5)", &["123456789012345.67891", "-0.00001"]),
        column("decimal_2", "DECIMAL(10,2)", &["99999999.99", "-99999999.99", "0", "-0.01", "1.1"]),
        column("decimal_0", "DECIMAL(5,0)", &["99999", "-99999", "0", "7"]),
        column("decimal_all", "DECIMAL(9,9)", &["0.999999999", "-0.000000001", "0"]),
        column("decimal_odd", "DECIMAL(23,7)", &["9999999999999999.9999999", "-1234567890123456.7654321", "0.0000001"]),
        column(
            "decimal_38",
            "DECIMAL(38,10)",
            &["9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999", "0", "-0.0000000001"],
        ),
        column(
            "decimal_65",
            "DECIMAL(65,30)",
            &[
                "99999999999999999999999999999999999.999999999999999999999999999999",
                "-99999999999999999999999999999999999.999999999999999999999999999999",
                "0",
                "-0.000000000000000000000000000001",
                "1234567890.5",
            ],
        ),
        column("decimal_65_0", "DECIMAL(65,0)", &["99999999999999999999999999999999999999999999999999999999999999999", "-1", "0"]),
        column("decimal_unsigned", "DECIMAL(20,5) UNSIGNED", &["999999999999999.99999", "0"]),
        column("bit_1", "BIT(1)", &["b'0'", "b'1'"]),
        column("bit_8", "BIT(8)", &["b'0'", "b'11111111'", "b'10000001'"]),
        column("bit_12", "BIT(12)", &["b'0'", "b'111111111111'", "b'100000000001'"]),
        column("bit_64", "BIT(64)", &["0", "18446744073709551615", "1"]),
        column("year", "YEAR", &["'0000'", "1901", "2155", "2026"]),
    ]
}

fn strings() -> Vec<TypeColumn> {
    const LATIN: &[&str] = &["", "größe", "ÿ€Ž", "ends in spaces  ", " '\\\"%_", "tab\tnew\nline\0zero"];
    const WORLD: &[&str] =
        &["", "größe", "漢字かな", "🦀 four bytes 𐍈", "ends in spaces  ", "e\u{301} combined", "\u{feff}bom", "\0"];
    let hanzi: &[&str] = &["", "汉字 mixed", "镕", "a", "中\\文'"];
    let kana: &[&str] = &["", "漢字かなカナ", "ｶﾅ half", "表ソ\\"];
    vec![
        texts("char_5", "CHAR(5)", &["", "a", "ab  ", "🦀🦀🦀🦀🦀", "größe", "     "]),
        texts("char_bin", "CHAR(5) COLLATE utf8mb4_bin", &["", "a ", "abcde"]),
        texts("char_100", "CHAR(100)", WORLD),
        texts("char_ascii", "CHAR(255) CHARACTER SET ascii", &["", "plain", "x  y  "]),
        texts("varchar", "VARCHAR(300)", WORLD),
        texts("varchar_short", "VARCHAR(20)", WORLD),
        texts("latin", "VARCHAR(40) CHARACTER SET latin1", LATIN),
        texts("latin_text", "TEXT CHARACTER SET latin1", LATIN),
        texts("latin2", "VARCHAR(40) CHARACTER SET latin2", &["", "Łódź ř", "ends  "]),
        texts("cp1251", "VARCHAR(40) CHARACTER SET cp1251", &["", "Привет №1"]),
        texts("cp850", "CHAR(40) CHARACTER SET cp850", &["", "größe ╬"]),
        texts("koi8r", "VARCHAR(40) CHARACTER SET koi8r", &["", "Привет ░"]),
        texts("greek", "VARCHAR(40) CHARACTER SET greek", &["", "Ελλάδα"]),
        texts("hebrew", "VARCHAR(40) CHARACTER SET hebrew", &["", "שלום"]),
        texts("tis620", "VARCHAR(40) CHARACTER SET tis620", &["", "ไทย"]),
        texts("gbk", "VARCHAR(40) CHARACTER SET gbk", hanzi),
        texts("gbk_text", "MEDIUMTEXT CHARACTER SET gbk", hanzi),
        texts("gb2312", "CHAR(20) CHARACTER SET gb2312", &["", "汉字", "中文"]),
        texts("big5", "VARCHAR(40) CHARACTER SET big5", &["", "漢字", "功能"]),
        texts("sjis", "VARCHAR(40) CHARACTER SET sjis", kana),
        texts("cp932", "VARCHAR(40) CHARACTER SET cp932", kana),
        texts("ujis", "VARCHAR(40) CHARACTER SET ujis", kana),
        texts("eucjpms", "VARCHAR(40) CHARACTER SET eucjpms", kana),
        texts("euckr", "VARCHAR(40) CHARACTER SET euckr", &["", "한국어 x"]),
        texts("utf8mb3", "VARCHAR(40) CHARACTER SET utf8mb3", &["", "größe 漢字", "ends  "]),
        texts("ucs2", "CHAR(20) CHARACTER SET ucs2", &["", "größe 漢字", "ends  "]),
        texts("utf16", "VARCHAR(40) CHARACTER SET utf16", WORLD),
        texts("utf16_char", "CHAR(20) CHARACTER SET utf16", WORLD),
        texts("utf16le", "VARCHAR(40) CHARACTER SET utf16le", WORLD),
        texts("utf32", "VARCHAR(40) CHARACTER SET utf32", WORLD),
        texts("tiny_text", "TINYTEXT", WORLD),
        texts("text", "TEXT", WORLD),
        column("medium_text", "MEDIUMTEXT", &["''", "REPEAT('größe ', 20000)"]),
        column("long_text", "LONGTEXT", &["''", "REPEAT('x', 300000)", "'🦀'"]),
    ]
}

fn bytes() -> Vec<TypeColumn> {
    const BYTES: &[&str] = &["''", "x'00'", "x'ff00'", "x'00ff1000'", "'ends  '", "x'2020'"];
    vec![
        column("binary_6", "BINARY(6)", BYTES),
        column("binary_255", "BINARY(255)", BYTES),
        column("varbinary", "VARBINARY(300)", BYTES),
        column("varbinary_short", "VARBINARY(20)", BYTES),
        column("tiny_blob", "TINYBLOB", BYTES),
        column("blob", "BLOB", BYTES),
        column("medium_blob", "MEDIUMBLOB", &["''", "REPEAT(x'00ff', 100000)"]),
        column("long_blob", "LONGBLOB", &["x'00'", "REPEAT(x'fe', 200000)"]),
    ]
}

fn members() -> Vec<TypeColumn> {
    let many: Vec<String> = (0..300).map(|i| format!("'m{i}'")).collect();
    let sixty_four: Vec<String> = (0..64).map(|i| format!("'b{i}'")).collect();
    let everything = (0..64).map(|i| format!("b{i}")).collect::<Vec<_>>().join(",");
    let mut all = vec![
        texts(
            "enum",
            "ENUM('', 'x', 'it''s', 'a,b', 'größe', 'back\\\\slash', '漢字', 'new\\nline', '(', 'q\"')",
            &["", "x", "it's", "a,b", "größe", "back\\slash", "漢字", "new\nline", "(", "q\"", "no member"],
        ),
        texts("enum_latin", "ENUM('é', 'ü') CHARACTER SET latin1", &["é", "ü"]),
        texts("enum_gbk", "ENUM('汉', '字') CHARACTER SET gbk", &["汉", "字"]),
        texts("enum_many", &format!("ENUM({})", many.join(",")), &["m0", "m254", "m255", "m299"]),
        texts("enum_emoji", "ENUM('🦀', 'x', '?')", &["🦀", "?", "x", "no member"]),
        texts("set_emoji", "SET('🐘', '?', 'x')", &["🐘,?", "x", ""]),
        texts("set", "SET('a', 'b', 'it''s', 'ü')", &["", "a", "b,a", "a,b,it's,ü", "ü"]),
        texts("set_latin", "SET('é', 'ü') CHARACTER SET latin1", &["é,ü", "", "ü"]),
        texts("set_9", "SET('1','2','3','4','5','6','7','8','9')", &["9", "1,9", "1,2,3,4,5,6,7,8,9"]),
        texts("set_64", &format!("SET({})", sixty_four.join(",")), &["b63", "b0", "", "b31,b32"]),
    ];
    if let Some(set) = all.last_mut() {
        set.values.push(format!("'{everything}'"));
    }
    all
}

fn times() -> Vec<TypeColumn> {
    let mut all = vec![column(
        "date",
        "DATE",
        &[
            "'0000-00-00'",
            "'1000-01-01'",
            "'9999-12-31'",
            "'2024-02-29'",
            "'2026-00-15'",
            "'2026-02-31'",
            "'0001-01-01'",
            "'1969-12-31'",
            "'1970-01-01'",
        ],
    )];
    let names: [[&'static str; 7]; 3] = [
        ["datetime_0", "datetime_1", "datetime_2", "datetime_3", "datetime_4", "datetime_5", "datetime_6"],
        ["timestamp_0", "timestamp_1", "timestamp_2", "timestamp_3", "timestamp_4", "timestamp_5", "timestamp_6"],
        ["time_0", "time_1", "time_2", "time_3", "time_4", "time_5", "time_6"],
    ];
    for fsp in 0..7 {
        let fraction = |text: &str| if fsp == 0 { text.to_owned() } else { format!("{text}.{}", &"987654321"[..fsp]) };
        let quoted = |texts: &[String]| texts.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>();
        let date_times = ["0000-00-00 00:00:00", "2026-00-10 10:00:00"].map(String::from).into_iter();
        let date_times: Vec<String> = date_times
            .chain(
                ["1000-01-01 00:00:00", "9999-12-31 23:59:59", "2026-11-21 10:11:12", "1969-12-31 23:59:59", "0001-01-01 00:00:00"]
                    .map(fraction),
            )
            .collect();
        let stamps: Vec<String> = ["1970-01-01 00:00:01", "2038-01-19 03:14:07", "2026-03-29 01:30:00"]
            .map(fraction)
            .into_iter()
            .chain(["0000-00-00 00:00:00".to_owned()])
            .collect();
        // MariaDB and MySQL end TIMESTAMP(n) at 2038-01-19 03:14:07.999999
        let mut clocks: Vec<String> =
            ["12:34:56", "-12:34:56", "-00:00:00", "00:00:00", "-00:00:01", "838:59:58", "-838:59:58", "-01:00:00"]
                .map(fraction)
                .to_vec();
        clocks.extend(["838:59:59", "-838:59:59", "00:00:00"].map(String::from));
        for (names, definition, values) in
            [(&names[0], "DATETIME", &date_times), (&names[1], "TIMESTAMP", &stamps), (&names[2], "TIME", &clocks)]
        {
            let null = if definition == "TIMESTAMP" { " NULL" } else { "" };
            all.push(TypeColumn { name: names[fsp], definition: format!("{definition}({fsp}){null}"), values: quoted(values) });
        }
    }
    all
}

fn shapes(flavour: Flavour) -> Vec<TypeColumn> {
    let mut all = vec![
        column("point", "POINT", &["POINT(1.5, -2.5)", "ST_GeomFromText('POINT(0 0)', 4326)"]),
        column("line", "LINESTRING", &["ST_GeomFromText('LINESTRING(0 0, 1 1, 2 0)')"]),
        column("polygon", "POLYGON", &["ST_GeomFromText('POLYGON((0 0, 1 0, 1 1, 0 0))')"]),
        column(
            "geometry",
            "GEOMETRY",
            &[
                "ST_GeomFromText('POINT(1 2)')",
                "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 2), LINESTRING(0 0, 1 1))')",
                "ST_GeomFromText('MULTIPOINT(0 0, 1 1)')",
            ],
        ),
    ];
    if flavour == Flavour::MySql {
        all.push(column("point_4326", "POINT SRID 4326", &["ST_GeomFromText('POINT(48.1 11.5)', 4326)"]));
    }
    all
}

fn json() -> TypeColumn {
    let mut values: Vec<String> = [
        r#"{"k": [1, 2.5, "x", null, true, false, 123456789012345678901234567890], "d": 1.10}"#,
        "[]",
        "{}",
        "null",
        "true",
        r#""""#,
        r#""quote \" back \\\\ slash / tab \\t nul \\u0000 esc \\u001f é 🦀""#,
        "0",
        "-1",
        "32767, 32768, -32769, 2147483648, 4294967296",
        "18446744073709551615",
        "-9223372036854775808",
        "0.1, 1.0, -0.0, 1e308, 1e-7, 123456.789e3, 1e15, 1e16, 1e17, 1.5e300, 5e-324, 2.2250738585072014e-308, 0.30000000000000004",
        r#"{"b": 1, "a": 2, "aa": 3, "": 4, "ü": {"x": {"y": [[[]]]}}}"#,
        "99999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
    ]
    .iter()
    .map(|text| {
        let is_list = text.contains(", ") && !text.starts_with(['{', '[', '"']);
        let text = if is_list { format!("[{text}]") } else { (*text).to_owned() };
        format!("'{}'", text.replace("\\\\", "\\").replace('\\', "\\\\").replace('\'', "''"))
    })
    .collect();
    // what only functions can make: the server's own types inside of a document
    values.push(
        "JSON_ARRAY(CAST('2026-01-01 10:11:12.123456' AS DATETIME(6)), CAST('2026-01-02' AS DATE), CAST('-12:34:56.5' AS TIME(1)), CAST(1.50 AS DECIMAL(5,2)), \
         CAST(-12345678901234567890.123 AS DECIMAL(30,5)), x'00ff', b'101', CAST('2026-01-01' AS DATETIME), CAST(0.1 AS FLOAT), TIMESTAMP'2026-01-01 00:00:00')"
            .into(),
    );
    values.push("JSON_OBJECT('p', POINT(1, 2), 'y', CAST(2026 AS YEAR))".into());
    // an object and an array beyond 64 KiB, which are stored with wider offsets
    values.push("JSON_OBJECT('long', REPEAT('x', 70000), 'n', 70000, 'list', JSON_ARRAY(1, 'two', 3.5))".into());
    values.push("JSON_ARRAY(REPEAT('ü', 40000), -70000, NULL, 18446744073709551615)".into());
    // doubles of all sizes, the same in each run
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut doubles = Vec::new();
    while doubles.len() < 400 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = f64::from_bits(state);
        if number.is_finite() {
            doubles.push(format!("{number:e}"));
        }
        doubles.push(format!("{}e0", (state % 1_000_000_007) as f64 / 1000.0));
    }
    values.push(format!("'[{}]'", doubles.join(", ")));
    TypeColumn { name: "json", definition: "JSON".into(), values }
}
