//! The values of a key as DynamoDB compares them: `1.50` and `1.5` are one number, and what no key can be has no item.

use crate::cloud::{DynamoNumber, MOST_KEY_BYTES};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ScalarAttributeType};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A value of the key's attribute number `place` in the one spelling that it is known by; binary comes in base64. `None`: no item has such a key.
pub(super) fn canonical(kind: &ScalarAttributeType, place: usize, text: &str) -> Option<String> {
    let fits = |bytes: usize| (1..=MOST_KEY_BYTES[place.min(1)]).contains(&bytes);
    match kind {
        ScalarAttributeType::N => number(text),
        ScalarAttributeType::B => {
            let bytes = STANDARD.decode(text).ok()?;
            fits(bytes.len()).then(|| STANDARD.encode(bytes))
        }
        _ => fits(text.len()).then(|| text.to_owned()),
    }
}

/// As it is asked for.
pub(super) fn attribute(kind: &ScalarAttributeType, canonical: &str) -> AttributeValue {
    match kind {
        ScalarAttributeType::N => AttributeValue::N(canonical.to_owned()),
        ScalarAttributeType::B => AttributeValue::B(Blob::new(STANDARD.decode(canonical).unwrap_or_default())),
        _ => AttributeValue::S(canonical.to_owned()),
    }
}

fn number(text: &str) -> Option<String> {
    DynamoNumber::parse(text).filter(|number| !number.is_too_long() && !number.is_out_of_range()).map(|number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_spelling_and_what_is_no_key_none() {
        let spelled = |kind: ScalarAttributeType, text: &str| canonical(&kind, 0, text);
        let n = |text: &str| spelled(ScalarAttributeType::N, text);
        for same in ["1.5", "1.50", "+01.5", "15e-1", "0.15E1", "1.500000"] {
            assert_eq!(n(same).as_deref(), Some("15e-1"), "{same}");
        }
        for (text, known) in [("200", "2e2"), ("-7", "-7"), ("0.00", "0"), ("-0", "0"), ("1e30", "1e30"), ("123", "123")] {
            assert_eq!(n(text).as_deref(), Some(known), "{text}");
        }
        let long = "1".repeat(39);
        for none in ["", "-", ".", "abc", "1e", "NaN", "inf", "1 ", "1e126", "1e-131", &long] {
            assert_eq!(n(none), None, "{none}");
        }
        assert!(n(&long[1..]).is_some());
        let s = ScalarAttributeType::S;
        assert_eq!((canonical(&s, 0, ""), canonical(&s, 1, &"x".repeat(1025))), (None, None));
        assert_eq!(canonical(&s, 1, "001").as_deref(), Some("001"));
        let b = ScalarAttributeType::B;
        assert_eq!((spelled(b.clone(), "AP8="), spelled(b.clone(), "?"), spelled(b, "")), (Some("AP8=".into()), None, None));
    }
}
