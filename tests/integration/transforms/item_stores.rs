//! What every store of items promises, tried on each: a file, and DynamoDB.

use crate::dynamodb::DynamoDb;
use binlake::deliver::{Attribute, AttributeKind, DeliverConfig, Item, ItemChange, ItemKey, ItemStore, KeyKinds, open_items};
use binlake::error::Kind;
use futures::TryStreamExt;
use std::sync::Arc;

fn kinds() -> KeyKinds {
    KeyKinds { partition: ("code".into(), AttributeKind::Text), sort: Some(("number".into(), AttributeKind::Number)) }
}

fn put(code: &str, number: &str, value: &str) -> ItemChange {
    let (code, number) = (Attribute::Text(code.into()), Attribute::Number(number.into()));
    let attributes = [("code", code.clone()), ("number", number.clone()), ("value", Attribute::Text(value.into()))];
    ItemChange::Put(Item {
        key: ItemKey { partition: code, sort: Some(number) },
        attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
    })
}

fn delete(code: &str, number: &str) -> ItemChange {
    ItemChange::Delete(put(code, number, "").key().clone())
}

async fn open(to: &str, more: &str) -> Arc<dyn ItemStore> {
    let config: DeliverConfig = toml::from_str(&format!("source = 'a.b'\nto = '{to}'\nmapping = 'x.json'\n{more}")).unwrap();
    open_items(&config).await.unwrap()
}

async fn keys(store: &Arc<dyn ItemStore>, target: &str, kinds: &KeyKinds) -> Vec<ItemKey> {
    store.keys(target, kinds).try_concat().await.unwrap()
}

/// Two sessions of one store, as of two processes.
async fn keeps_its_promises(to: &str) {
    let (target, kinds) = (format!("promises-{}", uuid::Uuid::new_v4()), kinds());
    let (target, first, second) = (target.as_str(), open(to, "").await, open(to, "").await);
    assert_eq!(first.claim(target, "a").await.unwrap(), None);
    first.prepare(target, &kinds).await.unwrap();
    second.prepare(target, &kinds).await.unwrap();
    assert_eq!(first.checkpoint(target).await.unwrap(), None);
    assert_eq!(keys(&first, target, &kinds).await, []);
    first.write(target, "a", &kinds, &[put("x", "1", "old"), put("y", "2", "y")], Some("one")).await.unwrap();
    first.write(target, "a", &kinds, &[put("x", "1", "new"), delete("y", "2"), delete("z", "9")], None).await.unwrap();
    assert_eq!(keys(&first, target, &kinds).await, [put("x", "1", "").key().clone()]);
    // another takes over: what the first has under way doesn't count any more, not even a part of it
    assert_eq!(second.claim(target, "b").await.unwrap().as_deref(), Some("one"));
    for checkpoint in [None, Some("two")] {
        let late = first.write(target, "a", &kinds, &[put("y", "2", "again"), delete("x", "1")], checkpoint).await.unwrap_err();
        assert_eq!(late.kind(), Kind::Conflict, "{late}");
    }
    assert_eq!(keys(&second, target, &kinds).await.len(), 1);
    assert_eq!(second.checkpoint(target).await.unwrap().as_deref(), Some("one"));
    // as much as it takes at once, and the checkpoint with it
    let (most, _) = second.most_at_once();
    let many: Vec<ItemChange> = (0..most).map(|i| put("many", &i.to_string(), "v")).collect();
    second.write(target, "b", &kinds, &many, Some("three")).await.unwrap();
    assert_eq!(keys(&second, target, &kinds).await.len(), most + 1);
    second.write(target, "b", &kinds, &[], Some("four")).await.unwrap();
    assert_eq!(first.checkpoint(target).await.unwrap().as_deref(), Some("four"));
    // of two who claim at once, the later one is the owner
    assert_eq!(first.claim(target, "c").await.unwrap().as_deref(), Some("four"));
    assert_eq!(second.write(target, "b", &kinds, &[], Some("five")).await.unwrap_err().kind(), Kind::Conflict);
    first.write(target, "c", &kinds, &[], Some("five")).await.unwrap();
}

