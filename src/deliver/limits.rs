//! What DynamoDB takes: one item beyond it stops its delivery, and no more.

use super::item::{Attribute, ItemChange, ItemKey};
use crate::cloud::{DynamoNumber, MOST_KEY_BYTES};

/// Bytes of an item, names and values.
const MOST_ITEM: usize = 400 << 10;
/// Why DynamoDB would refuse the change; `None`: as far as can be seen it wouldn't.
pub(super) fn refusal(change: &ItemChange) -> Option<String> {
    if let Some(why) = of_key(change.key()) {
        return Some(why.to_owned());
    }
    let ItemChange::Put(item) = change else { return None };
    if let Some((name, why)) = item.attributes.iter().find_map(|(name, value)| Some((name, of_number(value)?))) {
        return Some(format!("the attribute `{name}` {why}"));
    }
    (change.bytes() > MOST_ITEM).then(|| "it has more than 400 KB".to_owned())
}

fn of_key(key: &ItemKey) -> Option<&'static str> {
    let is_long = |attribute: &Attribute, most: usize| !matches!(attribute, Attribute::Number(_)) && attribute.bytes() > most;
    if is_long(&key.partition, MOST_KEY_BYTES[0]) {
        return Some("its partition key has more than 2048 bytes");
    }
    key.sort.as_ref().is_some_and(|sort| is_long(sort, MOST_KEY_BYTES[1])).then_some("its sort key has more than 1024 bytes")
}

fn of_number(value: &Attribute) -> Option<&'static str> {
    match value {
        Attribute::Number(text) => {
            let number = DynamoNumber::parse(text);
            if number.as_ref().is_some_and(DynamoNumber::is_too_long) {
                return Some("is a number of more than 38 digits");
            }
            number.is_none_or(|number| number.is_out_of_range()).then_some("is a number beyond 10^125 or below 10^-130")
        }
        Attribute::Map(attributes) => attributes.values().find_map(of_number),
        Attribute::List(values) => values.iter().find_map(of_number),
        Attribute::Text(_) | Attribute::Boolean(_) | Attribute::Bytes(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::item::Item;
    use std::collections::BTreeMap;

    fn put(key: &str, value: Attribute) -> ItemChange {
        let partition = Attribute::Text(key.to_owned());
        let attributes = BTreeMap::from([("id".to_owned(), partition.clone()), ("v".to_owned(), value)]);
        ItemChange::Put(Item { key: ItemKey { partition, sort: Some(Attribute::Number("1".into())) }, attributes })
    }

    #[test]
    fn what_dynamodb_does_not_take_is_said_beforehand() {
        let number = |text: &str| refusal(&put("k", Attribute::Number(text.to_owned())));
        let most = "1".repeat(38);
        for taken in ["0", "-0.00", "1e125", "9.9e125", "1e-130", &most, &format!("{most}000"), &format!("-0.00{most}0")] {
            assert_eq!(number(taken), None, "{taken}");
        }
        let digits = Some("the attribute `v` is a number of more than 38 digits".to_owned());
        assert_eq!((number(&format!("{most}.5")), number(&format!("1{}1", "0".repeat(37)))), (digits.clone(), digits));
        let size = Some("the attribute `v` is a number beyond 10^125 or below 10^-130".to_owned());
        assert_eq!((number("1e126"), number("-1e300"), number("1e-131")), (size.clone(), size.clone(), size));
        let nested = Attribute::List(vec![Attribute::Map(BTreeMap::from([("a".into(), Attribute::Number("1e300".into()))]))]);
        assert!(refusal(&put("k", nested)).is_some());
        let text = |bytes: usize| Attribute::Text("x".repeat(bytes));
        assert_eq!(refusal(&put("k", text(400 * 1024 - 4))), None);
        assert_eq!(refusal(&put("k", text(400 * 1024))).as_deref(), Some("it has more than 400 KB"));
        assert_eq!(refusal(&put(&"k".repeat(2048), text(1))), None);
        assert_eq!(refusal(&put(&"k".repeat(2049), text(1))).as_deref(), Some("its partition key has more than 2048 bytes"));
        let key = ItemKey { partition: Attribute::Text("k".into()), sort: Some(text(1025)) };
        assert_eq!(refusal(&ItemChange::Delete(key)).as_deref(), Some("its sort key has more than 1024 bytes"));
    }
}
