//! Functions of our own: masking and hashing, as text that people can compare.

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;

/// All of them.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    [Kind::Mask, Kind::Sha256Hex, Kind::HmacSha256].map(|kind| Arc::new(ScalarUDF::from(Own::new(kind)))).into()
}

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// `mask(value[, keep])`: each character but the last `keep` becomes `*`.
    Mask,
    /// `sha256_hex(value)`: SHA-256 of the text or the bytes, in hexadecimal digits.
    Sha256Hex,
    /// `hmac_sha256(value, secret)`: HMAC-SHA-256, in hexadecimal digits: who lacks the secret can't try values.
    HmacSha256,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Own {
    kind: Kind,
    signature: Signature,
}

impl Own {
    fn new(kind: Kind) -> Self {
        use datafusion::logical_expr::TypeSignature::{Any, OneOf};
        let arguments = match kind {
            Kind::Mask => OneOf(vec![Any(1), Any(2)]),
            Kind::Sha256Hex => Any(1),
            Kind::HmacSha256 => Any(2),
        };
        Self { kind, signature: Signature::new(arguments, Volatility::Immutable) }
    }
}

/// What a call of one of them has as its second argument is a constant that it can use: else the configuration is wrong, and not a row.
pub(super) fn check(name: &str, second: Option<Option<&ScalarValue>>) -> Result<()> {
    let kind = [Kind::Mask, Kind::HmacSha256].into_iter().find(|kind| kind.name() == name);
    let (Some(kind), Some(second)) = (kind, second) else { return Ok(()) };
    let Some(second) = second else { return Err(wrong(format!("the second argument of {name} must be a constant"))) };
    match kind {
        Kind::Mask => keep(second).map(|_| ()),
        _ => secret(second).map(|_| ()),
    }
}

fn keep(value: &ScalarValue) -> Result<usize> {
    let digits = if value.data_type().is_integer() { value.to_string() } else { String::new() };
    digits.parse().map_err(|_| wrong("how many characters mask keeps must be a whole number, from 0 on".into()))
}

fn secret(value: &ScalarValue) -> Result<&str> {
    let text = value.try_as_str().flatten().filter(|secret| !secret.is_empty());
    text.ok_or_else(|| wrong("the secret of hmac_sha256 must be a text that isn't empty".into()))
}

fn wrong(what: String) -> DataFusionError {
    DataFusionError::Plan(what)
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Mask => "mask",
            Kind::Sha256Hex => "sha256_hex",
            Kind::HmacSha256 => "hmac_sha256",
        }
    }
}

impl ScalarUDFImpl for Own {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = match args.args.get(1) {
            Some(ColumnarValue::Scalar(value)) => Some(value),
            _ => None,
        };
        let values = args.args[0].to_array(args.number_rows)?;
        let made: StringArray = match self.kind {
            Kind::Mask => {
                let keep = constant.map_or(Ok(0), keep)?;
                let values = strictly(&values, &DataType::Utf8)?;
                values.as_string::<i32>().iter().map(|value| value.map(|value| mask(value, keep))).collect()
            }
            Kind::Sha256Hex => hexed(&values, |bytes| Sha256::digest(bytes).to_vec())?,
            Kind::HmacSha256 => {
                let secret = secret(constant.unwrap_or(&ScalarValue::Null))?;
                let keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
                    .map_err(|_| wrong("the secret of hmac_sha256 can't be used".into()))?;
                hexed(&values, |bytes| {
                    let mut mac = keyed.clone();
                    mac.update(bytes);
                    mac.finalize().into_bytes().to_vec()
                })?
            }
        };
        Ok(ColumnarValue::Array(Arc::new(made)))
    }
}

/// Bytes that are no text are an error, not NULL.
fn strictly(values: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(values, wanted, &CastOptions { safe: false, ..CastOptions::default() })?)
}

fn mask(value: &str, keep: usize) -> String {
    let hidden = value.chars().count().saturating_sub(keep);
    value.chars().enumerate().map(|(i, c)| if i < hidden { '*' } else { c }).collect()
}

/// Of text and of bytes themselves; of anything else its text.
fn hexed(values: &ArrayRef, digest: impl Fn(&[u8]) -> Vec<u8>) -> Result<StringArray> {
    let wanted = match values.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        _ => DataType::Utf8,
    };
    let values = strictly(values, &wanted)?;
    let mut made = StringBuilder::with_capacity(values.len(), values.len() * 64);
    for i in 0..values.len() {
        if values.is_null(i) {
            made.append_null();
            continue;
        }
        let bytes = match wanted {
            DataType::Binary => values.as_binary::<i32>().value(i),
            _ => values.as_string::<i32>().value(i).as_bytes(),
        };
        for byte in digest(bytes) {
            // writing into a builder doesn't fail
            let _ = write!(made, "{byte:02x}");
        }
        made.append_value("");
    }
    Ok(made.finish())
}
