//! A reader of Hudi copy-on-write tables for the tests, written apart from Binlake's own: a listing of the folder, the names of
//! the completed instants, and the newest base file of each file group. It sees what Hudi's own readers see.

#![allow(dead_code)] // each topic uses its own part of the harness

use super::service::without_zeros;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A row's values as MySQL prints them; `None` is NULL.
pub(crate) type Values = Vec<Option<String>>;

/// A table's folder.
#[derive(Debug, Clone)]
pub(crate) struct LakeTable {
    folder: PathBuf,
}

impl LakeTable {
    /// The table in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        LakeTable { folder }
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The instants of the completed commits on the active timeline, oldest first.
    pub(crate) fn instants(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder.join(".hoodie")) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let completed = |name: String| {
            let (instant, action) = name.split_once('.')?;
            (matches!(action, "commit" | "replacecommit") && instant.len() == 17).then(|| instant.to_owned())
        };
        names.filter_map(completed).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The process that wrote the table's newest commit, or took the table since.
    pub(crate) fn writer(&self) -> u32 {
        loop {
            let names = fs::read_dir(self.folder.join(".hoodie/.binlake")).unwrap().map(|entry| entry.unwrap().path());
            // what is being written has another name
            let is_entry = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u64>().is_ok());
            let newest = names.filter(is_entry).max().unwrap();
            // old entries are deleted: look again
            let Ok(text) = fs::read_to_string(newest) else { continue };
            let header: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            return u32::try_from(header["writer"]["pid"].as_u64().unwrap()).unwrap();
        }
    }

    /// A completed commit's JSON.
    pub(crate) fn commit(&self, instant: &str) -> serde_json::Value {
        let read = |action: &str| fs::read(self.folder.join(".hoodie").join(format!("{instant}.{action}")));
        serde_json::from_slice(&read("commit").or_else(|_| read("replacecommit")).unwrap()).unwrap()
    }

    /// The file groups that were ended by one of these instants, up to `as_of`, by folder and file id.
    fn replaced_groups(&self, instants: &[String], as_of: Option<&str>) -> Result<BTreeSet<(PathBuf, String)>, Box<dyn Error>> {
        let mut replaced = BTreeSet::new();
        for instant in instants.iter().filter(|instant| as_of.is_none_or(|as_of| instant.as_str() <= as_of)) {
            let path = self.folder.join(".hoodie").join(format!("{instant}.replacecommit"));
            let Ok(text) = fs::read(path) else { continue };
            let commit: serde_json::Value = serde_json::from_slice(&text)?;
            for (partition, ids) in commit["partitionToReplaceFileIds"].as_object().into_iter().flatten() {
                let folder = if partition.is_empty() { self.folder.clone() } else { self.folder.join(partition) };
                replaced
                    .extend(ids.as_array().into_iter().flatten().filter_map(|id| Some((folder.clone(), id.as_str()?.to_owned()))));
            }
        }
        Ok(replaced)
    }

    /// The base files that a reader sees at `as_of` (inclusive; `None`: now).
    pub(crate) fn base_files(&self, as_of: Option<&str>) -> Result<Vec<PathBuf>, Box<dyn Error>> {
        let instants = self.instants();
        let Some(first) = instants.first() else { return Ok(Vec::new()) };
        let completed: BTreeSet<&str> = instants.iter().map(String::as_str).collect();
        let mut newest: BTreeMap<(PathBuf, String), (String, PathBuf)> = BTreeMap::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
                if path.is_dir() && !name.starts_with('.') {
                    folders.push(path);
                } else if let Some(stem) = name.strip_suffix(".parquet") {
                    let mut parts = stem.split('_');
                    let (file_id, _, instant) = (parts.next(), parts.next(), parts.next());
                    let (Some(file_id), Some(instant)) = (file_id, instant) else { return Err(name.into()) };
                    let committed = completed.contains(instant) || instant < first.as_str();
                    if committed && as_of.is_none_or(|as_of| instant <= as_of) {
                        let slice = newest.entry((folder.clone(), file_id.to_owned())).or_default();
                        if instant > slice.0.as_str() {
                            *slice = (instant.to_owned(), path);
                        }
                    }
                }
            }
        }
        let replaced = self.replaced_groups(&instants, as_of)?;
        newest.retain(|group, _| !replaced.contains(group));
        Ok(newest.into_values().map(|(_, path)| path).collect())
    }

    /// All rows at `as_of`, with all columns of the files.
    pub(crate) fn batches(&self, as_of: Option<&str>) -> Result<Vec<RecordBatch>, Box<dyn Error>> {
        let mut batches = Vec::new();
        for path in self.base_files(as_of)? {
            for batch in ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.build()? {
                batches.push(batch?);
            }
        }
        Ok(batches)
    }

    /// The named columns' values at `as_of`; a file that lacks a column has NULL there.
    pub(crate) fn values(&self, as_of: Option<&str>, columns: &[&str]) -> Result<Vec<Values>, Box<dyn Error>> {
        let mut rows = Vec::new();
        for batch in self.batches(as_of)? {
            let texts: Vec<Values> = columns
                .iter()
                .map(|column| match batch.column_by_name(column) {
                    Some(array) => texts(array),
                    None => vec![None; batch.num_rows()],
                })
                .collect();
            rows.extend((0..batch.num_rows()).map(|row| texts.iter().map(|column| column[row].clone()).collect::<Values>()));
        }
        Ok(rows)
    }

    /// The record keys at `as_of`.
    pub(crate) fn record_keys(&self, as_of: Option<&str>) -> Vec<String> {
        let keys = self.values(as_of, &["_hoodie_record_key"]).unwrap();
        keys.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
    }
}

/// An array's values as MySQL prints them: instants without a zone, fractions only where there are some, binary as hex.
fn texts(array: &ArrayRef) -> Values {
    let options = FormatOptions::default().with_null("");
    let array = match array.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            arrow::compute::cast(array, &DataType::Timestamp(TimeUnit::clone(unit), None)).unwrap()
        }
        _ => array.clone(),
    };
    let is_time = matches!(array.data_type(), DataType::Timestamp(..));
    let is_float = matches!(array.data_type(), DataType::Float32 | DataType::Float64);
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options).unwrap();
    let text = |row: usize| {
        let text = formatter.value(row).to_string();
        match (is_time, is_float) {
            (true, _) => without_zeros(&text.replace('T', " ")),
            (_, true) => text.trim_end_matches(".0").to_owned(),
            _ => text,
        }
    };
    (0..array.len()).map(|row| array.is_valid(row).then(|| text(row))).collect()
}

/// The rows of a base file, by its footer.
pub(crate) fn row_count(file: &Path) -> Result<u64, Box<dyn Error>> {
    let rows = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.metadata().file_metadata().num_rows();
    Ok(u64::try_from(rows)?)
}
