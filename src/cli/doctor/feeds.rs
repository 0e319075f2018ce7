//! Streams that others write: can they be read, and what was made of them?

use super::places::describe_kinesis;
use crate::cli::tables::inferred_columns;
use crate::config::{Config, FedTable, FeedFormat};
use crate::source::Finding;
use crate::stream::RecordStreamUrl;
use crate::table::Lake;
use std::path::Path;

/// Findings by stream.
pub(super) async fn check_feeds(config: &Config) -> Vec<(String, Vec<Finding>)> {
    let mut sections: Vec<(String, Vec<Finding>)> = Vec::new();
    for fed in &config.fed {
        let title = format!("feed {}", fed.stream);
        let known = sections.iter().position(|(known, _)| *known == title);
        let at = match known {
            Some(at) => at,
            None => {
                sections.push((title, vec![check_stream(&fed.stream).await]));
                sections.len() - 1
            }
        };
        let finding = check_table(config, fed).await;
        if let Some((_, findings)) = sections.get_mut(at) {
            findings.push(finding);
        }
    }
    sections
}

async fn check_stream(url: &RecordStreamUrl) -> Finding {
    match url {
        RecordStreamUrl::JsonLines(folder) => check_folder(folder),
        // nobody makes a stream that others write
        RecordStreamUrl::Kinesis(url) => {
            match describe_kinesis(&crate::stream::kinesis::KinesisUrl { create: None, ..*url.clone() }).await {
                Ok(finding) => finding,
                Err(error) => Finding::from_error("stream", &error),
            }
        }
    }
}

fn check_folder(folder: &Path) -> Finding {
    const SUBJECT: &str = "folder";
    match std::fs::read_dir(folder) {
        Ok(entries) => Finding::ok(SUBJECT, format!("can be read, {} files", entries.count())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Finding::warning(
            SUBJECT,
            "doesn't exist yet",
            "make it, or correct `stream` in the [[table]]; it is read as soon as it is there",
        ),
        Err(error) => Finding::failure(
            SUBJECT,
            format!("can't be read: {error}"),
            "give binlake's user the right to read it, or correct `stream` in the [[table]]",
        ),
    }
}

/// What is known of a table's columns.
async fn check_table(config: &Config, fed: &FedTable) -> Finding {
    let subject = fed.table.to_string();
    let inferred = match Lake::open(&config.lake.url) {
        Ok(lake) => inferred_columns(&lake, fed).await,
        Err(_) => Ok(None),
    };
    match inferred {
        Ok(Some(columns)) => Finding::ok(subject, format!("inferred columns: {columns}")),
        Ok(None) if fed.is_inferred => Finding::ok(subject, "columns are inferred from its first records"),
        Ok(None) if fed.columns.is_empty() && fed.format != FeedFormat::Json => {
            Finding::ok(subject, "columns as the records say them")
        }
        Ok(None) => Finding::ok(subject, format!("declared columns: {}", fed.columns.len())),
        Err(error) => Finding::from_error(&subject, &error),
    }
}
