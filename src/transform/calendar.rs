//! Parts of dates and times by the names that MySQL, Spark and DuckDB have for them: `year(t)`, `hour(t)`. Of times that are UTC, as the lake's are.

use arrow::compute::{CastOptions, DatePart, cast_with_options, date_part};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::hash::{Hash, Hasher};

const PARTS: [(&str, DatePart); 7] = [
    ("year", DatePart::Year),
    ("quarter", DatePart::Quarter),
    ("month", DatePart::Month),
    ("day", DatePart::Day),
    ("hour", DatePart::Hour),
    ("minute", DatePart::Minute),
    ("second", DatePart::Second),
];

/// A function for each part.
pub fn calendar_functions() -> impl Iterator<Item = ScalarUDF> {
    PARTS.into_iter().map(|(name, part)| Part { name, part, signature: Signature::any(1, Volatility::Immutable) }.into())
}

#[derive(Debug, PartialEq, Eq)]
struct Part {
    name: &'static str,
    part: DatePart,
    signature: Signature,
}

impl Hash for Part {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Part {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match &arguments[0] {
            of if of.is_temporal() || of.is_string() || of.is_null() => Ok(DataType::Int32),
            of => plan_err!("{} is of a date or a time, not of {of}", self.name),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = args.args[0].to_array(args.number_rows)?;
        let strictly = CastOptions { safe: false, ..CastOptions::default() };
        let times = cast_with_options(&values, &DataType::Timestamp(TimeUnit::Microsecond, None), &strictly)?;
        Ok(ColumnarValue::Array(date_part(&times, self.part)?))
    }
}
