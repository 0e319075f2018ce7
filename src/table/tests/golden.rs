//! Tables that Spark wrote with Hudi 0.15, as we read them. The base files are empty here: which of them count was asked of hudi-rs.

use crate::error::Kind;
use crate::table::{InstantTime, TableView};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use std::sync::Arc;

async fn view(table: &str) -> TableView {
    let folder = format!("{}/tests/data/hudi/tables", env!("CARGO_MANIFEST_DIR"));
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap());
    TableView::open(store, Path::from(table)).await.unwrap()
}

fn live(view: &TableView, as_of: Option<&str>) -> Vec<String> {
    let as_of = as_of.map(|text| InstantTime::parse(text).unwrap());
    let mut names: Vec<String> = view.slices(as_of.as_ref()).unwrap().into_iter().map(|slice| slice.file_name).collect();
    names.sort();
    // the head of the bucket's id and the end of the instant tell them apart
    names.iter().map(|name| format!("{}…{}", &name[..13], &name[name.len() - 17..name.len() - 8])).collect()
}

fn column_names(view: &TableView) -> Vec<String> {
    view.latest_columns().fields().iter().map(|field| field.name().clone()).collect()
}

#[tokio::test]
async fn savepoint_rollback_and_insert_overwrite() {
    let view = view("ops").await;
    assert_eq!((view.database(), view.name()), ("default", "ops"));
    let now = [
        "00000000-bdc3…142013291",
        "00000001-a64b…142019136",
        "00000001-e5fb…141909428",
        "00000002-0698…141926990",
        "00000002-e9a0…142019136",
        "00000003-270e…141909428",
        "00000003-bc53…142007689",
    ];
    assert_eq!(live(&view, None), now);
    let before_the_overwrite = [
        "00000000-704e…141909428",
        "00000000-bdc3…141926990",
        "00000001-14fd…141909428",
        "00000001-a64b…141926990",
        "00000001-e5fb…141909428",
        "00000002-0698…141926990",
        "00000002-e9a0…141909428",
        "00000003-270e…141909428",
        "00000003-2713…141926990",
    ];
    assert_eq!(live(&view, Some("20261121141926990")), before_the_overwrite);
    assert_eq!(column_names(&view).last().map(String::as_str), Some("note"));
    assert_eq!(view.record_key(), ["id"]);
    assert_eq!(view.partition_columns(), ["sport_type"]);
    let actions: Vec<&str> = view.instants().iter().map(|instant| instant.action).collect();
    assert_eq!(actions, ["commit", "commit", "replacecommit", "commit", "commit"]);
    let earlier = view.columns(InstantTime::parse("20261121141926990").as_ref()).await.unwrap();
    assert!(earlier.field_with_name("note").is_err());
    let kept = crate::table::services::clean::savepointed_files(&view).await.unwrap();
    assert_eq!(kept.len(), 9);
    assert!(kept.contains("sport_type=nba/00000002-e9a0-4cf5-a652-8764c3055944-0_10-5-21_20261121141909428.parquet"));
}

#[tokio::test]
async fn cleaned_and_archived() {
    let view = view("clean").await;
    let now = ["00000000-7ac7…141620314", "00000001-c558…141620314", "00000002-6611…141618318", "00000003-99a7…141620314"];
    assert_eq!(live(&view, None), now);
    // files of archived commits count
    let back = ["00000000-7ac7…141618318", "00000001-c558…141618318", "00000002-6611…141618318", "00000003-99a7…141613190"];
    assert_eq!(live(&view, Some("20261121141618318")), back);
    // hudi-rs and Spark give too few rows here, without a word
    let gone = view.slices(InstantTime::parse("20261121141615368").as_ref()).unwrap_err();
    assert_eq!(gone.kind(), Kind::Refused);
    assert!(gone.to_string().contains("earliest=20261121141618318"), "{gone}");
}

#[tokio::test]
async fn restored_to_a_savepoint() {
    let view = view("restore").await;
    let now = ["00000000-30d4…142436569", "00000001-6068…142418674", "00000002-3b48…142418674", "00000003-5312…142418674"];
    assert_eq!(live(&view, None), now);
    assert!(view.groups.orphans(&view.timeline).is_empty());
}

#[tokio::test]
async fn partitioned_with_a_metadata_table() {
    let view = view("part_hive_mdt").await;
    let now = [
        "00000000-84f1…141538527",
        "00000000-b348…141533505",
        "00000000-deb9…141527415",
        "00000001-3ac0…141536186",
        "00000001-5f17…141533505",
        "00000001-681b…141527415",
        "00000002-147f…141536186",
        "00000002-3fb3…141533505",
        "00000002-8377…141538527",
        "00000003-339b…141530889",
        "00000003-8972…141533505",
        "00000003-a59b…141533505",
    ];
    assert_eq!(live(&view, None), now);
    assert!(view.properties.has_metadata_table());
    assert_eq!(view.marked_partitions.len(), 4);
    assert_eq!(view.extra_metadata("binlake.checkpoint"), None);
}
