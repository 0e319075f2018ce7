//! The words that a table-mapping file may have: one that is spelled wrongly is refused, not passed over.

use serde_json::Value;

/// How like a word must be to be meant by another.
const LIKENESS: f64 = 0.8;

const OF_EACH: [&str; 5] = ["rule-type", "rule-id", "rule-name", "rule-action", "object-locator"];
const OF_LOCATOR: [&str; 5] = ["schema-name", "table-type", "table-name", "column-name", "data-type"];
const OF_SELECTION: [&str; 2] = ["filters", "load-order"];
const OF_TRANSFORMATION: [&str; 7] =
    ["rule-target", "value", "old-value", "expression", "data-type", "primary-key-def", "before-image-def"];
const OF_MAPPING: [&str; 3] = ["target-table-name", "mapping-parameters", "apply-during-cdc"];
const OF_PARAMETERS: [&str; 6] =
    ["partition-key-name", "sort-key-name", "exclude-columns", "attribute-mappings", "apply-during-cdc", "condition-expression"];
const OF_ATTRIBUTE: [&str; 4] = ["target-attribute-name", "attribute-type", "attribute-sub-type", "value"];

/// The first key of a rule that there is none of; `Err` says where it is, and what may be meant.
pub(super) fn ensure_known(rule: &Value) -> Result<(), String> {
    let of_kind: &[&str] = match rule.get("rule-type").and_then(Value::as_str).unwrap_or_default() {
        "selection" => &OF_SELECTION,
        "transformation" => &OF_TRANSFORMATION,
        "object-mapping" => &OF_MAPPING,
        // said elsewhere, or of no meaning here
        _ => return Ok(()),
    };
    look("", rule, &[&OF_EACH, of_kind])?;
    look(" in object-locator", &rule["object-locator"], &[&OF_LOCATOR])?;
    let parameters = &rule["mapping-parameters"];
    look(" in mapping-parameters", parameters, &[&OF_PARAMETERS])?;
    let attributes = parameters["attribute-mappings"].as_array().into_iter().flatten();
    attributes.enumerate().try_for_each(|(i, attribute)| {
        let name =
            attribute["target-attribute-name"].as_str().map_or_else(|| format!("number {}", i + 1), |name| format!("`{name}`"));
        look(&format!(" in the attribute mapping {name}"), attribute, &[&OF_ATTRIBUTE])
    })
}

/// The same of the file itself, beside its rules.
pub(super) fn ensure_file_known(file: &Value) -> Result<(), String> {
    look(" beside `rules`", file, &[&["rules"]])
}

fn look(place: &str, object: &Value, known: &[&[&str]]) -> Result<(), String> {
    let known = || known.iter().copied().flatten().copied();
    let names = object.as_object().into_iter().flat_map(serde_json::Map::keys);
    let Some(unknown) = names.into_iter().find(|name| !known().any(|known| known == *name)) else { return Ok(()) };
    let likeness = |name: &str| strsim::jaro_winkler(&name.to_lowercase(), &unknown.to_lowercase());
    let best = known().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|best| likeness(best) > LIKENESS);
    let remedy = best.map_or_else(|| "remove it".to_owned(), |best| format!("did you mean `{best}`?"));
    Err(format!("there is no key `{unknown}`{place}; {remedy}"))
}