#[tokio::test]
async fn a_file_keeps_the_promises() {
    let folder = tempfile::tempdir().unwrap();
    keeps_its_promises(&format!("sqlite:{}", folder.path().join("items.db").display())).await;
}

fn dynamodb(endpoint: &str) -> String {
    format!("dynamodb://control-{}?region=us-east-1&endpoint={endpoint}", uuid::Uuid::new_v4())
}

#[tokio::test]
async fn dynamodb_keeps_the_promises() {
    keeps_its_promises(&dynamodb(&DynamoDb::shared().await.endpoint())).await;
}

#[tokio::test]
async fn items_expire_by_the_attribute_that_is_named() {
    let server = DynamoDb::shared().await;
    let to = dynamodb(&server.endpoint());
    let (target, kinds) = (format!("expiring-{}", uuid::Uuid::new_v4()), kinds());
    // a table that was there before gets it, too
    open(&to, "").await.prepare(&target, &kinds).await.unwrap();
    let by = async || {
        let described = server.client().await.describe_time_to_live().table_name(&target).send().await.unwrap();
        let described = described.time_to_live_description.unwrap();
        (described.time_to_live_status.unwrap().as_str().to_owned(), described.attribute_name)
    };
    assert_eq!(by().await, ("DISABLED".to_owned(), None));
    let store = open(&to, "ttl_attribute = 'expires'").await;
    store.prepare(&target, &kinds).await.unwrap();
    store.prepare(&target, &kinds).await.unwrap();
    assert_eq!(by().await, ("ENABLED".to_owned(), Some("expires".to_owned())));
    open(&to, "ttl_attribute = 'expires'").await.prepare(&target, &kinds).await.unwrap();
    let error = open(&to, "ttl_attribute = 'other'").await.prepare(&target, &kinds).await.unwrap_err();
    assert!(error.to_string().contains("the items expire by another attribute"), "{error}");
}

/// What DynamoDB doesn't take stops its delivery, with the item's name; a table of another key is not written to.
#[tokio::test]
async fn what_can_not_be_an_item_is_named() {
    let to = dynamodb(&DynamoDb::shared().await.endpoint());
    let (target, kinds) = (format!("refused-{}", uuid::Uuid::new_v4()), kinds());
    let store = open(&to, "").await;
    store.claim(&target, "a").await.unwrap();
    store.prepare(&target, &kinds).await.unwrap();
    let long = "long".repeat(600);
    let wrong = [
        (put("x", "2", &"x".repeat(400 << 10)), "it has more than 400 KB", "item=x,2"),
        (put("x", &"1".repeat(39), ""), "the attribute `number` is a number of more than 38 digits", "item=x,1111"),
        (put(&long, "3", ""), "its partition key has more than 2048 bytes", "item=longlong"),
        // only the server knows
        (put("x", "NaN", ""), "number", ""),
    ];
    for (change, why, item) in wrong {
        let error = store.write(&target, "a", &kinds, &[put("fine", "1", ""), change], None).await.unwrap_err();
        let said = error.to_string();
        assert!(error.kind() == Kind::Data && said.contains(why) && said.contains(item), "{said}");
    }
    store.write(&target, "a", &kinds, &[put("y", "1", "y"), delete(&long, "1")], None).await.unwrap();
    assert_eq!(keys(&store, &target, &kinds).await, [put("y", "1", "").key().clone()], "nothing of the others was written");
    let other = KeyKinds { sort: Some(("number".into(), AttributeKind::Text)), ..kinds };
    let said = store.prepare(&target, &other).await.unwrap_err().to_string();
    assert!(said.contains("another key") && said.contains("found=code S,number N wanted=code S,number S"), "{said}");
}
